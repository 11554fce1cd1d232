//! The tables on a real disk: what a batch, a crash, a damaged byte and another owner do to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::apply::{Local, Position, Tables};
use conclave_core::digest::{Chain, Digest, RowHash};
use conclave_core::view::Base;
use conclave_core::{Fault, Table, key, row};
use conclave_protocol::Zxid;
use proptest::prelude::*;

use crate::{Boot, DirLock, Discarded, Error, Opened, Options, Snapshot, Store, Writer};

const CLUSTER: &str = "6f1c";

fn options(boot: &str) -> Options {
    // Small maps, so that tests that run at once do not run out of addresses.
    Options { map_bytes: 1 << 28, max_readers: 64, boot: Boot::named(boot), ..Options::default() }
}

fn try_open(dir: &Path, cluster: &str, boot: &str) -> Result<Opened, Error> {
    Store::open(&DirLock::acquire(dir)?, cluster, &options(boot))
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
    let Opened { store, writer, discarded } = open(dir.path());
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
    let Opened { store, mut writer, .. } = Store::open(&lock, CLUSTER, &small).unwrap();
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
    let hash = RowHash::of(Table::Data, b"victim", value).0.to_be_bytes();
    // In the value, and in the stored hash.
    for (needle, at) in [(&value[..], 20), (&hash[..], 3)] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path());
        put(&mut opened.writer, 1, &[(b"victim", value), (b"witness", b"fine")]);
        opened.writer.close().unwrap();
        drop(opened.store);
        flip(dir.path(), needle, at);

        let Opened { store, discarded, .. } = open(dir.path());
        assert_eq!(discarded, None);
        assert_eq!(data(&store, b"witness").unwrap(), "fine");
        let snapshot = store.snapshot().unwrap();
        let damaged = Fault::Damaged { table: Table::Data, key: "76696374696d".to_owned() };
        assert_eq!(snapshot.row(Table::Data, b"victim").unwrap_err(), damaged);
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
    assert!(matches!(try_open(dir.path(), CLUSTER, "boot"), Err(Error::Fault(Fault::Storage(_)))));
}

#[test]
fn a_crash_of_the_process_keeps_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    put(&mut writer, 7, &[(b"k", b"v")]);
    let before = writer.local().clone();
    drop((writer, store));
    let Opened { store, writer, discarded } = open(dir.path());
    assert_eq!(discarded, None);
    assert_eq!(*writer.local(), before);
    assert_eq!(data(&store, b"k").unwrap(), "v");
}

#[test]
fn a_crash_of_the_machine_discards_and_a_clean_end_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = try_open(dir.path(), CLUSTER, "monday").unwrap();
    put(&mut first.writer, 7, &[(b"k", b"v")]);
    first.writer.close().unwrap();
    drop(first.store);

    let mut second = try_open(dir.path(), CLUSTER, "tuesday").unwrap();
    assert_eq!(second.discarded, None, "it was synced and closed");
    assert_eq!(applied(second.writer.local()), Some(7));
    put(&mut second.writer, 8, &[(b"k", b"w")]);
    second.store.sync().unwrap();
    drop((second.writer, second.store));

    let third = try_open(dir.path(), CLUSTER, "wednesday").unwrap();
    assert_eq!(third.discarded, Some(Discarded::OtherBoot), "synced once is not closed");
    assert_eq!(*third.writer.local(), Local { chain: Chain::start(CLUSTER), ..Local::default() });
    assert_eq!(data(&third.store, b"k"), None);
}

#[test]
fn a_missing_or_damaged_marker_discards() {
    for damage in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "clean").unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path());
        put(&mut opened.writer, 1, &[(b"k", b"v")]);
        opened.writer.close().unwrap();
        drop(opened.store);
        damage(&dir.path().join("marker"));
        let opened = open(dir.path());
        assert_eq!(opened.discarded, Some(Discarded::Unmarked));
        assert_eq!(data(&opened.store, b"k"), None);
    }
}

#[test]
fn a_copy_of_open_tables_is_discarded() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    drop((opened.writer, opened.store));
    let path = dir.path().join("env-1").join("data.mdb");
    fs::copy(&path, path.with_extension("copy")).unwrap();
    fs::rename(path.with_extension("copy"), &path).unwrap();
    assert_eq!(open(dir.path()).discarded, Some(Discarded::OtherPlace));
}

#[test]
fn tables_that_are_gone_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.writer.close().unwrap();
    drop(opened.store);
    fs::remove_dir_all(dir.path().join("env-1")).unwrap();
    assert_eq!(open(dir.path()).discarded, Some(Discarded::Missing));
}

#[test]
fn two_crashes_in_a_row_soon_after_opening_discard() {
    let dir = tempfile::tempdir().unwrap();
    let reopened = || open(dir.path()).discarded;
    let ends = [reopened(), reopened(), reopened(), reopened()];
    assert_eq!(ends, [None, None, Some(Discarded::Crashing), None]);
}

#[test]
fn crashes_long_after_opening_do_not_discard() {
    let dir = tempfile::tempdir().unwrap();
    let at_once = Options { settled_after: Duration::ZERO, ..options("boot") };
    for _ in 0..4 {
        let opened = Store::open(&DirLock::acquire(dir.path()).unwrap(), CLUSTER, &at_once).unwrap();
        assert_eq!(opened.discarded, None);
        opened.store.sync().unwrap();
    }
}

#[test]
fn a_close_that_failed_is_not_tried_again_and_counts_as_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut writer, .. } = open(dir.path());
    put(&mut writer, 1, &[(b"k", b"v")]);
    // The next marker can't be written while a directory has its name.
    let obstacle = dir.path().join("marker.new");
    fs::create_dir(&obstacle).unwrap();
    let fault = writer.close().unwrap_err();
    assert!(matches!(fault, Fault::Storage(_)));
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(store.sync(), Err(fault));
    drop(store);
    assert_eq!(try_open(dir.path(), CLUSTER, "other").unwrap().discarded, Some(Discarded::OtherBoot));
}

#[test]
fn another_clusters_tables_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    put(&mut opened.writer, 1, &[(b"k", b"v")]);
    drop((opened.writer, opened.store));
    // In another boot, too: what is not ours is not ours to discard.
    for boot in ["boot", "other"] {
        match try_open(dir.path(), "beef", boot).unwrap_err() {
            Error::OtherCluster { found, expected } => {
                assert_eq!((found.as_str(), expected.as_str()), (CLUSTER, "beef"))
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(data(&open(dir.path()).store, b"k").unwrap(), "v");
}

#[test]
fn tables_of_another_format_or_cluster_are_refused_by_what_they_say_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.writer.close().unwrap();
    drop(opened.store);
    let marker = fs::read(dir.path().join("marker")).unwrap();

    let other = tempfile::tempdir().unwrap();
    let opened = try_open(other.path(), "beef", "boot").unwrap();
    opened.writer.close().unwrap();
    drop(opened.store);
    fs::write(other.path().join("marker"), marker).unwrap();
    assert!(
        matches!(try_open(other.path(), CLUSTER, "boot"), Err(Error::OtherCluster { found, .. }) if found == "beef")
    );

    // In a page of LMDB the value follows its key.
    flip(dir.path(), b"format\0\0\0\x01", 9);
    assert!(matches!(try_open(dir.path(), CLUSTER, "boot"), Err(Error::OtherFormat { found: 0, expected: 1 })));
}

#[test]
fn a_second_open_in_the_same_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let opened = Store::open(&lock, CLUSTER, &options("boot")).unwrap();
    assert!(matches!(Store::open(&lock, CLUSTER, &options("boot")), Err(Error::Locked { .. })));
    drop(lock);
    assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Locked { .. })), "the tables keep the lock");
    let snapshot = opened.store.snapshot().unwrap();
    drop((opened.store, opened.writer));
    assert!(matches!(DirLock::acquire(dir.path()), Err(Error::Locked { .. })), "so does a reader");
    drop(snapshot);
    DirLock::acquire(dir.path()).unwrap();
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

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn scan_model(model: &Model, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Vec<u8>, Bytes)> {
    let rows = model.iter().filter(|((t, key), _)| *t == table && key.starts_with(prefix));
    let rows = rows.filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after));
    rows.take(limit).map(|((_, key), value)| (key.clone(), Bytes::from(value.clone()))).collect()
}

/// Short keys of few bytes, so that they meet; 0 and 255 for the ends of ranges.
fn some_key(least: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 127, 255]), least..5)
}

fn some_table() -> impl Strategy<Value = Table> {
    prop::sample::select(vec![Table::Data, Table::Child, Table::Change])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rows_and_scans_agree_with_a_sorted_map(
        batches in prop::collection::vec(
            prop::collection::vec(
                (some_table(), some_key(1), prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..300))),
                1..20,
            ),
            1..8,
        ),
        scans in prop::collection::vec(
            (some_table(), some_key(0), prop::option::of(some_key(0)), 0..8_usize),
            1..30,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let Opened { store, mut writer, .. } = open(dir.path());
        let mut model = Model::new();
        for batch in &batches {
            let hashes = writer.write(|tables| {
                batch.iter().map(|(table, key, value)| tables.write(*table, key, value.as_deref())).collect::<Result<Vec<_>, _>>()
            }, |_| Ok(())).unwrap();
            for ((table, key, value), hash) in batch.iter().zip(hashes) {
                let old = match value {
                    Some(value) => model.insert((*table, key.clone()), value.clone()),
                    None => model.remove(&(*table, key.clone())),
                };
                prop_assert_eq!(hash, old.map(|old| RowHash::of(*table, key, &old)));
            }
        }
        let snapshot = store.snapshot().unwrap();
        for (table, prefix, after, limit) in &scans {
            let found = snapshot.scan(*table, prefix, after.as_deref(), *limit).unwrap();
            prop_assert_eq!(found, scan_model(&model, *table, prefix, after.as_deref(), *limit));
            let one = snapshot.row(*table, prefix).unwrap();
            prop_assert_eq!(one.as_deref(), model.get(&(*table, prefix.clone())).map(Vec::as_slice));
        }
        let mut digest = Digest::default();
        for ((table, key), value) in model.iter().filter(|((table, _), _)| table.is_digested()) {
            digest.add(RowHash::of(*table, key, value));
        }
        prop_assert_eq!(snapshot.scrub().unwrap(), digest);
    }
}
