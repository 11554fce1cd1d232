//! `plugin new`: a crate that works, with tests, from the template in a clone.

use std::path::{Path, PathBuf};

use super::write;
use crate::out::{self, Failure, Outcome};

/// Write a new plugin: a crate with a trigger, a procedure that waits, and tests
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It needs no network: the SDK is that of a clone of Conclave, and so are the versions of what it needs.

  conclave plugin new gate && cd gate && cargo test && conclave plugin build")]
pub(crate) struct Args {
    /// Its name: a-z, 0-9 and -; the folder is called so too
    name: String,
    /// The folder plugins/sdk of a clone [default: of the clone that this is in, or that this program was built in]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// The template's files: where each goes, and what is in it.
const FILES: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("../../../../plugins/template/Cargo.toml.in")),
    ("plugin.toml", include_str!("../../../../plugins/template/plugin.toml.in")),
    ("src/lib.rs", include_str!("../../../../plugins/template/src/lib.rs.in")),
];

/// Where the SDK lies in a clone.
const SDK: &str = "plugins/sdk";

pub(super) fn run(args: &Args, json: bool) -> Outcome {
    check(&args.name)?;
    let sdk = match &args.sdk {
        Some(sdk) if is_sdk(sdk) => sdk.clone(),
        Some(sdk) => {
            let text = format!(
                "--sdk {}: there is no SDK: it is the folder plugins/sdk of a clone of Conclave",
                sdk.display()
            );
            return Err(Failure::Usage(text));
        }
        None => find(&here()?).ok_or_else(|| {
            Failure::Usage(
                "the SDK is not found here or above, nor where this program was built. Say --sdk DIR: the folder \
                 plugins/sdk of a clone of Conclave."
                    .to_owned(),
            )
        })?,
    };
    let sdk = sdk.canonicalize().map_err(|error| Failure::broken(sdk.display(), error))?;
    let folder = PathBuf::from(&args.name);
    if folder.exists() {
        let text = format!(
            "{} is there already. Nothing was written. Choose another name, or another folder.",
            folder.display()
        );
        return Err(Failure::refused("file", text));
    }
    for (name, text) in FILES {
        write(&folder.join(name), filled(text, &args.name, &sdk).as_bytes())?;
    }
    // With it cargo takes the versions that are there already.
    let lock = sdk.join("../../Cargo.lock");
    if lock.is_file() {
        std::fs::copy(&lock, folder.join("Cargo.lock")).map_err(|error| Failure::broken(lock.display(), error))?;
    }
    if json {
        out::line(serde_json::json!({ "done": "written", "name": args.name, "folder": folder, "sdk": sdk }));
    } else {
        out::line(format!("written: {0}/plugin.toml, {0}/src/lib.rs, with tests", args.name));
        out::line(format!("next: cd {} && cargo test && conclave plugin build", args.name));
    }
    Ok(())
}

fn here() -> Outcome<PathBuf> {
    std::env::current_dir().map_err(|error| Failure::broken("the current folder", error))
}

/// The same as members demand of a plugin's name, and cargo of a package's.
fn check(name: &str) -> Outcome {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if first && name.len() <= 64 && !name.ends_with('-') && name.bytes().all(allowed) {
        return Ok(());
    }
    let text = format!(
        "a plugin's name is 1 to 64 of a-z, 0-9 and -, begins with a letter and does not end in -; it is {name:?}"
    );
    Err(Failure::Usage(text))
}

/// Words of the template replaced by what they stand for.
fn filled(text: &str, name: &str, sdk: &Path) -> String {
    let camel: String = name
        .split('-')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            format!("{}{rest}", first.to_uppercase())
        })
        .collect();
    text.replace("{{name}}", name).replace("{{Type}}", &camel).replace("{{sdk}}", &sdk.to_string_lossy())
}

fn is_sdk(folder: &Path) -> bool {
    folder.join("Cargo.toml").is_file() && folder.join("src/export.rs").is_file()
}

/// The SDK of the clone that a folder is in, or that this program was built in.
fn find(from: &Path) -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = from.ancestors().chain(built.ancestors());
    folders.map(|folder| folder.join(SDK)).find(|sdk| is_sdk(sdk))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_plugins_name_becomes_a_type_and_the_template_has_no_words_left() {
        for (name, text) in FILES {
            let filled = filled(text, "my-gate", Path::new("/clone/plugins/sdk"));
            assert!(!filled.contains("{{"), "{name}");
        }
        assert_eq!(filled("{{Type}} {{name}}", "my-gate", Path::new("/")), "MyGate my-gate");
    }

    #[test]
    fn the_manifest_of_a_new_plugin_is_one() {
        let text = filled(FILES[1].1, "gate", Path::new("/"));
        let manifest: conclave_client::plugin::Manifest = toml::from_str(&text).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.procedures.len()), ("gate", 1));
    }

    #[test]
    fn names_that_are_none_are_usage_errors() {
        for name in ["", "Gate", "-gate", "gate-", "7up", "a_b", "a/b", &"x".repeat(65)] {
            assert!(matches!(check(name), Err(Failure::Usage(_))), "{name}");
        }
        assert!(check("gate-7").is_ok());
    }

    #[test]
    fn the_sdk_is_that_of_the_clone_around() {
        let found = find(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(found.ends_with(SDK));
    }
}
