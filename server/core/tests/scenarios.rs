//! The golden scenarios, played on a bare tree in memory; everything that can be asked and refused is in them.
//!
//! Those in `scenarios/` hold on a whole cluster too: each has a znode of its own at the top, names no zxid and no time,
//! and leaves the root as it was. Those in `scenarios/core/` need what only a bare tree lets one do: set the time, the
//! limits, a full disk.
#![allow(clippy::unwrap_used)]

#[path = "support/stage.rs"]
mod stage;
mod support;

use std::collections::BTreeSet;
use std::path::Path;

use conclave_core::memory::MemTables;

use stage::{Stage, files};

#[test]
fn scenarios_are_answered_as_they_say_and_everything_is_in_them() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut seen = BTreeSet::new();
    for file in files(&dir) {
        seen.extend(Stage::play(MemTables::new("test"), &file));
    }
    let all = [
        "op: create set delete multi update prune acl call end close",
        "step: check create set delete update acl",
        "check: exists absent version owner children data created",
        "edit: add min max append swap",
        "query: get exists children many count acl owned sessions status",
        "refused: no-znode znode-exists bad-version not-empty other-kind check-failed bad-number locks-out \
         bad-acl-version ephemeral-parent no-session session-over fenced not-allowed limit disk-full bad-path \
         bad-request no-plugin",
    ];
    let all = all.iter().flat_map(|line| {
        let (kind, words) = line.split_once(": ").unwrap();
        words.split_whitespace().map(move |word| format!("{kind} {word}"))
    });
    let missing: Vec<String> = all.filter(|word| !seen.contains(word)).collect();
    assert!(missing.is_empty(), "no scenario has {missing:?}");
}
