//! Tables whose structure is damaged: pages of another type, numbers of pages that do not exist, a root that is none.

use std::fs;
use std::path::{Path, PathBuf};

use conclave_core::view::Base;
use conclave_core::{Fault, Table};
use heed::MdbError;

use super::{open, options, put, try_open};
use crate::error::storage;
use crate::{CheckpointError, Checkpoints, DirLock, Error, Opened};

/// Of LMDB's pages, which are as large as the system's.
const PAGE: usize = 4096;
/// Where a page's kind is in it, a number of 2 bytes; and the kinds.
const KIND: usize = 10;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// Where the offsets of its entries begin.
const ENTRIES: usize = 16;

/// Closed tables with so many rows that a table's tree has branches.
fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = open(dir.path());
    let keys: Vec<_> = (1..400_u64).map(u64::to_be_bytes).collect();
    let rows: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &[7_u8; 100][..])).collect();
    put(&mut opened.writer, 1, &rows);
    opened.writer.close().unwrap();
    dir
}

fn file(dir: &Path) -> PathBuf {
    dir.join("env-1").join("data.mdb")
}

fn kind(page: &[u8]) -> u16 {
    u16::from_le_bytes([page[KIND], page[KIND + 1]])
}

/// Changes every page that this holds for, but for the two with the roots; tells how many.
fn change(dir: &Path, which: impl Fn(&[u8]) -> bool, how: impl Fn(&mut [u8])) -> usize {
    let mut bytes = fs::read(file(dir)).unwrap();
    let mut changed = 0;
    for page in bytes.chunks_exact_mut(PAGE).skip(2).filter(|page| which(page)) {
        how(page);
        changed += 1;
    }
    fs::write(file(dir), bytes).unwrap();
    changed
}

/// A leaf whose first row is of `data`.
fn is_data(page: &[u8]) -> bool {
    let entry = usize::from(u16::from_le_bytes([page[ENTRIES], page[ENTRIES + 1]]));
    // Behind the entry's head, the key and the hash. The gaps of a page hold whatever was in memory.
    let value = entry + 8 + 8 + 16;
    kind(page) == LEAF && page.get(value..value + 100) == Some(&[7; 100])
}

/// What a read of a row, a scan, a scrub, a checkpoint and a write say.
fn said(dir: &Path) -> Vec<Fault> {
    let Opened { store, mut writer, .. } = open(dir);
    let snapshot = store.snapshot().unwrap();
    let checkpoints = Checkpoints::open(&store.0.lock, super::CLUSTER).unwrap();
    let made = checkpoints.make(&store, &mut super::go_on).unwrap_err();
    let CheckpointError::Tables(made) = made else { panic!("{made}") };
    let key = 200_u64.to_be_bytes();
    let wrote = writer.write(|tables| tables.write(Table::Data, &key, Some(b"x")), |_| Ok(()));
    vec![
        snapshot.row(Table::Data, &key).unwrap_err(),
        snapshot.scan(Table::Data, b"", None, usize::MAX).unwrap_err(),
        snapshot.scrub().unwrap_err(),
        made,
        wrote.unwrap_err(),
    ]
}

#[test]
fn leaves_of_a_wrong_type_are_corrupt_at_every_read_and_write() {
    let dir = closed();
    // Of a kind that there is not.
    let changed = change(dir.path(), is_data, |page| page[KIND..KIND + 2].copy_from_slice(&0x40_u16.to_le_bytes()));
    assert!(changed > 5, "{changed} leaves");
    let said = said(dir.path());
    assert!(said.iter().all(|fault| matches!(fault, Fault::Corrupt(_))), "{said:?}");
}

#[test]
fn branches_to_pages_that_do_not_exist_are_corrupt_at_every_read_and_write() {
    let dir = closed();
    let changed = change(
        dir.path(),
        |page| kind(page) == BRANCH,
        |page| {
            let end = usize::from(u16::from_le_bytes([page[12], page[13]]));
            for at in (ENTRIES..end).step_by(2) {
                let entry = usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
                // The low half of the page's number, a little beyond the file.
                page[entry..entry + 4].copy_from_slice(&1_000_000_u32.to_le_bytes());
            }
        },
    );
    assert!(changed > 0);
    let said = said(dir.path());
    assert!(said.iter().all(|fault| matches!(fault, Fault::Corrupt(_))), "{said:?}");
}

#[test]
fn pages_with_the_roots_that_are_none_keep_the_tables_shut_as_corrupt() {
    // Their kind; LMDB's mark; its version.
    for at in [KIND, ENTRIES, ENTRIES + 4] {
        let dir = closed();
        let mut bytes = fs::read(file(dir.path())).unwrap();
        bytes[at] ^= 0xff;
        bytes[PAGE + at] ^= 0xff;
        fs::write(file(dir.path()), bytes).unwrap();
        let refused = try_open(dir.path(), super::CLUSTER, "boot");
        assert!(matches!(refused, Err(Error::Fault(Fault::Corrupt(_)))), "byte {at}: {refused:?}");
        // What a member does then.
        let lock = DirLock::acquire(dir.path()).unwrap();
        let again = crate::Options { discard: true, ..options("boot") };
        assert!(super::open_with(&lock, super::CLUSTER, &again).is_ok());
    }
}

#[test]
fn what_does_not_tell_of_damage_is_no_damage() {
    let io = |number| heed::Error::Io(std::io::Error::from_raw_os_error(number));
    assert!(matches!(storage(io(5)), Fault::Storage(_)));
    assert!(matches!(storage(io(28)), Fault::Full(_)));
    for other in [MdbError::MapFull, MdbError::ReadersFull, MdbError::BadTxn, MdbError::Panic, MdbError::TxnFull] {
        assert!(matches!(storage(heed::Error::Mdb(other)), Fault::Storage(_)), "{other}");
    }
}
