//! The gate, which reads only, and its writing twin: the same steps, so that what one refuses the other mends.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{plugins, tidy};

type Result<T> = std::result::Result<T, String>;

/// One step: its name, and what it does.
type Step<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);

/// Runs every step, also after one that failed, and says at the end which failed and what each took.
///
/// # Errors
/// The names of the steps that failed.
pub(crate) fn verify(with_tests: bool) -> Result<()> {
    let root = &plugins::root()?;
    let mut steps: Vec<Step<'_>> = vec![
        ("fmt", Box::new(|| cargo(root, &["fmt", "--all", "--", "--check"], &[]))),
        ("tidy", Box::new(|| tidy::run(root))),
        (
            "clippy",
            Box::new(|| {
                cargo(
                    root,
                    &["clippy", "--workspace", "--all-targets", "--keep-going", "--", "--deny", "warnings"],
                    &[],
                )
            }),
        ),
    ];
    if with_tests {
        steps.push(("test", Box::new(|| cargo(root, &["test", "--workspace"], &[]))));
    }
    let strict = [("RUSTDOCFLAGS", "--deny warnings")];
    steps.push(("doc", Box::new(move || cargo(root, &["doc", "--workspace", "--no-deps"], &strict))));
    steps.push(("plugins", Box::new(components)));

    let taken: Vec<_> = steps.iter().map(|(name, step)| (*name, timed(name, step))).collect();
    println!();
    for (name, (took, done)) in &taken {
        let verdict = if done.is_ok() { "ok" } else { "FAILED" };
        println!("{name:8} {:>6.1} s  {verdict}", took.as_secs_f64());
    }
    if !with_tests {
        println!("test          not run, as asked with --no-tests");
    }
    let failed: Vec<&str> = taken.iter().filter(|(_, (_, done))| done.is_err()).map(|(name, _)| *name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("verify: {} failed", failed.join(", "))) }
}

/// Formats, and applies what clippy can mend by itself; the rest is for a person.
///
/// # Errors
/// The command that failed.
pub(crate) fn fix() -> Result<()> {
    let root = &plugins::root()?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"];
    cargo(root, &clippy, &[])?;
    cargo(root, &["fmt", "--all"], &[])
}

fn components() -> Result<()> {
    if !plugins::can_compare()? {
        eprintln!();
        eprintln!("  WARNING: the compiler that made the components is not here: only the digests of their sources");
        eprintln!("  are compared. That the components are what those sources make is NOT checked on this machine.");
        eprintln!();
    }
    plugins::check()
}

fn timed(name: &str, step: &dyn Fn() -> Result<()>) -> (Duration, Result<()>) {
    eprintln!("== {name}");
    let start = Instant::now();
    let done = step();
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    (start.elapsed(), done)
}

/// Runs the cargo that runs us.
fn cargo(root: &Path, args: &[&str], vars: &[(&str, &str)]) -> Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args).envs(vars.iter().copied()).current_dir(root);
    let status = command.status().map_err(|error| format!("cargo can't be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", args.join(" "))) }
}
