//! What is left of a log beside a state that ends at a committed entry; whom a member in quarantine asks and answers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use conclave_link::pki::{Authority, Spec, write_credentials};
use conclave_link::{Credentials, Principal, TrustDomain};
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
async fn a_member_in_quarantine_answers_whoever_has_a_members_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let domain = TrustDomain::new("test").unwrap();
    let authority = |plane| Authority::create(&dir.path().join("ca"), plane, &domain).unwrap();
    let (peer, client) = (authority(Plane::Peer), authority(Plane::Client));
    let tls = |id| {
        let issued = peer.issue(&Spec::new(Principal::member(&domain, id).unwrap(), 1)).unwrap();
        let tls = dir.path().join(format!("tls{id}"));
        write_credentials(&tls, &issued, &peer, &client).unwrap();
        tls
    };
    let mut config = config(dir.path());
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    (config.tls, config.listen.peer) = (tls(config.member), free);
    let record = crate::quarantine::Record { attempt: 2, is_pending: true, why: "rot".to_owned() };
    let here = plane(&config, &record, &united(&config, BTreeMap::new())).unwrap();

    // It was added after that configuration was written.
    let credentials = Credentials::load_dir(&tls(9)).unwrap();
    let listener = Listener::bind_with(free, Plane::Peer, &credentials, peer::tuning()).unwrap();
    let dialer = Dialer::with(&credentials, Plane::Peer, peer::tuning()).unwrap();
    let (stranger, _inlets) = Peers::start(9, &config.cluster, listener, dialer);
    let peer = here.listener().local_address().unwrap().to_string();
    stranger.add(config.member, &Node { peer, client: String::new() });
    let answer = stranger.ask(config.member, wire::Request::Status, CLOSING).await.unwrap();
    assert!(matches!(&answer, wire::Response::Status(status) if status.role == "quarantined"), "{answer:?}");
}

#[test]
fn a_checkpoint_that_ends_before_the_log_begins_is_refused_when_it_is_offered() {
    assert_eq!(judge(Position { term: 1, index: 70 }, 70), Judged::Wanted);
    assert!(matches!(judge(Position { term: 9, index: 69 }, 70), Judged::Refused(_)));
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
