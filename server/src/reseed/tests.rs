//! What is left of a log beside a state that ends at a committed entry.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use conclave_log::{MemDisk, Options, Record, Writer, open};

use super::*;

/// A log of these (index, term)s, of which the first so many are purged.
fn log(entries: &[(u64, u64)], purged: Option<(u64, u64)>) -> Handle {
    let options = Options { segment_bytes: 64 << 10, ahead_bytes: 0, ..Options::default() };
    let (log, votes, recovered) = open(Arc::new(MemDisk::new()), options.clone()).unwrap();
    let (log, _thread) = Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
    let record = |(index, term): &(u64, u64)| Record { index: *index, term: *term, kind: 0, payload: "x".into() };
    log.append(entries.iter().map(record).collect(), Box::new(|_| {})).unwrap();
    if let Some((index, term)) = purged {
        log.purge_upto(conclave_log::Position { index, term }, Box::new(|_| {})).unwrap();
    }
    log
}

fn left(log: &Handle) -> (Option<u64>, Vec<(u64, u64)>) {
    let records = log.read(0..1_000, usize::MAX).unwrap();
    (log.purged().map(|purged| purged.index), records.iter().map(|record| (record.index, record.term)).collect())
}

#[test]
fn a_log_that_goes_on_from_the_state_is_left_alone() {
    let log = log(&[(1, 1), (2, 1), (3, 2)], None);
    fit(&log, Position { term: 1, index: 2 }).unwrap();
    assert_eq!(left(&log), (None, vec![(1, 1), (2, 1), (3, 2)]));
}

#[test]
fn a_log_that_has_the_state_behind_it_is_left_alone() {
    let log = log(&[(1, 1), (2, 1), (3, 2)], Some((2, 1)));
    fit(&log, Position { term: 1, index: 1 }).unwrap();
    assert_eq!(left(&log), (Some(2), vec![(3, 2)]));
}

#[test]
fn a_log_that_ends_before_the_state_begins_again_behind_it() {
    let log = log(&[(1, 1), (2, 1)], None);
    fit(&log, Position { term: 4, index: 9 }).unwrap();
    assert_eq!(left(&log), (Some(9), vec![]));
}

#[test]
fn a_tail_that_conflicts_with_the_state_is_cut() {
    let log = log(&[(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)], Some((1, 1)));
    fit(&log, Position { term: 3, index: 4 }).unwrap();
    assert_eq!(left(&log), (Some(4), vec![]));
}
