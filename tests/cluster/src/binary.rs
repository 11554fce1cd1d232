//! Finds the binary that is tested: `conclave` as the sources are now, built when it is missing or older than they are.
//!
//! `cargo test --workspace` has built it before any test runs. `cargo test -p conclave-cluster-tests` has not: Cargo
//! knows no dependency on another package's binary. Then it is built here, in the same profile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use conclave_testing::Error;

/// Names the binary to be used, as it is, whatever its age.
const VARIABLE: &str = "CONCLAVE_BIN";

/// Where the binary is: what `CONCLAVE_BIN` names, else the one of this build.
///
/// # Errors
/// When `CONCLAVE_BIN` names no file, or it cannot be built.
pub fn conclave() -> Result<&'static Path, Error> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(|| find().map_err(|error| error.to_string())) {
        Ok(path) => Ok(path),
        Err(why) => Err(format!("there is no binary to test: {why}").into()),
    }
}

fn find() -> Result<PathBuf, Error> {
    if let Some(named) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        return named.canonicalize().map_err(|error| format!("{VARIABLE} is {}: {error}", named.display()).into());
    }
    // target/PROFILE/deps/this-test, or target/PROFILE/examples/this-example.
    let own = std::env::current_exe()?;
    let profile = own.parent().and_then(Path::parent).ok_or("this program lies in no target directory")?;
    let binary = profile.join("conclave");
    if !is_fresh(&binary) {
        build(profile)?;
    }
    binary.canonicalize().map_err(|error| format!("{}: {error}", binary.display()).into())
}

/// Whether the binary is newer than all that it was made of, which Cargo writes down beside it.
fn is_fresh(binary: &Path) -> bool {
    let age = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(built) = age(binary) else { return false };
    let Ok(made_of) = std::fs::read_to_string(binary.with_extension("d")) else { return false };
    let Some((_, sources)) = made_of.split_once(": ") else { return false };
    // A name with a space in it is cut in two, neither is found, and Cargo decides.
    sources.split_ascii_whitespace().all(|source| age(Path::new(source)).is_some_and(|at: SystemTime| at <= built))
}

fn build(profile: &Path) -> Result<(), Error> {
    let target = profile.parent().ok_or("the profile's directory has no parent")?;
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => return Err("the profile's directory has no name".into()),
    };
    // Of the whole workspace: what it is linked with has the features that it has for `cargo test --workspace`.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", "conclave", "--profile", name, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("it cannot be built: {}", String::from_utf8_lossy(&output.stderr)).into())
}
