//! `plugin build`: the crate compiled for wasm32, made a component, with its manifest inside.

use std::path::{Path, PathBuf};

use wasm_encoder::{ComponentSection, CustomSection};

use super::toolchain::{TARGET, Toolchain};
use super::{read, write};
use crate::out::{self, Failure, Outcome};

/// Build the plugin in this folder: NAME.wasm, with its manifest inside
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder has a Cargo.toml with a [profile.plugin], and a plugin.toml: what `conclave plugin new` writes.

  conclave plugin build && conclave plugin check gate.wasm")]
pub(crate) struct Args {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Write the component to this file [default: NAME.wasm in that folder]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The custom section that members read the manifest from.
const SECTION: &str = "conclave:manifest";

pub(super) fn run(args: &Args, json: bool) -> Outcome {
    let manifest_file = args.folder.join("plugin.toml");
    let manifest = read(&manifest_file)?;
    let parsed: conclave_client::plugin::Manifest = std::str::from_utf8(&manifest)
        .map_err(|error| error.to_string())
        .and_then(|text| toml::from_str(text).map_err(|error: toml::de::Error| error.to_string()))
        .map_err(|why| Failure::Usage(format!("{}: {}", manifest_file.display(), why.trim_end())))?;
    let package = package(&args.folder)?;
    let toolchain = Toolchain::find().map_err(|why| Failure::refused("no-compiler", why))?;
    let module = compile(&args.folder, &package, &toolchain)?;
    let component = component(&module, &manifest).map_err(|why| {
        Failure::refused(
            "plugin-unfit",
            format!("{package} makes no component: {why}. Does it call conclave_plugin::export!?"),
        )
    })?;
    let report = conclave_plugin_host::inspect::inspect(&component)
        .map_err(|error| Failure::refused("plugin-unfit", format!("no member would take it: {error}")))?;
    let file = args.out.clone().unwrap_or_else(|| args.folder.join(format!("{}.wasm", parsed.name)));
    write(&file, &component)?;
    if json {
        out::line(serde_json::json!({ "file": file, "bytes": component.len(), "digest": report.digest }));
    } else {
        let imports = if report.imports.is_empty() { "nothing".to_owned() } else { report.imports.join(", ") };
        let kb = component.len().div_ceil(1024);
        out::line(format!("{}  {kb} KB  sha256:{}  imports only {imports}", file.display(), report.digest));
    }
    Ok(())
}

/// The package's name, of its Cargo.toml.
fn package(folder: &Path) -> Outcome<String> {
    let file = folder.join("Cargo.toml");
    let wrong = |why: &str| Failure::Usage(format!("{}: {why}", file.display()));
    let text = read(&file)?;
    let table: toml::Table =
        String::from_utf8_lossy(&text).parse().map_err(|error: toml::de::Error| wrong(error.to_string().trim_end()))?;
    if table.get("profile").and_then(|profile| profile.get("plugin")).is_none() {
        return Err(wrong("there is no [profile.plugin]; `conclave plugin new` writes one, copy it from there"));
    }
    let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    name.map(str::to_owned).ok_or_else(|| wrong("there is no package.name"))
}

fn compile(folder: &Path, package: &str, toolchain: &Toolchain) -> Outcome<Vec<u8>> {
    let mut cargo = toolchain.cargo();
    cargo.args(["build", "--profile", "plugin", "--lib", "--target", TARGET, "--target-dir", "target/plugin"]);
    // What it says goes to stderr as it is.
    let status = cargo.current_dir(folder).status().map_err(|error| Failure::broken("cargo can't be run", error))?;
    if !status.success() {
        let text = format!("{package} can't be compiled: see what cargo said above. Nothing was written.");
        return Err(Failure::refused("compile", text));
    }
    let file = format!("target/plugin/{TARGET}/plugin/{}.wasm", package.replace('-', "_"));
    let module = folder.join(file);
    if !module.is_file() {
        let text =
            format!("{} was not made: its Cargo.toml says crate-type = [\"cdylib\", \"rlib\"]", module.display());
        return Err(Failure::Usage(text));
    }
    read(&module)
}

/// A core module as a component, with a manifest.
fn component(module: &[u8], manifest: &[u8]) -> Result<Vec<u8>, String> {
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(wit_component::ComponentEncoder::encode);
    let mut component = encoded.map_err(|error| format!("{error:#}"))?;
    CustomSection { name: SECTION.into(), data: manifest.into() }.append_to_component(&mut component);
    Ok(component)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_no_plugins_folder_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let args = || Args { folder: folder.path().to_owned(), out: None };
        let failed = run(&args(), false).unwrap_err().to_string();
        assert!(failed.contains("plugin.toml"), "{failed}");
        let manifest = "name = \"gate\"\nversion = \"1\"\nworld = \"conclave:plugin@0.1\"\n";
        std::fs::write(folder.path().join("plugin.toml"), manifest).unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), "[package]\nname = \"gate\"\n").unwrap();
        let failed = run(&args(), false).unwrap_err().to_string();
        assert!(failed.contains("[profile.plugin]"), "{failed}");
        std::fs::write(folder.path().join("plugin.toml"), "nam = 1\n").unwrap();
        let failed = run(&args(), false).unwrap_err();
        assert!(
            matches!(&failed, Failure::Usage(why) if why.contains("plugin.toml") && why.contains("nam")),
            "{failed}"
        );
    }

    #[test]
    fn what_is_no_module_makes_no_component() {
        assert!(component(b"nothing", b"").is_err());
    }
}
