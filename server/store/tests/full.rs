//! A disk without room, as a limit on the size of files shows it without a special file system: what fails is undone,
//! told apart from other failures, and works when there is room again.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use conclave_core::apply::{Position, Tables};
use conclave_core::digest::{Digest, RowHash};
use conclave_core::view::Base;
use conclave_core::{Fault, Table};
use conclave_store::{Boot, Checkpoints, DirLock, Opened, Options, Progress, Store, Writer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in the process that is limited.
const CHILD: &str = "CONCLAVE_TEST_LIMITED";
/// Bytes of one row: a page, about.
const ROW: usize = 3_000;

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The limit holds for a whole process, and ends it by a signal unless that is ignored, which a shell can do without
/// unsafe code: the test runs itself again.
fn in_a_process_of_its_own(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let run = r#"trap "" XFSZ; exec "$0" --exact "$1" --nocapture"#;
    let this = std::env::current_exe().unwrap();
    let child = Command::new("sh").args(["-c", run]).arg(this).arg(test).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let erred = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}\n{erred}");
    false
}

/// While this is held, no file of this process grows beyond so many bytes.
struct Limited(Rlimit);

impl Limited {
    fn to(bytes: u64) -> Self {
        let old = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: old.maximum }).unwrap();
        Self(old)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        setrlimit(Resource::Fsize, self.0).unwrap();
    }
}

fn open(dir: &Path) -> (Opened, Checkpoints) {
    let lock = DirLock::acquire(dir).unwrap();
    let checkpoints = Checkpoints::open(&lock, "test").unwrap();
    let options = Options { map_bytes: 1 << 28, boot: Boot::named("boot"), ..Options::default() };
    (Store::open(&lock, "test", &checkpoints, &options).unwrap(), checkpoints)
}

/// Writes rows of noise, which does not pack.
fn grow(writer: &mut Writer, index: u64, rows: u64) -> Result<(), Fault> {
    let batch = |tables: &mut dyn Tables| {
        let mut digest = Digest::of(tables.local());
        for row in 0..rows {
            let key = (index << 32 | row).to_be_bytes();
            let mut seed = index << 32 | row;
            let value: Vec<u8> = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                seed.to_be_bytes()[0]
            })
            .take(ROW)
            .collect();
            assert_eq!(tables.write(Table::Data, &key, Some(&value))?, None, "nothing of an earlier try is there");
            digest.add(RowHash::of(Table::Data, &key, &value));
        }
        tables.local().digest = digest.0;
        tables.local().applied = Some(Position { term: 1, index });
        Ok(())
    };
    writer.write(batch, |_| Ok(()))
}

fn applied(store: &Store) -> u64 {
    store.snapshot().unwrap().local().unwrap().applied.unwrap().index
}

#[test]
fn writes_fail_whole_and_go_on_when_there_is_room() {
    if !in_a_process_of_its_own("writes_fail_whole_and_go_on_when_there_is_room") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (Opened { store, mut writer, .. }, checkpoints) = open(dir.path());
    grow(&mut writer, 1, 200).unwrap();
    let before = writer.local().clone();
    let scrubbed = store.snapshot().unwrap().scrub().unwrap();
    for round in 0..20 {
        let _limited = Limited::to(store.disk_bytes().unwrap());
        let fault = grow(&mut writer, 2, 300 + round).unwrap_err();
        assert!(matches!(fault, Fault::Full(_)), "{fault}");
        assert_eq!(*writer.local(), before);
        let snapshot = store.snapshot().unwrap();
        assert_eq!((snapshot.local().unwrap(), snapshot.scrub().unwrap()), (before.clone(), scrubbed));
        store.sync().unwrap();
    }
    grow(&mut writer, 2, 300).unwrap();
    assert_eq!(applied(&store), 2);
    let made = checkpoints.make(&store, &mut go_on).unwrap();
    assert_eq!(made.rows(), 500, "every row has its hash, and they come to the digest");
    writer.close().unwrap();
    drop((store, checkpoints));
    let (opened, _) = open(dir.path());
    assert_eq!((opened.discarded, applied(&opened.store)), (None, 2));
}

#[test]
fn what_deletes_freed_is_used_by_the_very_next_write() {
    if !in_a_process_of_its_own("what_deletes_freed_is_used_by_the_very_next_write") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (Opened { store, mut writer, .. }, _checkpoints) = open(dir.path());
    grow(&mut writer, 1, 400).unwrap();
    // First a few, which leaves some pages that can be used at once, as there always are in tables that live.
    for rows in [0..20_u64, 20..400] {
        let clear = |tables: &mut dyn Tables| {
            for row in rows {
                assert!(tables.write(Table::Data, &(1 << 32 | row).to_be_bytes(), None)?.is_some());
            }
            Ok(())
        };
        writer.write(clear, |_| Ok(())).unwrap();
    }
    let _limited = Limited::to(store.disk_bytes().unwrap());
    // The first try may find LMDB not ready to use them; only such writes come, and one of them gets through.
    let tries = (0..3).find(|_| grow(&mut writer, 2, 300).is_ok());
    assert!(tries.is_some());
    assert_eq!(applied(&store), 2);
}

#[test]
fn checkpoints_are_made_received_and_installed_when_there_is_room() {
    if !in_a_process_of_its_own("checkpoints_are_made_received_and_installed_when_there_is_room") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (Opened { store, mut writer, .. }, checkpoints) = open(dir.path());
    grow(&mut writer, 1, 200).unwrap();
    let old = checkpoints.make(&store, &mut go_on).unwrap();
    grow(&mut writer, 2, 200).unwrap();
    {
        let _limited = Limited::to(old.bytes() + 100_000);
        let error = checkpoints.make(&store, &mut go_on).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(checkpoints.newest().unwrap().id(), old.id());
        assert_eq!(checkpoints.bytes(), old.bytes(), "nothing is left over");
    }
    let made = checkpoints.make(&store, &mut go_on).unwrap();

    let other = tempfile::tempdir().unwrap();
    let (mut mine, shelf) = open(other.path());
    grow(&mut mine.writer, 1, 1).unwrap();
    let sent = fs::read(made.path()).unwrap();
    let mut incoming = shelf.receive(&made.offer()).unwrap();
    {
        let _limited = Limited::to(made.bytes() / 2);
        let mut pieces = sent.chunks(50_000);
        let error = pieces.find_map(|piece| incoming.write(piece).err()).unwrap();
        assert!(error.is_full(), "{error}");
        assert!(incoming.offset() > 0 && incoming.offset() <= made.bytes() / 2);
        assert_eq!(shelf.bytes(), incoming.offset(), "a piece is there whole or not at all");
    }
    incoming.write(&sent[usize::try_from(incoming.offset()).unwrap()..]).unwrap();
    let received = incoming.finish(&mut go_on).unwrap();
    {
        let _limited = Limited::to(made.bytes() / 2);
        let error = mine.writer.install(&received, &mut go_on).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!((mine.store.environment(), applied(&mine.store)), (1, 1));
        assert!(!other.path().join("env-2").exists());
    }
    grow(&mut mine.writer, 2, 1).unwrap();
    mine.writer.install(&received, &mut go_on).unwrap();
    let rows = |store: &Store| store.snapshot().unwrap().scan(Table::Data, b"", None, usize::MAX).unwrap();
    assert_eq!((mine.store.environment(), rows(&mine.store)), (2, rows(&store)));
}
