//! The driver and the handles against a member inside the process: no QUIC, no cluster, but real tasks and real time.

mod calls;
mod connecting;

use std::collections::HashMap;
use std::sync::Mutex;

use conclave_link::{FrameReader, FrameWriter};
use conclave_protocol::{
    Answer, Change, ChangeKind, ClientMessage, Create, Endpoint, MemberId, Nonce, Op, Outcome as Stored, Path, Refusal,
    SessionId, Stat, Value, Welcome, Zxid,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::Notify;

use super::*;
use crate::client::Client;
use crate::session::State;
use crate::watch::WatchEvent;

/// A cluster in a box: every endpoint is a door to the same state.
#[derive(Default)]
struct Town {
    state: Mutex<Cluster>,
    /// The cluster's id, by endpoint; `town` where none is said.
    clusters: Mutex<HashMap<String, String>>,
    /// Cuts every connection.
    cut: Notify,
    /// What dialling an endpoint gives instead of a connection; none: it never answers.
    closed: Mutex<HashMap<String, Option<Reason>>>,
    greeted: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Cluster {
    zxid: u64,
    /// Data that was written, in order.
    log: Vec<String>,
    replies: HashMap<u64, (Zxid, Stored)>,
    next: u64,
    onces: HashMap<Nonce, (Zxid, Stored)>,
    watches: Vec<WatchId>,
    since: Vec<Option<Zxid>>,
    closed: bool,
    /// Parked calls, and what others have ended with.
    parked: Vec<u64>,
    completed: HashMap<u64, (Zxid, Stored)>,
    /// Calls that were cancelled.
    cancelled: Vec<u64>,
    /// Swallow so many of the replies that come next.
    swallow: usize,
}

impl Town {
    fn client(self: &Arc<Self>, endpoints: &[&str]) -> BoxFuture<'static, Result<Client>> {
        self.client_with(options(endpoints))
    }

    fn client_with(self: &Arc<Self>, options: Options) -> BoxFuture<'static, Result<Client>> {
        let started = start_over(&options, Arc::clone(self) as Arc<dyn Dial>, [3; 32]);
        Box::pin(Client::over(options, started))
    }

    fn close(&self, endpoint: &str, reason: Option<Reason>) {
        self.closed.lock().unwrap().insert(endpoint.to_owned(), reason);
    }

    async fn serve(self: Arc<Self>, endpoint: String, stream: DuplexStream) {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        loop {
            let frame = tokio::select! {
                frame = reader.next(FRAME_MAX) => frame,
                () = self.cut.notified() => return,
            };
            let Ok(Some(frame)) = frame else { return };
            let message = codec::decode(&frame).unwrap();
            if matches!(message, ClientMessage::Hello(_)) {
                self.greeted.lock().unwrap().push(endpoint.clone());
            }
            for mut answer in self.state.lock().unwrap().answer(message) {
                if let ServerMessage::Welcome(welcome) = &mut answer
                    && let Some(cluster) = self.clusters.lock().unwrap().get(&endpoint)
                {
                    welcome.cluster.clone_from(cluster);
                }
                writer.push(&codec::encode(&answer)).unwrap();
            }
            if writer.flush().await.is_err() {
                return;
            }
        }
    }
}

impl Dial for Town {
    fn dial(self: Arc<Self>, endpoint: String) -> BoxFuture<'static, Result<Wire, Reason>> {
        match self.closed.lock().unwrap().get(&endpoint) {
            Some(Some(reason)) => return Box::pin(std::future::ready(Err(reason.clone()))),
            Some(None) => return Box::pin(std::future::pending()),
            None => {}
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(self.serve(endpoint, theirs));
        let (read, write) = tokio::io::split(ours);
        let wire = Wire {
            reader: FrameReader::new(Box::new(read)),
            writer: FrameWriter::new(Box::new(write)),
            end: Box::new(|| None),
            side: Arc::new(|| Box::pin(std::future::ready(Err(Reason::new("no side streams here"))))),
        };
        Box::pin(std::future::ready(Ok(wire)))
    }

    fn refresh(&self) {}
}

fn town() -> Arc<Town> {
    Arc::new(Town { state: Mutex::new(Cluster { next: 1, ..Cluster::default() }), ..Town::default() })
}

fn options(endpoints: &[&str]) -> Options {
    Options::new(endpoints.iter().copied(), "c", "k", "a").with_connect_timeout(Duration::from_secs(3))
}

impl Cluster {
    fn answer(&mut self, message: ClientMessage) -> Vec<ServerMessage> {
        match message {
            ClientMessage::Hello(hello) => std::iter::once(ServerMessage::Welcome(Box::new(Welcome {
                version: conclave_protocol::PROTOCOL_VERSION,
                member: MemberId(1),
                cluster: "town".into(),
                principal: "client/test".into(),
                now_ms: 1_000,
                zxid: Zxid(self.zxid),
                endpoints: vec![Endpoint { member: MemberId(2), address: "learned:1".into() }],
                attached: hello.attach.map(|_| conclave_protocol::Attached { timeout_ms: 10_000 }),
            })))
            .chain(self.completions())
            .collect(),
            ClientMessage::Open { id, .. } => {
                let opened = Value::Opened { session: SessionId(9), timeout_ms: 10_000 };
                vec![reply(id, &(Zxid(self.zxid), Ok(opened)))]
            }
            ClientMessage::Write { id, sequence, completed, op, .. } => {
                if sequence == self.next {
                    self.next += 1;
                    self.completed.retain(|sequence, _| !completed.contains(sequence));
                    if let Some((outcome, events)) = self.of_calls(sequence, &op) {
                        self.replies.insert(sequence, outcome);
                        return self.told(events, reply(id, &self.replies[&sequence]));
                    }
                    let (outcome, event) = self.carry_out(&op);
                    self.replies.insert(sequence, outcome);
                    return self.told(event, reply(id, &self.replies[&sequence]));
                }
                vec![reply(id, &self.replies[&sequence])]
            }
            ClientMessage::Once { id, nonce, op, .. } => {
                if let Some(known) = self.onces.get(&nonce) {
                    return vec![reply(id, known)];
                }
                if matches!(op, Op::Call(_)) {
                    let refusal = Refusal::NoSession { what: "this".into() };
                    return vec![reply(id, &(Zxid(self.zxid), Err(refusal)))];
                }
                let (outcome, event) = self.carry_out(&op);
                self.onces.insert(nonce, outcome.clone());
                self.told(event, reply(id, &outcome))
            }
            ClientMessage::Read { id, .. } => self.answered(id, Answer::Exists(None)),
            ClientMessage::Watch { id, watch } => {
                self.watches = vec![watch.watch];
                self.since.push(watch.since);
                self.answered(id, Answer::Watching)
            }
            ClientMessage::Unwatch { id, .. } => {
                self.watches.clear();
                self.answered(id, Answer::Unwatched)
            }
            ClientMessage::Heartbeat { id } => self.answered(id, Answer::Alive),
        }
    }

    fn answered(&self, id: u64, answer: Answer) -> Vec<ServerMessage> {
        vec![ServerMessage::Answer { id, zxid: Zxid(self.zxid), answer: Ok(answer) }]
    }

    fn carry_out(&mut self, op: &Op) -> ((Zxid, Stored), Vec<ServerMessage>) {
        self.zxid += 1;
        let zxid = Zxid(self.zxid);
        let value = match op {
            Op::Set(set) => {
                self.log.push(String::from_utf8(set.data.to_vec()).unwrap());
                Value::Set { stat: Stat { modified: zxid, ..Stat::default() } }
            }
            Op::Create(Create { path, .. }) => Value::Created { path: path.clone(), stat: Stat::default() },
            Op::Close => {
                self.closed = true;
                Value::Closed
            }
            other => panic!("{other:?}"),
        };
        let change = Change { kind: ChangeKind::Data, path: Path::root(), version: zxid.0 };
        let event = |watch: &WatchId| ServerMessage::Event {
            watch: *watch,
            zxid,
            changes: vec![change.clone()],
            present: Vec::new(),
        };
        ((zxid, Ok(value)), self.watches.iter().map(event).collect())
    }

    fn told(&mut self, mut messages: Vec<ServerMessage>, reply: ServerMessage) -> Vec<ServerMessage> {
        if self.swallow > 0 {
            self.swallow -= 1;
            return Vec::new();
        }
        messages.push(reply);
        messages
    }
}

fn reply(id: u64, (zxid, outcome): &(Zxid, Stored)) -> ServerMessage {
    ServerMessage::Reply { id, zxid: *zxid, outcome: codec::encode(outcome).into() }
}

/// Waits until something holds; the test fails when it never does.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn requests_reach_the_member_and_their_results_the_callers() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    assert_eq!(client.at("/x").set("1").await.unwrap().modified, Zxid(1));
    assert_eq!(client.zxid(), Zxid(1));
    assert!(!client.at("/x").exists().await.unwrap());
    assert_eq!(client.state(), State::Connected);
    assert_eq!(client.peer().unwrap().cluster, "town");
    client.close().await.unwrap();
    assert!(matches!(client.at("/x").get().await, Err(Error::Closed { .. })));
}

#[tokio::test]
async fn what_no_member_would_take_is_refused_here() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let code = |error: Error| error.refusal().unwrap().code();
    assert_eq!(code(client.at("x").get().await.unwrap_err()), "bad-path");
    assert_eq!(code(client.watch("/a//b").await.unwrap_err()), "bad-path");
    let large = vec![0; limits::FRAME_BYTES];
    assert_eq!(code(client.at("/x").set(large.clone()).await.unwrap_err()), "limit");
    assert_eq!(code(client.call("p", "f").raw_args(large.clone()).await.unwrap_err()), "limit");
    assert_eq!(code(client.transaction().set("/x", large).await.unwrap_err()), "limit");
    assert_eq!(code(client.watch("/x").names("a/b").await.unwrap_err()), "bad-request");
    let bookmark = crate::Bookmark { zxid: Zxid(1), cluster: "city".into() };
    assert_eq!(code(client.watch("/x").resume(bookmark).await.unwrap_err()), "other-cluster");
    let steps = client.transaction().check_exists("/x").set("/x", "").delete("x").set("/a//b", "");
    assert!(matches!(
        steps.await,
        Err(Error::Refused(Refusal::Step { step: 2, cause })) if matches!(*cause, Refusal::BadPath { .. })
    ));
    assert_eq!(town.state.lock().unwrap().zxid, 0);
}

#[tokio::test]
async fn pipelined_writes_survive_cuts_in_order_and_once() {
    let town = town();
    let client = town.client(&["a:1", "b:1"]).await.unwrap().pipelined();
    let at = client.at("/x");
    let writes = (0..500).map(|n| at.set(n.to_string()).into_future());
    let all = tokio::spawn(futures::future::try_join_all(writes));
    for cut in 1..=3 {
        until("some are done", || town.state.lock().unwrap().log.len() > 20 * cut || all.is_finished()).await;
        town.cut.notify_waiters();
    }
    let stats = all.await.unwrap().unwrap();
    let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(town.state.lock().unwrap().log, expected);
    assert!(stats.is_sorted_by_key(|stat| stat.modified));
}

#[tokio::test]
async fn a_one_shot_write_whose_reply_is_lost_happens_once() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    town.state.lock().unwrap().swallow = 1;
    let write = tokio::spawn(client.at("/x").set("v").into_future());
    until("it arrived", || town.state.lock().unwrap().log.len() == 1).await;
    town.cut.notify_waiters();
    write.await.unwrap().unwrap();
    assert_eq!(town.state.lock().unwrap().log, ["v"]);
}

#[tokio::test]
async fn an_event_is_in_its_watch_before_a_newer_reply_reaches_its_caller() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let mut watch = client.watch("/x").subtree().await.unwrap();
    for n in 1..=20 {
        let stat = client.at("/x").set("v").await.unwrap();
        let event = watch.next().now_or_never().flatten().unwrap().unwrap();
        assert!(matches!(event, WatchEvent::Changes { zxid, .. } if zxid == stat.modified && zxid == Zxid(n)));
    }
}

#[tokio::test]
async fn a_watch_goes_on_over_a_cut_and_ends_when_it_is_dropped() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let mut watch = client.watch("/x").await.unwrap();
    client.at("/x").set("1").await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Changes { zxid: Zxid(1), .. }))));
    town.cut.notify_waiters();
    until("it is watched again", || town.state.lock().unwrap().since.len() == 2).await;
    assert_eq!(town.state.lock().unwrap().since, [None, Some(Zxid(1))]);
    client.at("/x").set("2").await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Changes { zxid: Zxid(2), .. }))));
    drop(watch);
    until("it is gone", || town.state.lock().unwrap().watches.is_empty()).await;
}

#[tokio::test]
async fn a_client_that_is_dropped_closes_its_session() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let session = client.session().await.unwrap();
    assert_eq!(session.id(), SessionId(9));
    assert!(session.time_left() > Duration::from_secs(7) && session.time_left() <= Duration::from_millis(8_750));
    let watch = client.watch("/x").await.unwrap();
    drop((client, session));
    assert!(!town.state.lock().unwrap().closed, "the watch keeps it");
    drop(watch);
    until("it is closed", || town.state.lock().unwrap().closed).await;
}

#[tokio::test]
async fn closing_tells_everybody() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    let session = client.session().await.unwrap();
    let mut watch = client.watch("/x").await.unwrap();
    client.close().await.unwrap();
    assert!(town.state.lock().unwrap().closed);
    session.lost().await;
    assert_eq!(client.state(), State::Lost);
    // Closing is itself a transaction, and matches the watch of this member.
    assert!(watch.next().await.unwrap().is_ok());
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn what_is_sent_is_counted_by_its_kind() {
    let town = town();
    let client = town.client(&["a:1"]).await.unwrap();
    client.at("/x").set("1").await.unwrap();
    client.session().await.unwrap();
    client.at("/x").set("2").await.unwrap();
    assert!(!client.at("/x").exists().await.unwrap());
    drop(client.watch("/x").await.unwrap());
    let mut call = client.call("lock", "park").arg("path", "/l").typed::<String>().into_future();
    assert!((&mut call).now_or_never().is_none());
    until("it parks", || town.state.lock().unwrap().parked.len() == 1).await;
    drop(call);
    until("the watch is ended, and the call cancelled", || client.sent(Sent::Notice) == 2).await;
    let sent =
        [Sent::Session, Sent::Write, Sent::Read, Sent::Watch, Sent::Stream, Sent::Hello].map(|kind| client.sent(kind));
    assert_eq!(sent, [1, 3, 1, 1, 0, 1]);
    // What is asked again, because a connection broke, is sent again.
    let mut watch = client.watch("/x").await.unwrap();
    town.cut.notify_waiters();
    until("it is watched again", || town.state.lock().unwrap().since.len() == 3).await;
    assert_eq!([Sent::Watch, Sent::Hello].map(|kind| client.sent(kind)), [3, 2]);
    client.at("/x").set("3").await.unwrap();
    assert!(watch.next().await.unwrap().is_ok());
}
