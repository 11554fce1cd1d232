//! The core's golden scenarios, played on a tree on a real disk.
#![allow(clippy::unwrap_used, missing_docs)]

mod disk;
#[path = "../../core/tests/support/stage.rs"]
mod stage;
#[path = "../../core/tests/support/mod.rs"]
mod support;

use std::path::Path;

use disk::Disk;
use stage::{Stage, files};

#[test]
fn scenarios_are_answered_on_a_disk_as_they_say() {
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/scenarios"));
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        assert!(!Stage::play(Disk::new(), &file).is_empty(), "{}", file.display());
    }
}
