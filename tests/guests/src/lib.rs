//! Plugins that misbehave, one a file beside this crate's manifest, and how components are made of them.
//!
//! Each file has a core function `call`, which is put into `frame.wat` and exported as one of the world's interfaces
//! (`exports/`). Those that can't be written down as a text (a component of 100 MiB, one that is cut) are made by the tests.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use wasm_encoder::{ComponentSection as _, CustomSection};

const FRAME: &str = include_str!("../frame.wat");
const EXPORTS: [(&str, &str); 6] = [
    ("procedures", include_str!("../exports/procedures.wat")),
    ("queries", include_str!("../exports/queries.wat")),
    ("before", include_str!("../exports/before.wat")),
    ("after", include_str!("../exports/after.wat")),
    ("session-end", include_str!("../exports/session-end.wat")),
    ("timer", include_str!("../exports/timer.wat")),
];
/// The custom section that a manifest lies in.
const SECTION: &str = "conclave:manifest";

/// What every manifest here begins with.
pub const HEAD: &str = "name = \"guest\"\nversion = \"1\"\nworld = \"conclave:plugin@0.1\"\n";
/// Of a guest with one procedure, `run`.
pub const PROCEDURE: &str = "[[procedure]]\nname = \"run\"\n";

/// How it ends with a guest that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Well.
    Well,
    /// With its own refusal.
    Refused,
    /// With a failure that begins so.
    Failed(&'static str),
}

/// Every guest that is a procedure: its name, its text, and how it ends.
pub const GUESTS: [(&str, &str, Ends); 16] = [
    ("well", include_str!("../well.wat"), Ends::Well),
    ("log", include_str!("../log.wat"), Ends::Well),
    ("loop", include_str!("../loop.wat"), Ends::Failed("fuel: more than the 10000000 units")),
    ("memory", include_str!("../memory.wat"), Ends::Failed("memory: more than the 16777216 bytes")),
    ("trap", include_str!("../trap.wat"), Ends::Failed("trap: it gave up")),
    ("stack", include_str!("../stack.wat"), Ends::Failed("trap: its stack is exhausted")),
    ("host-calls", include_str!("../host-calls.wat"), Ends::Failed("host-calls: more than the 10000 calls")),
    ("random", include_str!("../random.wat"), Ends::Failed("read-bytes")),
    ("rows", include_str!("../rows.wat"), Ends::Failed("rows: more than the 10000 rows")),
    ("list", include_str!("../list.wat"), Ends::Failed("trap: it broke the world's rules")),
    ("long-list", include_str!("../long-list.wat"), Ends::Failed("call-bytes: more than 1638400 bytes")),
    ("string", include_str!("../string.wat"), Ends::Failed("trap: it broke the world's rules")),
    ("wild-pointer", include_str!("../wild-pointer.wat"), Ends::Failed("trap: it broke the world's rules")),
    ("park", include_str!("../park.wat"), Ends::Failed("it parks, and its manifest does not say")),
    ("refusal", include_str!("../refusal.wat"), Ends::Refused),
    // It behaves, and does what its arguments say; without them, nothing.
    ("probe", include_str!("../probe.wat"), Ends::Well),
];

/// An `after` trigger that is its own reason.
pub const CASCADE: &str = include_str!("../cascade.wat");

/// The text of a guest.
///
/// # Panics
/// If there is none of that name.
#[must_use]
pub fn text(name: &str) -> &'static str {
    let guest = GUESTS.iter().find(|(guest, ..)| *guest == name);
    guest.unwrap_or_else(|| panic!("there is no guest {name}")).1
}

/// A component of this text, with a manifest.
///
/// # Panics
/// If the text can't be read.
#[must_use]
pub fn component(wat: &str, manifest: &str) -> Vec<u8> {
    let mut bytes = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}"));
    CustomSection { name: SECTION.into(), data: manifest.as_bytes().into() }.append_to_component(&mut bytes);
    bytes
}

/// A guest with this core function `call`, which exports it as these interfaces; the manifest goes on from [`HEAD`].
///
/// # Panics
/// If there is no such interface, or the text can't be read.
#[must_use]
pub fn guest(call: &str, interfaces: &[&str], manifest: &str) -> Vec<u8> {
    let export = |name: &&str| EXPORTS.iter().find(|(known, _)| known == name).map(|(_, text)| *text);
    let exports: Option<Vec<&str>> = interfaces.iter().map(export).collect();
    let exports = exports.unwrap_or_else(|| panic!("one of {interfaces:?} is no interface"));
    let text = FRAME.replace("{{call}}", call).replace("{{export}}", &exports.join("\n"));
    component(&text, &format!("{HEAD}{manifest}"))
}

/// A guest with one procedure.
#[must_use]
pub fn procedure(call: &str) -> Vec<u8> {
    guest(call, &["procedures"], PROCEDURE)
}

#[cfg(test)]
mod tests {
    use super::GUESTS;

    #[test]
    fn no_guest_is_forgotten() {
        for file in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let Some(guest) = name.strip_suffix(".wat") else { continue };
            let is_known = GUESTS.iter().any(|(known, ..)| *known == guest);
            assert!(is_known || guest == "frame" || guest == "cascade", "{name} is in no test");
        }
    }
}
