//! The manifest: `plugin.toml`, which lies in a custom section of the component and is read without running any code.

use conclave_protocol::limits;
use conclave_protocol::plugin::{Manifest, Need, On, Procedure, Trigger};
use wasmparser::{Parser, Payload};

use crate::{Error, WORLD, args, near};

/// The custom section's name.
pub const SECTION: &str = "conclave:manifest";
/// As of a name in a path, so that a plugin's name can be one.
const NAME_BYTES: usize = 64;
/// Bytes of a version, which is told in lists.
const VERSION_BYTES: usize = 64;
/// Bytes of a description.
const DESCRIPTION_BYTES: usize = 1_024;
/// Parameters of one procedure.
const PARAMS: usize = 32;
/// Procedures and queries of one plugin.
const PROCEDURES: usize = 256;
/// Patterns of paths in one list, and lists of needs.
const PATTERNS: usize = 64;
/// The least time between two runs of a timer: each is a transaction.
const EVERY_MS: u64 = 100;

/// The manifest in a component's bytes.
///
/// # Errors
/// [`Error::Malformed`] for bytes that are no component, [`Error::Manifest`] for a manifest that is missing, there
/// twice, or wrong.
pub fn read(component: &[u8]) -> Result<Manifest, Error> {
    let malformed = |error: wasmparser::BinaryReaderError| Error::Malformed(error.to_string());
    let mut depth = 0_usize;
    let mut found = None;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section)
                if depth == 0 && section.name() == SECTION && found.replace(section.data()).is_some() =>
            {
                return Err(Error::Manifest("is there twice".to_owned()));
            }
            _ => {}
        }
    }
    let found = found.ok_or_else(|| {
        Error::Manifest(format!(
            "is missing: there is no section {SECTION}; conclave plugin build puts plugin.toml there"
        ))
    })?;
    if found.len() > limits::MANIFEST_BYTES {
        return Err(Error::Manifest(format!("has {} bytes, {} are allowed", found.len(), limits::MANIFEST_BYTES)));
    }
    let text = std::str::from_utf8(found).map_err(|_| Error::Manifest("is not UTF-8".to_owned()))?;
    parse(text)
}

/// The manifest that this `plugin.toml` is.
///
/// # Errors
/// [`Error::Manifest`], which says what to write instead.
pub fn parse(text: &str) -> Result<Manifest, Error> {
    let manifest: Manifest = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let message = error.message();
        Error::Manifest(format!("can't be read, line {line}: {message}{}", suggestion(message)))
    })?;
    check(&manifest).map_err(Error::Manifest)?;
    Ok(manifest)
}

/// Whether a manifest makes sense.
///
/// # Errors
/// What does not, and what to write instead; to be read after "the manifest".
pub fn check(manifest: &Manifest) -> Result<(), String> {
    let Manifest { name, version, world, description, runs_as: _, needs, triggers, procedures, queries } = manifest;
    if world != WORLD {
        return Err(format!("is for the world {world:?}, this version has {WORLD}: write world = {WORLD:?}"));
    }
    check_name("name", name)?;
    if version.is_empty() || version.len() > VERSION_BYTES || !version.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "has a version {version:?}: 1 to {VERSION_BYTES} characters without spaces are allowed, such as 0.1.0"
        ));
    }
    if description.len() > DESCRIPTION_BYTES || description.chars().any(char::is_control) {
        return Err(format!("has a description that is no line of at most {DESCRIPTION_BYTES} bytes"));
    }
    at_most("[[needs]]", needs.len(), PATTERNS)?;
    needs.iter().try_for_each(check_need)?;
    at_most("[[trigger]]", triggers.len(), limits::TRIGGERS)?;
    triggers.iter().try_for_each(check_trigger)?;
    if let Some(twice) = twice(triggers.iter().map(Trigger::name)) {
        return Err(format!("has two triggers {twice}: give one of them another name = \"...\""));
    }
    at_most("[[procedure]] and [[query]]", procedures.len() + queries.len(), PROCEDURES)?;
    procedures.iter().try_for_each(|procedure| check_procedure("procedure", procedure))?;
    queries.iter().try_for_each(|query| check_procedure("query", query))?;
    if let Some(parks) = queries.iter().find(|query| query.parks) {
        let name = &parks.name;
        return Err(format!(
            "has a query {name} that parks: a query only reads; make it a [[procedure]], or leave parks out"
        ));
    }
    // A procedure and a query may share a name: they are asked for in different ways.
    for (what, list) in [("procedure", procedures), ("query", queries)] {
        if let Some(twice) = twice(list.iter().map(|one| one.name.as_str())) {
            return Err(format!("names the {what} {twice} twice"));
        }
    }
    if triggers.is_empty() && procedures.is_empty() && queries.is_empty() {
        return Err("names nothing that could run: write a [[procedure]], a [[query]] or a [[trigger]]".to_owned());
    }
    Ok(())
}

fn check_need(need: &Need) -> Result<(), String> {
    if need.paths.is_empty() || need.ops.is_empty() {
        return Err(
            "has [[needs]] with an empty list: write paths = [\"/app/**\"] and ops = [\"read\", \"create\", \"write\", \"delete\"], \
             or as many of them as it needs"
                .to_owned(),
        );
    }
    at_most("paths in one [[needs]]", need.paths.len(), PATTERNS)
}

fn check_trigger(trigger: &Trigger) -> Result<(), String> {
    let Trigger { on, kinds, paths, every_ms, .. } = trigger;
    let name = trigger.name();
    check_name("trigger", name)?;
    let wrong = |why: &str| Err(format!("has a trigger {name} {why}"));
    match on {
        On::Before | On::After if paths.is_empty() => {
            wrong("without paths: write paths = [\"/app/**\"], or [\"/**\"] for all")
        }
        On::Before | On::After if *every_ms > 0 => wrong("with every-ms: that is for on = \"timer\""),
        On::Before | On::After => at_most("paths of one trigger", paths.len(), PATTERNS),
        On::SessionEnd | On::Timer if !kinds.is_empty() || !paths.is_empty() => {
            wrong("with kinds or paths: those are for on = \"before\" and on = \"after\"")
        }
        On::SessionEnd if *every_ms > 0 => wrong("with every-ms: that is for on = \"timer\""),
        On::SessionEnd => Ok(()),
        On::Timer if *every_ms < EVERY_MS => {
            wrong(&format!("with every-ms = {every_ms}: it needs one, and {EVERY_MS} is the least"))
        }
        On::Timer => Ok(()),
    }
}

fn check_procedure(what: &str, procedure: &Procedure) -> Result<(), String> {
    let Procedure { name, params, parks: _ } = procedure;
    check_name(what, name)?;
    at_most("parameters of one procedure", params.len(), PARAMS)?;
    if let Some(twice) = twice(params.iter().map(|param| param.name.as_str())) {
        return Err(format!("has a {what} {name} with two parameters {twice}"));
    }
    if let Some(pair) = params.windows(2).find(|pair| pair[0].optional && !pair[1].optional) {
        let [first, second] = [&pair[0].name, &pair[1].name];
        return Err(format!(
            "has a {what} {name} whose parameter {second} is required and comes after {first}, which is not: put it before"
        ));
    }
    for param in params {
        check_name("parameter", &param.name)?;
        args::check_default(param)
            .map_err(|why| format!("has a {what} {name} with a wrong default: {}: {why}", param.name))?;
    }
    Ok(())
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(allowed) {
        return Err(format!("has a {what} {name:?}: 1 to {NAME_BYTES} of a-z, 0-9, - and _ are allowed"));
    }
    Ok(())
}

fn at_most(what: &str, actual: usize, limit: usize) -> Result<(), String> {
    if actual > limit { Err(format!("has {actual} {what}, {limit} are allowed")) } else { Ok(()) }
}

fn twice<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// What the reader of TOML would have taken in the place of a key that it does not know: its message names them all.
fn suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(written) if message.starts_with("unknown") => near::hint(written, quoted),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"a\"\nversion = \"1\"\nworld = \"conclave:plugin@0.1\"\n";

    fn refused(text: &str) -> String {
        match parse(text) {
            Err(Error::Manifest(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_manifest_is_read_whole() {
        let manifest = parse(&format!(
            "{GOOD}runs-as = \"plugin\"\n\
             [[needs]]\npaths = [\"/q/**\"]\nops = [\"read\", \"delete\"]\n\
             [[trigger]]\non = \"before\"\nkinds = [\"created\", \"data\"]\npaths = [\"/app/**\"]\non-failure = \"open\"\norder = -3\n\
             [[trigger]]\nname = \"often\"\non = \"timer\"\nevery-ms = 100\n\
             [[procedure]]\nname = \"take\"\nparks = true\nparams = [\"queue: path\", \"wait: duration = 10s\"]\n\
             [[query]]\nname = \"look\"\n"
        ))
        .unwrap();
        assert_eq!(manifest.procedure("take").unwrap().params[1].to_string(), "wait: duration = 10s");
        assert_eq!(manifest.triggers.iter().map(Trigger::name).collect::<Vec<_>>(), ["before", "often"]);
        assert!(manifest.query("look").is_some() && manifest.query("take").is_none());
    }

    #[test]
    fn its_errors_say_where_and_what_to_write_instead() {
        let trigger = |text: &str| format!("{GOOD}[[trigger]]\n{text}");
        let procedure = |text: &str| format!("{GOOD}[[procedure]]\nname = \"go\"\n{text}");
        for (text, why) in [
            ("name = 1".to_owned(), "can't be read, line 1"),
            (GOOD.to_owned(), "nothing that could run"),
            (format!("{GOOD}extra = 1"), "line 4: unknown field `extra`"),
            (format!("{GOOD}[[procedures]]\nname = \"x\""), "did you mean procedure?"),
            (procedure("param = []"), "did you mean params?"),
            (trigger("on = \"before\"\nevery_ms = 1"), "did you mean every-ms?"),
            (trigger("on = \"befor\""), "did you mean before?"),
            (GOOD.replace("0.1", "0.2"), "write world = \"conclave:plugin@0.1\""),
            (GOOD.replace("\"a\"", "\"A b\""), "A b"),
            (GOOD.replace("\"a\"", "\"\""), "has a name"),
            (GOOD.replace("\"1\"", "\"\""), "such as 0.1.0"),
            (format!("{GOOD}description = \"a\\nb\""), "has a description"),
            (format!("{GOOD}[[needs]]\npaths = [\"/a\"]\nops = []"), "empty list"),
            (format!("{GOOD}[[needs]]\npaths = []\nops = [\"read\"]"), "empty list"),
            (format!("{GOOD}[[needs]]\npaths = [\"a\"]\nops = [\"read\"]"), "does not begin with"),
            (format!("{GOOD}[[needs]]\npaths = [\"/a\"]\nops = [\"reed\"]"), "did you mean read?"),
            (trigger("on = \"before\""), "a trigger before without paths: write paths"),
            (trigger("on = \"after\"\npaths = [\"/a\"]\nevery-ms = 500"), "that is for on = \"timer\""),
            (trigger("on = \"timer\""), "every-ms = 0: it needs one, and 100 is the least"),
            (trigger("on = \"timer\"\nevery-ms = 99"), "100 is the least"),
            (trigger("on = \"timer\"\nevery-ms = 100\npaths = [\"/a\"]"), "with kinds or paths"),
            (trigger("on = \"session-end\"\nkinds = [\"data\"]"), "with kinds or paths"),
            (trigger("on = \"session-end\"\nevery-ms = 100"), "that is for on = \"timer\""),
            (trigger("on = \"session-end\"\n[[trigger]]\non = \"session-end\""), "two triggers session-end"),
            (procedure("[[procedure]]\nname = \"go\""), "go twice"),
            (format!("{GOOD}{}", "[[query]]\nname = \"go\"\n".repeat(2)), "go twice"),
            (procedure("params = [\"a: text\", \"a: text\"]"), "two parameters a"),
            (procedure("params = [\"a?: text\", \"b: text\"]"), "b is required and comes after a"),
            (procedure("params = [\"a: integer = x\"]"), "wrong default: a: \"x\" is not an integer"),
            (procedure("params = [\"a\"]"), "has no type"),
            (format!("{GOOD}[[query]]\nname = \"q\"\nparks = true"), "a query q that parks"),
            (format!("{GOOD}{}", "[[query]]\nname = \"q\"\n".repeat(257)), "257 [[procedure]] and [[query]], 256"),
            (
                trigger(&"on = \"session-end\"\n[[trigger]]\n".repeat(64)).replace("[[trigger]]\n\n", "")
                    + "on = \"timer\"",
                "65 [[trigger]], 64",
            ),
        ] {
            let error = refused(&text);
            assert!(error.contains(why), "{text}\n{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_component_are_malformed() {
        for bytes in [&b""[..], b"\0asm", b"garbage!", b"\0asm\x0d\0\x01\0\xff\xff"] {
            assert!(matches!(read(bytes), Err(Error::Malformed(_) | Error::Manifest(_))), "{bytes:?}");
        }
    }
}
