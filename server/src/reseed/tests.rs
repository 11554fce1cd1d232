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

/// A configuration of members 1 to 3 for this data directory.
fn config(dir: &Path) -> Config {
    let mut config = Config::parse(&Config::example(), Vec::new()).unwrap();
    config.data = dir.to_owned();
    config
}

fn peer_of(members: &BTreeMap<u64, Node>, id: u64) -> Option<&str> {
    members.get(&id).map(|node| node.peer.as_str())
}

#[test]
fn members_that_only_the_state_knows_are_asked_too() {
    let dir = tempfile::tempdir().unwrap();
    let (config, around) = (config(dir.path()), Surroundings::default());
    let lock = DirLock::acquire(dir.path()).unwrap();
    let checkpoints = Checkpoints::open(&lock, &config.cluster).unwrap();
    let mut opened = Store::open(&lock, &config.cluster, &checkpoints, &open::store_options(&around)).unwrap();
    let at = Position { term: 1, index: 1 };
    let added = raft::single_member(9, "nine:1", "nine:2", 1);
    let write = |tables: &mut dyn conclave_core::apply::Tables| {
        conclave_core::apply::skip(tables, at, Some(added));
        Ok(())
    };
    opened.writer.write(write, |_| Ok(())).unwrap();
    let checkpoint = checkpoints.make(&opened.store, &mut |_| ControlFlow::Continue(())).unwrap();
    opened.writer.close().unwrap();
    drop(opened.store);

    let from_checkpoint = stored(&config, &around, &lock);
    assert_eq!(peer_of(&from_checkpoint, 9), Some("nine:1"));
    checkpoints.forget(&checkpoint).unwrap();
    let from_tables = stored(&config, &around, &lock);
    assert_eq!(peer_of(&from_tables, 9), Some("nine:1"));

    let moved = Node { peer: "moved:1".to_owned(), client: "moved:2".to_owned() };
    let all = united(&config, BTreeMap::from([(2, moved), (9, from_tables[&9].clone())]));
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 9]);
    assert_eq!(peer_of(&all, 2), Some("moved:1"), "the cluster knows better than the configuration");
    assert_eq!(peer_of(&all, 1), Some(config.members[0].peer.as_str()));
}

#[tokio::test]
async fn work_that_takes_for_ever_ends_with_the_member() {
    let ending = AtomicBool::new(false);
    assert_eq!(unless(&ending, async { 1 }).await, Some(1));
    let work = async {
        ending.store(true, Ordering::Release);
        std::future::pending::<()>().await;
    };
    assert_eq!(unless(&ending, work).await, None);
}
