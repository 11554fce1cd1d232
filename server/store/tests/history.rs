//! The change history on a disk: what is known of it outlasts restarts, and goes with checkpoints and backups.
#![allow(clippy::unwrap_used)]

#[path = "../../core/tests/history/naive.rs"]
mod naive;

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::apply::Tables;
use conclave_core::row::{self, Kept};
use conclave_core::view::Base;
use conclave_core::{Fault, Table, key};
use conclave_protocol::Zxid;
use conclave_store::{Boot, Checkpoint, Checkpoints, DirLock, Opened, Options, Progress, Store, check, restore};
use proptest::prelude::*;

use naive::{Naive, Room, goes_on_from_before, some_acts, some_bounds};

/// Tables in a directory of their own. Dropped in this order.
struct Disk {
    opened: Option<Opened>,
    checkpoints: Checkpoints,
    lock: DirLock,
    cluster: String,
    dir: tempfile::TempDir,
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn options() -> Options {
    // Small maps, so that tests that run at once do not run out of addresses. The real boot: the check asks for it.
    let settled_after = Duration::ZERO;
    Options { map_bytes: 1 << 28, max_readers: 64, boot: Boot::current(), settled_after, ..Options::default() }
}

impl Disk {
    fn new(cluster: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::open(DirLock::acquire(dir.path()).unwrap(), cluster.to_owned(), dir)
    }

    fn open(lock: DirLock, cluster: String, dir: tempfile::TempDir) -> Self {
        let checkpoints = Checkpoints::open(&lock, &cluster).unwrap();
        let opened = Some(Store::open(&lock, &cluster, &checkpoints, &options()).unwrap());
        Self { opened, checkpoints, lock, cluster, dir }
    }

    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().unwrap()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.checkpoints.make(&self.opened.as_ref().unwrap().store, &mut go_on).unwrap()
    }

    /// Nothing is found by the check.
    fn finish(mut self) {
        let opened = self.opened.take().unwrap();
        opened.writer.close().unwrap();
        drop(opened.store);
        let Self { lock, checkpoints, dir, .. } = self;
        drop((checkpoints, lock));
        let report = check(dir.path(), &mut go_on).unwrap();
        // There are no znodes at all, and none are said to be.
        assert!(report.findings.iter().all(|one| one.what == "there is no checkpoint"), "{:?}", report.findings);
    }
}

impl Room for Disk {
    fn commit(&mut self, batch: &mut dyn FnMut(&mut dyn Tables) -> Result<(), Fault>) {
        self.opened().writer.write(|tables| batch(tables), |_| Ok(())).unwrap();
    }

    fn snapshot(&self) -> Box<dyn Base> {
        Box::new(self.opened.as_ref().unwrap().store.snapshot().unwrap())
    }

    /// A crash of the process, not of the machine, and not so soon that the tables are the suspects.
    fn restart(&mut self) {
        self.opened().store.sync().unwrap();
        self.opened = None;
        let opened = Store::open(&self.lock, &self.cluster, &self.checkpoints, &options()).unwrap();
        assert_eq!((&opened.discarded, opened.rebuilt_from), (&None, None));
        self.opened = Some(opened);
    }

    /// A checkpoint is installed where there is something else.
    fn hand_over(&mut self) {
        let made = self.checkpoint();
        let mut other = Self::new(&self.cluster);
        other.commit(&mut |tables| {
            let kept = row::encode(&Kept { lost: Zxid(9), bytes: 9 });
            tables.write(Table::Change, &key::KEPT, Some(&kept)).map(|_| ())
        });
        other.opened().writer.install(&made, &mut go_on).unwrap();
        *self = other;
    }

    fn restore(&mut self) {
        let made = self.checkpoint();
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let cluster = format!("{}1", self.cluster);
        let at = made.local().applied.unwrap();
        _ = restore(&lock, made.path(), &cluster, at, Bytes::new(), &mut go_on).unwrap().finish().unwrap();
        *self = Self::open(lock, cluster, dir);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_a_disk_the_history_is_exact(bounds in some_bounds(), acts in some_acts()) {
        let mut naive = Naive::new(Disk::new("6f1c"), bounds);
        acts.iter().for_each(|act| naive.act(act));
        naive.room.finish();
    }
}

#[test]
fn a_history_of_a_disk_without_a_row_of_what_it_keeps_is_counted_at_the_first_entry() {
    goes_on_from_before(Disk::new("6f1c"));
}
