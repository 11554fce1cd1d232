//! Design rule 9: rows, and what is kept beside them, are of one transaction, whenever one looks.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conclave_core::Table;
use conclave_core::apply::{Position, Tables};
use conclave_core::view::Base;
use conclave_store::{Boot, Checkpoints, DirLock, Options, Store};

const BATCHES: u64 = 3_000;
/// How many different states the reader has to have seen: the writer goes on until then.
const STATES: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn no_reader_ever_sees_rows_without_the_index_and_the_digest_of_their_entry() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { map_bytes: 1 << 28, boot: Boot::named("boot"), ..Options::default() };
    let lock = DirLock::acquire(dir.path()).unwrap();
    let opened = Store::open(&lock, "test", &Checkpoints::open(&lock, "test").unwrap(), &options).unwrap();
    let (store, mut writer) = (opened.store, opened.writer);
    let (done, states) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let snapshot = store.snapshot().unwrap();
                let row = snapshot.row(Table::Data, b"entry").unwrap();
                let row = row.map_or(0, |row| u64::from_be_bytes(row[..].try_into().unwrap()));
                let local = snapshot.local().unwrap();
                assert_eq!(local.applied.map_or(0, |at| at.index), row, "rows of one entry, index of another");
                assert_eq!(local.digest, u128::from(row), "rows of one entry, digest of another");
                states.fetch_add(u64::from(row != last), Ordering::Relaxed);
                last = row;
            }
        });
        let began = Instant::now();
        let enough = || states.load(Ordering::Relaxed) >= STATES || reader.is_finished() || began.elapsed() > PATIENCE;
        for index in (1..).take_while(|index| *index <= BATCHES || !enough()) {
            let batch = |tables: &mut dyn Tables| {
                tables.write(Table::Data, b"entry", Some(&index.to_be_bytes()))?;
                tables.local().applied = Some(Position { term: 1, index });
                tables.local().digest = u128::from(index);
                Ok(())
            };
            writer.write(batch, |_| Ok(())).unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    let states = states.into_inner();
    assert!(states >= STATES, "the reader saw {states} states only");
}
