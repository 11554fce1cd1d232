//! Tables in a directory of their own, for tests that play a member on them.

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::{Applied, Local, Position, Tables, apply};
use conclave_core::view::Base;
use conclave_store::{Boot, Checkpoints, DirLock, Opened, Options, Store};

use super::support::back::Back;

/// Whose tables they are.
pub(crate) const CLUSTER: &str = "6f1c";

/// Tables in a directory of their own.
pub(crate) struct Disk {
    opened: Opened,
    _dir: tempfile::TempDir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Small maps, so that tests that run at once do not run out of addresses.
        let options = Options { map_bytes: 1 << 28, max_readers: 64, boot: Boot::named("boot"), ..Options::default() };
        let lock = DirLock::acquire(dir.path()).unwrap();
        let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
        Self { opened: Store::open(&lock, CLUSTER, &checkpoints, &options).unwrap(), _dir: dir }
    }
}

impl Back for Disk {
    fn snapshot(&self) -> Box<dyn Base> {
        Box::new(self.opened.store.snapshot().unwrap())
    }

    fn kept(&self) -> Local {
        self.opened.writer.local().clone()
    }

    fn apply(&mut self, at: Position, payload: &Bytes) -> Result<Applied, Fault> {
        Ok(self.opened.writer.write(|tables: &mut dyn Tables| apply(tables, at, payload), |_| Ok(())).unwrap())
    }
}
