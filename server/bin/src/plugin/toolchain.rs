//! The compiler that makes wasm32, whichever is there.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What plugins are compiled for.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";
/// Where a distribution's programs lie.
const BIN: &str = "/usr/bin";

/// A compiler that makes wasm32. (xtask has its twin, whose bytes must not depend on the machine.)
#[derive(Debug)]
pub(super) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    /// The linker, when the standard library is built from source.
    build_std: Option<PathBuf>,
}

impl Toolchain {
    /// The `rustc` that is found first, with the target installed; else Debian's, with the library's sources.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(super) fn find() -> Result<Self, String> {
        let rustc = PathBuf::from("rustc");
        let mut missing = Vec::new();
        match sysroot(&rustc) {
            Ok(sysroot) if sysroot.join("lib/rustlib").join(TARGET).is_dir() => {
                return Ok(Self { rustc, cargo: PathBuf::from("cargo"), build_std: None });
            }
            Ok(sysroot) => missing.push(format!("{} has no target {TARGET}", sysroot.display())),
            Err(why) => missing.push(format!("no rustc: {why}")),
        }
        match Self::of_distribution(Path::new(BIN)) {
            Ok(toolchain) => Ok(toolchain),
            Err(why) => {
                missing.push(why);
                Err(format!(
                    "no compiler for wasm32 here: {}. Get one by `rustup target add {TARGET}`, or, on Debian, by \
                     `apt-get install rustc-web cargo-web rust-web-src lld-22`. Then run this again.",
                    missing.join("; ")
                ))
            }
        }
    }

    fn of_distribution(bin: &Path) -> Result<Self, String> {
        let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
        for program in [&rustc, &cargo] {
            if !program.is_file() {
                return Err(format!("there is no {}", program.display()));
            }
        }
        let library = sysroot(&rustc)?.join("lib/rustlib/src/rust/library");
        if !library.is_dir() {
            return Err(format!("there are no sources of the standard library in {}", library.display()));
        }
        let linker = std::fs::read_dir(bin).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut linkers: Vec<PathBuf> = linker.filter(|file| is_linker(file)).collect();
        linkers.sort();
        let linker = linkers.pop().ok_or_else(|| format!("there is no wasm-ld in {}", bin.display()))?;
        Ok(Self { rustc, cargo, build_std: Some(linker) })
    }

    /// Its cargo.
    pub(super) fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        // What a cargo that runs us has set for itself would confuse another one.
        for name in ["LD_LIBRARY_PATH", "RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
            cargo.env_remove(name);
        }
        // Hash tables of libraries want randomness: the crates that use such say where from, as nothing may be imported.
        cargo.env("RUSTC", &self.rustc).env("CARGO_ENCODED_RUSTFLAGS", "--cfg=getrandom_backend=\"custom\"");
        if let Some(linker) = &self.build_std {
            cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        cargo
    }
}

fn is_linker(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wasm-ld"))
}

fn sysroot(rustc: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new(rustc);
    let output = command.args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH").output();
    let output = output.map_err(|error| format!("{}: {error}", rustc.display()))?;
    if !output.status.success() {
        return Err(format!("{}: {}", rustc.display(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_missing_of_a_distributions_compiler_is_said() {
        let empty = tempfile::tempdir().unwrap();
        let why = Toolchain::of_distribution(empty.path()).unwrap_err();
        assert!(why.ends_with("/rustc"), "{why}");
    }
}
