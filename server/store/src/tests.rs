//! The tables on a real disk: what a batch, a reader and a damaged byte see of them.

mod agreement;
mod checking;
mod checkpoints;
mod corrupt;
mod installing;
mod opening;
mod page;
mod receiving;
mod restoring;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use conclave_core::apply::{Local, Position, Tables};
use conclave_core::digest::{Chain, Digest, RowHash};
use conclave_core::view::Base;
use conclave_core::{Fault, Table, key, row};
use conclave_protocol::Zxid;

use crate::{Boot, Checkpoint, Checkpoints, DirLock, Error, Opened, Options, Progress, Snapshot, Store, Writer};

const CLUSTER: &str = "6f1c";

fn options(boot: &str) -> Options {
    // Small maps, so that tests that run at once do not run out of addresses.
    Options { map_bytes: 1 << 28, max_readers: 64, boot: Boot::named(boot), ..Options::default() }
}

fn try_open(dir: &Path, cluster: &str, boot: &str) -> Result<Opened, Error> {
    open_with(&DirLock::acquire(dir)?, cluster, &options(boot))
}

fn open_with(lock: &DirLock, cluster: &str, options: &Options) -> Result<Opened, Error> {
    Store::open(lock, cluster, &Checkpoints::open(lock, cluster)?, options)
}

fn open(dir: &Path) -> Opened {
    try_open(dir, CLUSTER, "boot").unwrap()
}

/// Writes rows of `data`, and moves the applied index to `index`.
fn put(writer: &mut Writer, index: u64, rows: &[(&[u8], &[u8])]) {
    let batch = |tables: &mut dyn Tables| {
        for (key, value) in rows {
            tables.write(Table::Data, key, Some(value))?;
        }
        tables.local().applied = Some(Position { term: 1, index });
        Ok(())
    };
    writer.write(batch, |_| Ok(())).unwrap();
}

/// A row to be written, or removed.
type Change<'a> = (Table, &'a [u8], Option<&'a [u8]>);

/// As [`put`], of any table, with the digest kept up: what a checkpoint takes.
fn keep(writer: &mut Writer, index: u64, rows: &[Change<'_>]) {
    let batch = |tables: &mut dyn Tables| {
        let mut digest = Digest::of(tables.local());
        for (table, key, value) in rows {
            let old = tables.write(*table, key, *value)?;
            let new = value.map(|value| RowHash::of(*table, key, value));
            if table.is_digested() {
                old.into_iter().for_each(|old| digest.remove(old));
                new.into_iter().for_each(|new| digest.add(new));
            }
        }
        tables.local().digest = digest.0;
        tables.local().applied = Some(Position { term: 1, index });
        Ok(())
    };
    writer.write(batch, |_| Ok(())).unwrap();
}

/// Everything that a state holds.
fn content(store: &Store) -> (Local, Vec<(Table, Vec<u8>, Bytes)>) {
    let snapshot = store.snapshot().unwrap();
    let rows = |table| snapshot.scan(table, b"", None, usize::MAX).unwrap();
    let all =
        Table::ALL.into_iter().flat_map(|table| rows(table).into_iter().map(move |(key, value)| (table, key, value)));
    let all = all.collect();
    (snapshot.local().unwrap(), all)
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The names of environments.
fn environments(dir: &Path) -> Vec<String> {
    names(dir).into_iter().filter(|name| name.starts_with("env-")).collect()
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A directory with tables in which there is something of every kind that matters, and their checkpoints.
struct Bench {
    opened: Opened,
    checkpoints: Checkpoints,
    dir: tempfile::TempDir,
}

impl Bench {
    /// With `b"k"` → `b"v"` at index 5, and some rows of the history, of the state, and without a value.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Self::open(dir);
        let state = row::State { zxid: Zxid(3), next_id: 9, time_ms: 1_000, ..row::State::default() };
        let state = row::encode(&state);
        let rows: [Change<'_>; 4] = [
            (Table::Data, b"k", Some(b"v")),
            (Table::Change, b"changed", Some(b"what")),
            (Table::Expiry, b"some", Some(b"")),
            (Table::State, key::STATE, Some(&state)),
        ];
        keep(&mut bench.opened.writer, 5, &rows);
        let batch = |tables: &mut dyn Tables| {
            tables.local().membership = Bytes::from_static(b"members");
            tables.local().chain = Chain(77);
            Ok(())
        };
        bench.opened.writer.write(batch, |_| Ok(())).unwrap();
        bench
    }

    fn open(dir: tempfile::TempDir) -> Self {
        Self::open_in(dir, "boot")
    }

    fn open_in(dir: tempfile::TempDir, boot: &str) -> Self {
        let lock = DirLock::acquire(dir.path()).unwrap();
        let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
        let opened = Store::open(&lock, CLUSTER, &checkpoints, &options(boot)).unwrap();
        Self { opened, checkpoints, dir }
    }

    fn make(&self) -> Checkpoint {
        self.checkpoints.make(&self.opened.store, &mut go_on).unwrap()
    }

    /// The process ends without closing anything.
    fn crash(self) -> tempfile::TempDir {
        self.dir
    }

    fn close(self) -> tempfile::TempDir {
        self.opened.writer.close().unwrap();
        self.dir
    }

    fn shelf(&self) -> Vec<String> {
        names(&self.dir.path().join("checkpoints"))
    }
}

fn data(store: &Store, key: &[u8]) -> Option<Bytes> {
    store.snapshot().unwrap().row(Table::Data, key).unwrap()
}

fn applied(local: &Local) -> Option<u64> {
    local.applied.map(|at| at.index)
}

/// Changes one byte wherever these bytes stand in the tables' file.
fn flip(dir: &Path, needle: &[u8], at: usize) {
    let path = dir.join("env-1").join("data.mdb");
    let mut bytes = fs::read(&path).unwrap();
    let found: Vec<_> = bytes.windows(needle.len()).enumerate().filter(|(_, w)| *w == needle).map(|(i, _)| i).collect();
    assert!(!found.is_empty(), "the bytes are in the file");
    found.iter().for_each(|start| bytes[start + at] ^= 1);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn snapshots_move_between_threads_and_stores_are_shared() {
    fn send<T: Send + 'static>() {}
    fn share<T: Send + Sync + Clone + 'static>() {}
    send::<Snapshot>();
    send::<Writer>();
    share::<Store>();
}

#[test]
fn new_tables_start_at_the_chain_of_their_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, writer, discarded, .. } = open(dir.path());
    assert_eq!(discarded, None);
    assert_eq!(*writer.local(), Local { chain: Chain::start(CLUSTER), ..Local::default() });
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.local().unwrap(), *writer.local());
    assert_eq!(snapshot.zxid().unwrap(), Zxid(0));
}

#[test]
fn a_failed_batch_leaves_neither_rows_nor_local() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    put(&mut writer, 1, &[(b"kept", b"1")]);
    let before = writer.local().clone();
    let fault = Fault::Invariant("stop".to_owned());

    let batch = |tables: &mut dyn Tables| {
        tables.write(Table::Data, b"kept", None)?;
        tables.write(Table::Data, b"lost", Some(b"2"))?;
        tables.local().applied = Some(Position { term: 1, index: 2 });
        Ok(())
    };
    let in_batch = writer.write::<()>(|tables| batch(tables).and(Err(fault.clone())), |_| Ok(()));
    assert_eq!(in_batch, Err(fault.clone()));
    // Rule 10: where the log would have written up to the index, and failed.
    let in_hook = writer.write(batch, |local| {
        assert_eq!(applied(local), Some(2), "the hook sees what is about to be committed");
        Err(fault.clone())
    });
    assert_eq!(in_hook, Err(fault));

    assert_eq!(*writer.local(), before);
    assert_eq!(store.snapshot().unwrap().local().unwrap(), before);
    assert_eq!(data(&store, b"kept").unwrap(), "1");
    assert_eq!(data(&store, b"lost"), None);
    put(&mut writer, 2, &[(b"next", b"3")]);
    assert_eq!(data(&store, b"next").unwrap(), "3", "the writer goes on");
}

#[test]
fn nothing_is_visible_before_the_hook_returned() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    let batch = |tables: &mut dyn Tables| tables.write(Table::Data, b"k", Some(b"v"));
    writer
        .write(batch, |_| {
            assert_eq!(data(&store, b"k"), None);
            Ok(())
        })
        .unwrap();
    assert_eq!(data(&store, b"k").unwrap(), "v");
}

#[test]
fn a_write_tells_the_hash_of_the_row_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path()).writer;
    let old = writer
        .write(
            |tables| {
                Ok([
                    tables.write(Table::Data, b"k", None)?,
                    tables.write(Table::Data, b"k", Some(b"1"))?,
                    tables.write(Table::Data, b"k", Some(b"22"))?,
                    tables.write(Table::Data, b"k", None)?,
                    tables.write(Table::Data, b"k", None)?,
                ])
            },
            |_| Ok(()),
        )
        .unwrap();
    let hash = |value| Some(RowHash::of(Table::Data, b"k", value));
    assert_eq!(old, [None, None, hash(b"1"), hash(b"22"), None]);
}

#[test]
fn a_key_that_lmdb_does_not_take_is_a_fault_to_write_and_absent_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    put(&mut writer, 1, &[(&[7; 511], b"longest")]);
    for key in [&[][..], &[7; 512]] {
        let written = writer.write(|tables| tables.write(Table::Data, key, Some(b"v")), |_| Ok(()));
        assert!(matches!(written, Err(Fault::Invariant(_))));
        assert_eq!(data(&store, key), None);
    }
    let snapshot = store.snapshot().unwrap();
    let scan = |prefix: &[u8], after| snapshot.scan(Table::Data, prefix, after, 9).unwrap().len();
    assert_eq!(scan(&[7; 512], None), 0);
    assert_eq!(scan(b"", Some(&[7; 512])), 0);
    assert_eq!(scan(b"", Some(&[6; 512])), 1);
}

#[test]
fn several_rows_are_those_that_one_by_one_are_read_wherever_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    // Neighbours, a few apart, far apart, and of different sizes.
    let there: Vec<u64> = (5..40).chain((40..80).step_by(3)).chain((100..2_000).step_by(61)).collect();
    for (n, id) in there.iter().enumerate() {
        put(&mut writer, n as u64 + 1, &[(&id.to_be_bytes(), &vec![n as u8; n % 7])]);
    }
    let snapshot = store.snapshot().unwrap();
    let all = |ids: &[u64]| {
        let keys: Vec<[u8; 8]> = ids.iter().map(|id| id.to_be_bytes()).collect();
        let one_by_one: Vec<Option<Bytes>> = keys.iter().map(|key| snapshot.row(Table::Data, key).unwrap()).collect();
        assert_eq!(snapshot.several(Table::Data, &keys).unwrap(), one_by_one, "{ids:?}");
        one_by_one.iter().flatten().count()
    };
    assert_eq!(all(&there), there.len());
    assert_eq!(all(&(0..2_100).collect::<Vec<_>>()), there.len());
    assert_eq!(all(&[5, 5, 39, 1_991, 1_991, 2_000, 2_001]), 5, "one twice is found twice");
    assert_eq!(all(&[0, 1, 2]) + all(&[3_000, 4_000]) + all(&[]), 0);
    let found: usize = (1..50).map(|step| all(&(0..2_100).step_by(step).collect::<Vec<_>>())).sum();
    assert!(found > there.len(), "{found} rows in all");
    assert_eq!(snapshot.several(Table::Znode, &[[0; 8]]).unwrap(), [None], "an empty table");
}

#[test]
fn large_values_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    let large: Vec<u8> = (0..1_048_576_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    put(&mut writer, 1, &[(b"large", &large), (b"empty", b"")]);
    assert_eq!(data(&store, b"large").unwrap(), large);
    assert_eq!(data(&store, b"empty").unwrap(), "");
    assert!(store.disk_bytes().unwrap() > 1_048_576);
}

#[test]
fn a_full_map_is_a_fault_and_undoes_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let small = Options { map_bytes: 1 << 20, ..options("boot") };
    let Opened { store, mut writer, .. } = open_with(&lock, CLUSTER, &small).unwrap();
    let fill = |tables: &mut dyn Tables| {
        for n in 0..1_000_u64 {
            tables.write(Table::Data, &n.to_be_bytes(), Some(&[0; 4_000]))?;
        }
        Ok(())
    };
    assert!(matches!(writer.write(fill, |_| Ok(())), Err(Fault::Storage(_))));
    assert_eq!(data(&store, &0_u64.to_be_bytes()), None);
}

#[test]
fn a_flipped_bit_is_found_by_the_read_of_its_row_and_by_the_scrub() {
    let value = b"a value that stands nowhere else in the file";
    let hash = RowHash::of(Table::Data, b"a victim", value).0.to_be_bytes();
    // In the value, and in the stored hash.
    for (needle, at) in [(&value[..], 20), (&hash[..], 3)] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path());
        put(&mut opened.writer, 1, &[(b"a victim", value), (b"witness", b"fine")]);
        opened.writer.close().unwrap();
        drop(opened.store);
        flip(dir.path(), needle, at);

        let Opened { store, discarded, .. } = open(dir.path());
        assert_eq!(discarded, None);
        assert_eq!(data(&store, b"witness").unwrap(), "fine");
        let snapshot = store.snapshot().unwrap();
        let damaged = Fault::Damaged { table: Table::Data, key: "612076696374696d".to_owned() };
        assert_eq!(snapshot.row(Table::Data, b"a victim").unwrap_err(), damaged);
        assert_eq!(snapshot.several(Table::Data, &[*b"a victim", *b"witness1"]).unwrap_err(), damaged);
        assert_eq!(snapshot.scan(Table::Data, b"", None, 10).unwrap_err(), damaged);
        assert_eq!(snapshot.scrub().unwrap_err(), damaged);
    }
}

#[test]
fn a_flipped_bit_in_a_key_is_found_by_the_scrub() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"a key that stands nowhere else", b"v")]);
    opened.writer.close().unwrap();
    drop(opened.store);
    flip(dir.path(), b"a key that stands nowhere else", 29);
    let store = open(dir.path()).store;
    assert!(matches!(store.snapshot().unwrap().scrub(), Err(Fault::Damaged { table: Table::Data, .. })));
}

#[test]
fn a_flipped_bit_beside_the_tables_keeps_them_shut() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let membership = Bytes::from_static(b"a membership that stands nowhere else");
    let written = membership.clone();
    let batch = |tables: &mut dyn Tables| {
        tables.local().membership = written;
        Ok(())
    };
    opened.writer.write(batch, |_| Ok(())).unwrap();
    opened.writer.close().unwrap();
    drop(opened.store);
    flip(dir.path(), &membership, 5);
    assert!(matches!(try_open(dir.path(), CLUSTER, "boot"), Err(Error::Fault(Fault::Corrupt(_)))));
}

#[test]
fn a_snapshot_stays_where_it_is_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    let mut stamp = |zxid: u64| {
        let state = row::encode(&row::State { zxid: Zxid(zxid), ..row::State::default() });
        let batch = |tables: &mut dyn Tables| tables.write(Table::State, key::STATE, Some(&state));
        writer.write(batch, |_| Ok(())).unwrap();
    };
    stamp(5);
    let old = store.snapshot().unwrap();
    (6..50).for_each(&mut stamp);
    let new = store.snapshot().unwrap();
    assert_eq!((old.zxid().unwrap(), new.zxid().unwrap()), (Zxid(5), Zxid(49)));

    let readers = store.readers();
    assert_eq!((readers.open, readers.commits_behind), (2, 44));
    drop(old);
    assert_eq!((store.readers().open, store.readers().commits_behind), (1, 0));
    // Moved to another thread, where it reads the same.
    assert_eq!(std::thread::spawn(move || new.zxid()).join().unwrap().unwrap(), Zxid(49));
    assert_eq!(store.readers().open, 0);
}

#[test]
fn the_scrub_adds_up_to_the_digest_without_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    let mut digest = Digest::default();
    let batch = |tables: &mut dyn Tables| {
        for table in Table::ALL {
            tables.write(table, b"k", Some(b"v"))?;
        }
        Ok(())
    };
    writer.write(batch, |_| Ok(())).unwrap();
    Table::ALL.into_iter().filter(|t| *t != Table::Change).for_each(|t| digest.add(RowHash::of(t, b"k", b"v")));
    assert_eq!(store.snapshot().unwrap().scrub().unwrap(), digest);
}

#[test]
fn a_write_that_fails_as_on_a_full_disk_is_tried_again_a_few_times_and_is_a_fault_then() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    let environment = store.0.current();
    let failed = || environment.fault(heed::Error::Io(std::io::Error::from_raw_os_error(5)));
    for index in 1..=2 {
        for _ in 0..3 {
            assert!(matches!(failed(), Fault::Full(_)), "there is room, but was there a moment ago?");
        }
        assert!(matches!(failed(), Fault::Storage(_)));
        // What goes well in between is no failure in a row.
        put(&mut writer, index, &[(b"a", b"1")]);
    }
    let other = heed::Error::Io(std::io::Error::from_raw_os_error(13));
    assert!(matches!(environment.fault(other), Fault::Storage(_)));
}
