//! The compiler that makes components, and how it is called so that they are the same bytes anywhere.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Result, TARGET, cargo_home, list};

/// What to do where there is none.
pub(super) const NO_TOOLCHAIN: &str = "no compiler for wasm32 here. Either: rustup target add wasm32-unknown-unknown. Or, on \
    Debian: apt-get install rustc-web cargo-web rust-web-src lld-22";

/// A compiler that makes wasm32.
pub(super) struct Toolchain {
    /// Its version and where its standard library comes from: equal names make equal bytes.
    pub(super) name: String,
    rustc: PathBuf,
    cargo: PathBuf,
    /// The linker, when the standard library is built from source.
    build_std: Option<PathBuf>,
}

impl Toolchain {
    /// Debian's first, as the checked-in components are made with it; then what `rustc` is, with the target installed.
    pub(super) fn find() -> Result<Option<Self>> {
        let bin = Path::new("/usr/bin");
        let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
        let linkers = list(bin).unwrap_or_default();
        let is_linker = |file: &&PathBuf| file.to_string_lossy().starts_with("/usr/bin/wasm-ld");
        let linker = linkers.iter().rfind(is_linker).cloned();
        if let Some(linker) = linker
            && rustc.is_file()
            && cargo.is_file()
            && sysroot(&rustc)?.join("lib/rustlib/src/rust/library").is_dir()
        {
            let name = format!("{}, its library from source", version(&rustc)?);
            return Ok(Some(Self { name, rustc, cargo, build_std: Some(linker) }));
        }
        let rustc = PathBuf::from("rustc");
        if !sysroot(&rustc)?.join("lib/rustlib").join(TARGET).is_dir() {
            return Ok(None);
        }
        Ok(Some(Self { name: version(&rustc)?, rustc, cargo: PathBuf::from("cargo"), build_std: None }))
    }

    /// Its cargo, set up so that the bytes do not depend on this machine's directories.
    pub(super) fn cargo(&self, root: &Path) -> Command {
        let mut cargo = Command::new(&self.cargo);
        // What the cargo that runs us has set for itself would confuse another one, and what somebody has set for their
        // own builds (profiles, features, flags) would make other bytes.
        for (name, _) in env::vars_os() {
            if decides_about_bytes(&name.to_string_lossy()) {
                cargo.env_remove(name);
            }
        }
        cargo.env("RUSTC", &self.rustc);
        // Hash tables of libraries want randomness: the crates that use such say where from, as nothing may be imported.
        let mut flags = vec!["--cfg=getrandom_backend=\"custom\"".to_owned()];
        for (from, to) in [(root.to_path_buf(), "/conclave"), (cargo_home(), "/cargo")] {
            flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        }
        if let Ok(sysroot) = sysroot(&self.rustc) {
            flags.push(format!("--remap-path-prefix={}=/rust", sysroot.join("lib/rustlib/src/rust").display()));
        }
        if self.build_std.is_some() {
            // Nobody hears what a component says when it traps: without the words it is half as large.
            flags.extend(["-Zunstable-options", "-Cpanic=immediate-abort"].map(str::to_owned));
            cargo.arg("-Zbuild-std-features=optimize_for_size");
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        if let Some(linker) = &self.build_std {
            cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        cargo
    }
}

/// Whether a variable of the environment can change what cargo makes: all of its own settings, except where it keeps
/// and fetches packages, and how it prints.
fn decides_about_bytes(name: &str) -> bool {
    const HARMLESS: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
    ];
    let of_cargo = name.trim_start_matches('_').starts_with("CARGO_");
    let of_rustc = name.starts_with("RUSTC_") || name.starts_with("RUSTFLAGS") || name == "LD_LIBRARY_PATH";
    of_rustc || of_cargo && !HARMLESS.iter().any(|harmless| name.starts_with(harmless))
}

fn version(rustc: &Path) -> Result<String> {
    output(rustc, &["--version"])
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    output(rustc, &["--print", "sysroot"]).map(PathBuf::from)
}

fn output(program: &Path, args: &[&str]) -> Result<String> {
    let failed = |why: String| format!("{} {}: {why}", program.display(), args.join(" "));
    let mut command = Command::new(program);
    let output =
        command.args(args).env_remove("LD_LIBRARY_PATH").output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::decides_about_bytes;

    #[test]
    fn settings_of_somebodys_own_builds_make_no_other_bytes() {
        for name in [
            "CARGO_RESOLVER_FEATURE_UNIFICATION",
            "CARGO_UNSTABLE_FEATURE_UNIFICATION",
            "__CARGO_TEST_CHANNEL_OVERRIDE_DO_NOT_USE_THIS",
            "CARGO_PROFILE_PLUGIN_OPT_LEVEL",
            "CARGO_INCREMENTAL",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "LD_LIBRARY_PATH",
        ] {
            assert!(decides_about_bytes(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_REGISTRIES_CRATES_IO_PROTOCOL", "PATH", "HOME"] {
            assert!(!decides_about_bytes(name), "{name}");
        }
    }
}
