//! What a component says and is, without running or compiling it: for whoever is asked to install it.

use conclave_protocol::plugin::{Access, ComponentDigest, Manifest, On, OnFailure, RunsAs, Trigger};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Budgets, Error, compile};

/// What is known of a component from its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// SHA-256 of it, hexadecimal.
    pub digest: String,
    /// Its bytes.
    pub bytes: usize,
    /// What it says of itself.
    pub manifest: Manifest,
    /// What it imports: of the world, or it would have been refused.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Functions in it.
    pub functions: usize,
    /// Bytes of their code.
    pub code_bytes: usize,
    /// Bytes of memory that a run begins with.
    pub memory_bytes: u64,
    /// What it will be able to do, a sentence each.
    pub may: Vec<String>,
    /// What whoever installs it should look at, a sentence each.
    pub warnings: Vec<String>,
}

/// Looks at a component: everything that a member would say against it before it compiles it.
///
/// # Errors
/// Why no member would take it.
pub fn inspect(component: &[u8]) -> Result<Report, Error> {
    let budgets = Budgets::default();
    let digest = ComponentDigest(Sha256::digest(component).into());
    let (manifest, shape) = compile::check(digest, component, &budgets)?;
    let may = may(&manifest);
    let mut warnings = Vec::new();
    if shape.memory_bytes > budgets.memory_bytes as u64 {
        warnings.push(format!(
            "it begins with {} bytes of memory, and the budget is {}: raise it (memory_bytes) when it is installed",
            shape.memory_bytes, budgets.memory_bytes
        ));
    }
    if manifest.needs.is_empty() {
        warnings.push(
            "it asks for nothing of the tree: add [[needs]] to plugin.toml if it reads or writes znodes".to_owned(),
        );
    }
    let everywhere = manifest.triggers.iter().find(|trigger| trigger.on == On::Before && covers_all(trigger));
    if let Some(trigger) = everywhere {
        let what = match trigger.on_failure {
            OnFailure::Closed => "while it fails or is suspended, nobody can write",
            OnFailure::Open => "each write waits for it",
        };
        warnings.push(format!("its trigger {} is asked before every change of the tree: {what}", trigger.name()));
    }
    Ok(Report {
        digest: digest.to_string(),
        bytes: component.len(),
        imports: shape.imports,
        exports: shape.exports,
        functions: shape.functions,
        code_bytes: shape.code_bytes,
        memory_bytes: shape.memory_bytes,
        may,
        warnings,
        manifest,
    })
}

/// What a plugin with this manifest will be able to do, a sentence each.
#[must_use]
pub fn may(manifest: &Manifest) -> Vec<String> {
    let whom = match manifest.runs_as {
        RunsAs::Caller => "as whoever calls it",
        RunsAs::Plugin => "as itself, whatever its caller may",
    };
    let mut may: Vec<String> = manifest
        .needs
        .iter()
        .map(|need| {
            let ops: Vec<String> = need.ops.iter().map(Access::to_string).collect();
            let paths: Vec<String> = need.paths.iter().map(ToString::to_string).collect();
            format!("{} on {}, {whom}", ops.join(", "), paths.join(", "))
        })
        .collect();
    may.extend(manifest.triggers.iter().map(trigger));
    for procedure in &manifest.procedures {
        let parks = if procedure.parks { ", and may have to wait" } else { "" };
        may.push(format!("can be called: {}{parks}", signature(&procedure.name, &procedure.params)));
    }
    may.extend(manifest.queries.iter().map(|query| format!("can be asked: {}", signature(&query.name, &query.params))));
    may
}

fn trigger(trigger: &Trigger) -> String {
    let paths: Vec<String> = trigger.paths.iter().map(ToString::to_string).collect();
    let kinds: Vec<String> = trigger.kinds.iter().map(ToString::to_string).collect();
    let kinds = if kinds.is_empty() { "created, data, deleted".to_owned() } else { kinds.join(", ") };
    let paths = paths.join(", ");
    match trigger.on {
        On::Before => {
            let fails = match trigger.on_failure {
                OnFailure::Closed => "refused",
                OnFailure::Open => "let through",
            };
            format!(
                "can refuse or rewrite changes ({kinds}) of {paths}, whoever makes them; when it fails they are {fails}"
            )
        }
        On::After => format!("runs in the transactions that change ({kinds}) {paths}"),
        On::SessionEnd => "runs when a session ends".to_owned(),
        On::Timer => format!("runs every {} ms, by itself", trigger.every_ms),
    }
}

fn signature(name: &str, params: &[conclave_protocol::plugin::Param]) -> String {
    let params: Vec<String> = params.iter().map(ToString::to_string).collect();
    format!("{name}({})", params.join(", "))
}

fn covers_all(trigger: &Trigger) -> bool {
    trigger.paths.iter().any(|pattern| pattern.to_string() == "/**")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn what_it_may_is_said_in_sentences() {
        let manifest = manifest::parse(
            "name = \"gate\"\nversion = \"1\"\nworld = \"conclave:plugin@0.1\"\nruns-as = \"plugin\"\n\
             [[needs]]\npaths = [\"/q/**\", \"/r\"]\nops = [\"read\", \"delete\"]\n\
             [[trigger]]\non = \"before\"\npaths = [\"/app/**\"]\n\
             [[trigger]]\non = \"timer\"\nevery-ms = 500\n\
             [[procedure]]\nname = \"take\"\nparks = true\nparams = [\"queue: path\"]\n",
        )
        .unwrap();
        assert_eq!(
            may(&manifest),
            [
                "read, delete on /q/**, /r, as itself, whatever its caller may",
                "can refuse or rewrite changes (created, data, deleted) of /app/**, whoever makes them; when it fails they are refused",
                "runs every 500 ms, by itself",
                "can be called: take(queue: path), and may have to wait",
            ]
        );
    }
}
