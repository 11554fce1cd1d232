//! What a plugin is allowed: in words, as the command line says it, or as somebody answers.

use std::io::{BufRead, Write};

use conclave_client::plugin::{Access, Manifest, Need, RunsAs};

use crate::call::can_ask;
use crate::failure::Failure;

/// What it is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// All that it asks for.
    Asked,
    /// These.
    These(Vec<Need>),
}

/// What a plugin asks for, a line each.
#[must_use]
pub fn in_words(manifest: &Manifest) -> Vec<String> {
    let who = match manifest.runs_as {
        RunsAs::Caller => "as the caller".to_owned(),
        RunsAs::Plugin => format!("as itself, plugin:{}", manifest.name),
    };
    let line = |need: &Need| {
        let paths: Vec<&str> = need.paths.iter().map(conclave_protocol::PathPattern::as_str).collect();
        format!("{} on {} {who}", operations(&need.ops), paths.join(", "))
    };
    manifest.needs.iter().map(line).collect()
}

fn operations(ops: &[Access]) -> String {
    let ops: Vec<String> = ops.iter().map(ToString::to_string).collect();
    ops.join(", ")
}

/// What `--allow` says; none when it says nothing.
pub(crate) fn said(allow: &[String], manifest: &Manifest) -> Result<Option<Allowed>, Failure> {
    match allow.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        ["asked"] => Ok(Some(Allowed::Asked)),
        ["none"] => Ok(Some(Allowed::These(Vec::new()))),
        _ if allow.iter().any(|one| one == "asked" || one == "none") => {
            Err(Failure::Usage("--allow asked and --allow none stand alone".to_owned()))
        }
        _ => {
            let needs: Vec<Need> = allow.iter().map(|text| need(text)).collect::<Result<_, _>>()?;
            for (need, text) in needs.iter().zip(allow) {
                within(need, manifest).map_err(|why| {
                    Failure::Usage(format!(
                        "--allow {text}: {why}; it asks for:\n  {}",
                        in_words(manifest).join("\n  ")
                    ))
                })?;
            }
            Ok(Some(Allowed::These(needs)))
        }
    }
}

fn need(text: &str) -> Result<Need, Failure> {
    let wrong = |why: String| Failure::Usage(format!("--allow {text}: {why}; write such as read,write:/app/**"));
    let (ops, pattern) =
        text.split_once(':').ok_or_else(|| wrong("asked, none or OPERATION,...:PATTERN is expected".to_owned()))?;
    let all = [Access::Read, Access::Create, Access::Write, Access::Delete];
    let operation = |word: &str| all.into_iter().find(|access| access.to_string() == word);
    let ops = ops
        .split(',')
        .map(|word| operation(word).ok_or_else(|| wrong(format!("{word:?} is none of read, create, write, delete"))));
    Ok(Need { ops: ops.collect::<Result<_, _>>()?, paths: vec![pattern.parse().map_err(wrong)?] })
}

/// Whether it asks for that, as the cluster will see it.
fn within(allowed: &Need, manifest: &Manifest) -> Result<(), String> {
    for path in &allowed.paths {
        for op in &allowed.ops {
            if !manifest.needs.iter().any(|need| need.ops.contains(op) && need.paths.contains(path)) {
                return Err(format!("it does not ask for {op} on {path}"));
            }
        }
    }
    Ok(())
}

/// Asks somebody at the terminal.
pub(crate) fn ask(manifest: &Manifest) -> Result<Allowed, Failure> {
    let needs = in_words(manifest).join("\n      ");
    if !can_ask() {
        return Err(Failure::Usage(format!(
            "{} asks for\n      {needs}\nNobody is there to be asked. Say --allow asked, --allow none, or which of these. \
             Nothing was sent.",
            manifest.name
        )));
    }
    let mut stderr = std::io::stderr();
    let shown = write!(stderr, "asks: {needs}\nAllow? [y/N] ").and_then(|()| stderr.flush());
    shown.map_err(Failure::Output)?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim().to_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(Allowed::Asked),
        _ => Err(Failure::Refused { code: "not-allowed", text: "you did not allow it. Nothing was sent.".to_owned() }),
    }
}
