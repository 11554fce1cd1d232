//! Three members on real sockets: elections, replication, hand-overs, restarts, and who is let in.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::apply::{Local, Position};
use conclave_link::{Dialer, FrameReader, FrameWriter, Listener, Plane, Side};
use conclave_log::{MemDisk, Options, Writer, open};
use conclave_store::{Checkpoints, DirLock};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Error, Outcome, Replica, StartOptions, Timing};
use crate::peer::wire::{self, Ballot, Candidacy, Hello, NoRead, Refused, Request, Response, Welcome};
use crate::peer::{self, Error as PeerError, Peers};
use crate::steps::Steps;
use cluster::{CLUSTER, Cluster, Member, Pki, SOON, VOID, until};

fn payload(number: usize) -> Bytes {
    Bytes::from(format!("payload {number:06}"))
}

#[tokio::test]
async fn a_thousand_payloads_reach_every_member_in_their_order() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let payloads: Vec<Bytes> = (0..1_000).map(payload).collect();
    let mut told = leader.propose(leader.term(), payloads.clone()).await;
    let mut last = 0;
    for number in 0..payloads.len() {
        let (which, outcome) = told.recv().await.unwrap();
        let Outcome::Done { index } = outcome else { panic!("{number}: {outcome:?}") };
        assert!(which == number && index > last, "outcome {which} at {index} came as number {number}, after {last}");
        last = index;
    }
    for member in cluster.members.values() {
        until("every member applies them", || member.payloads().len() == payloads.len()).await;
        assert_eq!(member.payloads(), payloads);
    }
    let level = || {
        let numbers = leader.replica.numbers();
        numbers.applied.is_some_and(|at| at.index == last) && numbers.last == numbers.applied
    };
    until("the numbers say so", level).await;
    assert_eq!(leader.replica.membership().voters, [BTreeSet::from([1, 2, 3])]);
}

#[tokio::test]
async fn a_void_entry_and_another_terms_proposal_are_told_apart() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = leader.term();
    let mut told = leader.propose(term, [payload(0), Bytes::from_static(VOID), payload(1)]).await;
    assert!(matches!(told.recv().await.unwrap(), (0, Outcome::Done { .. })));
    assert!(matches!(told.recv().await.unwrap(), (1, Outcome::Void { .. })));
    assert!(matches!(told.recv().await.unwrap(), (2, Outcome::Done { .. })));
    let mut told = leader.propose(term + 1, [payload(2)]).await;
    assert_eq!(told.recv().await.unwrap(), (0, Outcome::Rejected));
    let follower = cluster.members.values().find(|member| !member.leads()).unwrap();
    let mut told = follower.propose(term, [payload(3)]).await;
    assert_eq!(told.recv().await.unwrap(), (0, Outcome::Rejected));
    assert_eq!(leader.payloads(), [payload(0), payload(1)]);
}

#[tokio::test]
async fn the_death_of_a_leader_costs_an_election_and_no_entry() {
    let mut cluster = Cluster::start(3).await;
    let (id, term) = (cluster.leader().await.id, cluster.leader().await.term());
    let mut told = cluster.members[&id].propose(term, (0..100).map(payload)).await;
    for _ in 0..100 {
        assert!(matches!(told.recv().await.unwrap().1, Outcome::Done { .. }));
    }
    let dead = cluster.kill(id);
    let began = Instant::now();
    let leader = cluster.leader().await;
    let took = began.elapsed();
    assert!(leader.term() > term);
    // A generous bound: other tests share the machine.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let mut told = leader.propose(leader.term(), (100..200).map(payload)).await;
    for _ in 0..100 {
        assert!(matches!(told.recv().await.unwrap().1, Outcome::Done { .. }));
    }
    cluster.restart(dead);
    cluster.members[&id].replica.recovered(SOON).await.unwrap();
    let all: Vec<Bytes> = (0..200).map(payload).collect();
    for member in cluster.members.values() {
        until("the dead one catches up", || member.payloads().len() == all.len()).await;
        assert_eq!(member.payloads(), all);
    }
}

#[tokio::test]
async fn a_step_down_in_mid_pipeline_leaves_no_wrong_outcome() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let term = old.term();
    let count = 3_000;
    let mut outcomes = Vec::new();
    let proposing = async {
        let mut told = old.propose(term, (0..count).map(payload)).await;
        while let Some((number, outcome)) = told.recv().await {
            assert_eq!(number, outcomes.len(), "outcomes come in the order of the proposals");
            outcomes.push(outcome);
        }
    };
    let stepping = async {
        until("some are applied", || old.payloads().len() > 100).await;
        old.replica.step_down().await.unwrap();
    };
    tokio::join!(proposing, stepping);
    let new = cluster.leader().await;
    assert!(new.id != old.id && new.term() > term);

    // What is in the log when the new leader's own entry is applied everywhere is all there will ever be.
    let mut told = new.propose(new.term(), [payload(count)]).await;
    assert!(matches!(told.recv().await.unwrap(), (0, Outcome::Done { .. })));
    for member in cluster.members.values() {
        until("all are level", || member.payloads().last() == Some(&payload(count))).await;
        assert_eq!(member.payloads(), new.payloads());
    }
    let there: BTreeSet<Bytes> = new.payloads().into_iter().collect();
    for (number, outcome) in outcomes.iter().enumerate() {
        let there = there.contains(&payload(number));
        match outcome {
            Outcome::Done { .. } => assert!(there, "{number} is done and not in the log"),
            Outcome::Rejected => assert!(!there, "{number} was rejected and is in the log"),
            Outcome::Void { .. } => panic!("{number} is void"),
            Outcome::Unknown => {}
        }
    }
    let all = (0..count).map(payload);
    let mut order = new.payloads().into_iter();
    assert!(all.clone().filter(|payload| there.contains(payload)).eq(order.by_ref().take(there.len() - 1)));
    assert!(outcomes.len() == count && outcomes.iter().any(|outcome| matches!(outcome, Outcome::Done { .. })));
    assert!(outcomes.contains(&Outcome::Rejected), "the step-down came too late to be interesting");
}

#[tokio::test]
async fn a_restarted_leader_leads_in_a_new_term_with_a_blank_entry_of_its_own() {
    let mut cluster = Cluster::start(1).await;
    let term = cluster.leader().await.term();
    let mut told = cluster.members[&1].propose(term, [payload(0)]).await;
    assert!(matches!(told.recv().await.unwrap(), (0, Outcome::Done { .. })));
    let dead = cluster.kill(1);
    cluster.restart(dead);
    let again = cluster.leader().await;
    let now = again.term();
    assert!(now > term, "leadership of term {term} was resumed");
    until("the blank entry is applied", || again.state.lock().unwrap().blanks.iter().any(|at| at.term == now)).await;
    assert_eq!(again.payloads(), [payload(0)]);
    let nodes = [(1, again.node())].into();
    assert_eq!(again.replica.initialize(nodes).await.unwrap_err(), Error::NotPristine);
}

#[tokio::test]
async fn any_member_gets_a_read_index_and_none_without_a_quorum() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, term) = (leader.id, leader.term());
    let mut told = leader.propose(term, [payload(0)]).await;
    let (_, Outcome::Done { index }) = told.recv().await.unwrap() else { panic!("not done") };
    for member in cluster.members.values() {
        let reads = (0..50).map(|_| member.replica.read_index());
        for read in futures::future::join_all(reads).await {
            assert!(read.unwrap() >= index);
        }
        assert_eq!(member.replica.reads().confirm().await, member.id == id);
    }
    let others: Vec<u64> = cluster.members.keys().copied().filter(|other| *other != id).collect();
    let dead: Vec<_> = others.into_iter().map(|other| cluster.kill(other)).collect();
    // Acknowledgements of a moment ago are still within the lease. They say nothing of now.
    let refused = cluster.members[&id].replica.read_index().await.unwrap_err();
    assert!(matches!(refused, NoRead::NoQuorum(_) | NoRead::NotLeader { .. }), "{refused:?}");
    assert!(!cluster.members[&id].replica.reads().confirm().await);
    dead.into_iter().for_each(|dead| cluster.restart(dead));
    cluster.leader().await;
    for member in cluster.members.values() {
        let deadline = Instant::now() + SOON;
        while !member.replica.read_index().await.is_ok_and(|read| read >= index) {
            assert!(Instant::now() < deadline, "no read index since the quorum came back");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn members_ask_each_other_and_forward() {
    let cluster = Cluster::start(3).await;
    let [one, two] = [1, 2].map(|id| &cluster.members[&id]);
    let answer = one.peers.ask(two.id, Request::Clock, SOON).await.unwrap();
    assert_eq!(answer, Response::Clock { wall_ms: two.id });
    let (mut writer, mut reader) = one.peers.open_forward(two.id).await.unwrap();
    for number in 0..100 {
        writer.push(&payload(number)).unwrap();
    }
    writer.flush().await.unwrap();
    for number in 0..100 {
        assert_eq!(reader.next(wire::FRAME_BYTES).await.unwrap().unwrap(), payload(number));
    }
    assert!(matches!(one.peers.ask(9, Request::Clock, SOON).await, Err(PeerError::Unknown(9))));
}

/// Dials a member by hand, and says this first.
async fn greet(pki: &Pki, certificate: u64, to: &Member, hello: Hello) -> Welcome {
    let dialer = Dialer::with(&pki.member(certificate), Plane::Peer, peer::tuning()).unwrap();
    let connection = dialer.connect(to.address, Some(to.id)).await.unwrap();
    let (send, receive) = connection.open_bi().await.unwrap();
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
    writer.push(&wire::encode(&hello)).unwrap();
    writer.flush().await.unwrap();
    wire::decode(&reader.next(wire::FRAME_BYTES).await.unwrap().unwrap()).unwrap()
}

#[tokio::test]
async fn a_hello_must_name_cluster_certificate_and_target() {
    let cluster = Cluster::start(1).await;
    let member = &cluster.members[&1];
    let hello = Hello { cluster: CLUSTER.to_owned(), from: 7, to: 1, boot: 1 };
    assert!(matches!(greet(&cluster.pki, 7, member, hello.clone()).await, Welcome::Yes { .. }));
    let other = Hello { cluster: "two".to_owned(), ..hello.clone() };
    assert_eq!(greet(&cluster.pki, 7, member, other).await, Welcome::No(Refused::OtherCluster(CLUSTER.to_owned())));
    let other = Hello { from: 8, ..hello.clone() };
    let expected = Refused::OtherId { said: 8, certificate: 7 };
    assert_eq!(greet(&cluster.pki, 7, member, other).await, Welcome::No(expected));
    let other = Hello { to: 2, ..hello };
    assert_eq!(greet(&cluster.pki, 7, member, other).await, Welcome::No(Refused::OtherTarget(1)));
}

#[tokio::test]
async fn another_clusters_member_is_refused_by_name() {
    let cluster = Cluster::start(1).await;
    let stranger = Member::start(&cluster.pki, "two", 7);
    stranger.peers.add(1, &cluster.members[&1].node());
    let error = stranger.peers.ask(1, Request::Clock, SOON).await.unwrap_err();
    assert!(matches!(&error, PeerError::Refused(Refused::OtherCluster(name)) if name == CLUSTER), "{error}");
}

#[tokio::test]
async fn a_certificate_of_another_id_is_refused() {
    let cluster = Cluster::start(1).await;
    let impostor = Member::start(&cluster.pki, CLUSTER, 7);
    // Member 2 is said to be where member 7 listens.
    cluster.members[&1].peers.add(2, &impostor.node());
    let error = cluster.members[&1].peers.ask(2, Request::Clock, SOON).await.unwrap_err();
    let refused = matches!(&error, PeerError::Link(conclave_link::Error::Refused { side: Side::Us, .. }));
    assert!(refused, "{error}");
}

#[tokio::test]
async fn nobody_votes_for_another_and_strangers_get_no_service() {
    let cluster = Cluster::start(1).await;
    let stranger = Member::start(&cluster.pki, CLUSTER, 7);
    stranger.peers.add(1, &cluster.members[&1].node());
    let candidacy =
        |member| Candidacy { ballot: Ballot { term: 99, member, committed: false }, last: None, transfer: false };
    for request in [Request::Vote(candidacy(2)), Request::PreVote(candidacy(2))] {
        let error = stranger.peers.ask(1, request, SOON).await.unwrap_err();
        assert!(matches!(error, PeerError::Refused(Refused::NotYours(2))), "{error}");
    }
    for request in [Request::Clock, Request::ReadIndex, Request::Digest { zxid: 1, computed: 1 }] {
        let error = stranger.peers.ask(1, request, SOON).await.unwrap_err();
        assert!(matches!(error, PeerError::Refused(Refused::NotAMember)), "{error}");
    }
    let (_writer, mut reader) = stranger.peers.open_forward(1).await.unwrap();
    assert!(!matches!(reader.next(wire::FRAME_BYTES).await, Ok(Some(_))), "a stranger's stream was taken");
    // A candidate that speaks for itself is answered, as Raft wants it, and gets nothing from a leader.
    let answer = stranger.peers.ask(1, Request::PreVote(candidacy(7)), SOON).await.unwrap();
    assert!(matches!(answer, Response::Poll(poll) if !poll.granted));
}

#[tokio::test]
async fn a_state_ahead_of_its_log_is_an_error_and_no_panic() {
    let pki = Pki::new();
    let credentials = pki.member(1);
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind_with(free, Plane::Peer, &credentials, peer::tuning()).unwrap();
    let dialer = Dialer::with(&credentials, Plane::Peer, peer::tuning()).unwrap();
    let (peers, inlets) = Peers::start(1, CLUSTER, listener, dialer);
    let options = Options::default();
    let (log, votes, recovered) = open(Arc::new(MemDisk::new()), options.clone()).unwrap();
    let (log, _thread) = Writer::spawn(log, votes, &recovered, &options, Box::new(|_| {})).unwrap();
    let local = Local { applied: Some(Position { term: 1, index: 5 }), ..Local::default() };
    let (apply, _batches) = mpsc::unbounded_channel();
    let (cluster, timing) = (CLUSTER.to_owned(), Timing::default());
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(&DirLock::acquire(dir.path()).unwrap(), &cluster).unwrap();
    let options = StartOptions {
        cluster,
        timing,
        log,
        local,
        apply,
        checkpoints,
        snapshot_bytes_per_s: 1 << 30,
        carried: Arc::default(),
        steps: Steps::default(),
        peers,
        inlets: inlets.raft,
    };
    let error = Replica::start(options).await.unwrap_err();
    assert!(matches!(&error, Error::Storage(why) if why.contains("entry 5")), "{error}");
}

#[tokio::test]
async fn a_member_that_cannot_be_reached_is_not_dialled_before_there_is_something_to_say() {
    // openraft sleeps its backoff in the stream of requests: a network that fails without asking for one spins.
    let pki = Pki::new();
    let loopback = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind_with(loopback, Plane::Peer, &pki.member(1), peer::tuning()).unwrap();
    let dialer = Dialer::with(&pki.member(1), Plane::Peer, peer::tuning()).unwrap();
    let (peers, _inlets) = Peers::start(1, CLUSTER, listener, dialer);
    let closed = std::net::UdpSocket::bind(loopback).unwrap().local_addr().unwrap();
    let node = super::Node { peer: closed.to_string(), client: String::new() };
    let snapshots = super::network::Snapshots { bytes_per_s: 1 << 30, carried: Arc::default() };
    let mut factory = super::network::Factory { peers, stall: SOON, snapshots };
    let mut network = openraft::RaftNetworkFactory::new_client(&mut factory, 2, &node).await;
    let option = openraft::network::RPCOption::new(SOON);
    let nothing_to_say = futures::stream::pending();
    let answers = openraft::RaftNetworkV2::stream_append(&mut network, nothing_to_say, option).await;
    let Ok(mut answers) = answers else { panic!("it failed before there was a request") };
    assert!(futures::poll!(futures::StreamExt::next(&mut answers)).is_pending());
}
