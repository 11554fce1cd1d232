//! For tests: a member inside the process, with a small tree that keeps stats as a real one does, watches and subtrees.

mod transaction;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use conclave_link::{FrameReader, FrameWriter};
use conclave_protocol::{
    Answer, Change, ChangeKind, ClientMessage, Detail, Entry, MemberId, Op, Outcome as Stored, Page, Path, Present,
    Query, Refusal, Scope, ServerMessage, SessionId, SideMessage, SideRequest, Stat, Step, TreeEntry, Value,
    WatchRequest, Welcome, Zxid, codec, limits,
};
use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};

use crate::client::Client;
use crate::driver::start_over;
use crate::error::Result;
use crate::options::Options;
use crate::wire::{Dial, Reason, Side, Wire};
use transaction::Transaction;

/// A cluster of one member.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) world: Mutex<World>,
    /// Cuts every connection.
    pub(crate) cut: Notify,
}

type Outbox = mpsc::UnboundedSender<ServerMessage>;
type Meanwhile = Box<dyn FnOnce(&mut World) + Send>;

/// What the member knows.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) zxid: u64,
    pub(crate) znodes: BTreeMap<Path, Present>,
    pub(crate) history: Vec<(Zxid, Vec<Change>)>,
    watches: Vec<(Outbox, WatchRequest)>,
    /// Watches that were begun, ever.
    pub(crate) begun: Vec<WatchRequest>,
    pub(crate) queries: Vec<Query>,
    pub(crate) ops: Vec<Op>,
    /// Transactions are not told to watches before this is lifted.
    pub(crate) silent: bool,
    untold: Vec<(Zxid, Vec<Change>)>,
    /// Done once, after a subtree's state was taken and before it is sent.
    pub(crate) meanwhile: Option<Meanwhile>,
    /// Done once, before a request on a side stream is answered.
    pub(crate) before_side: Option<Meanwhile>,
    /// Requests on side streams wait for their turn, until the connection is cut.
    pub(crate) busy: bool,
    /// Done once, before a read is answered.
    pub(crate) before_read: Option<Meanwhile>,
    /// So many of the writes that come next are neither carried out nor answered; they lie in `late`.
    pub(crate) swallow: usize,
    pub(crate) late: Vec<Op>,
    /// Reads are not answered.
    pub(crate) deaf: bool,
    /// So many subtrees break off in the middle.
    pub(crate) breaks: usize,
    /// Nothing that has this for its zxid, or an earlier one, is remembered.
    pub(crate) forgotten: Zxid,
    /// Children on a page.
    pub(crate) page: usize,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let fake = Arc::new(Self::default());
        let root = Present { data: Bytes::new(), stat: Stat::default() };
        fake.world.lock().unwrap().znodes.insert(Path::root(), root);
        fake.world.lock().unwrap().page = 1_000;
        fake
    }

    pub(crate) async fn client(self: &Arc<Self>) -> Client {
        let options = Options::new(["a:1"], "c", "k", "a");
        let started = start_over(&options, Arc::clone(self) as Arc<dyn Dial>, [3; 32]);
        Client::over(options, started).await.unwrap()
    }

    pub(crate) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    async fn serve(self: Arc<Self>, stream: DuplexStream) {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let (outbox, mut out) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                frame = reader.next(limits::FRAME_BYTES) => match frame {
                    Ok(Some(frame)) => self.world().answer(codec::decode(&frame).unwrap(), &outbox),
                    _ => break,
                },
                Some(message) = out.recv() => {
                    writer.push(&codec::encode(&message)).unwrap();
                    if writer.flush().await.is_err() {
                        break;
                    }
                }
                () = self.cut.notified() => break,
            }
        }
        self.world().watches.retain(|(one, _)| !one.same_channel(&outbox));
    }

    async fn serve_side(self: Arc<Self>, stream: DuplexStream) {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let Ok(Some(frame)) = reader.next(limits::FRAME_BYTES).await else { return };
        let request: SideRequest = codec::decode(&frame).unwrap();
        if self.world().busy {
            writer.push(&codec::encode(&SideMessage::Working)).unwrap();
            writer.flush().await.unwrap();
            return self.cut.notified().await;
        }
        for message in self.world().side(request) {
            writer.push(&codec::encode(&message)).unwrap();
        }
        // Whoever asked may have gone.
        let _ = writer.flush().await;
    }
}

impl Dial for Fake {
    fn dial(self: Arc<Self>, _: String) -> BoxFuture<'static, Result<Wire, Reason>> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(Arc::clone(&self).serve(theirs));
        let (read, write) = tokio::io::split(ours);
        let side = move || {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(Arc::clone(&self).serve_side(theirs));
            let (read, write) = tokio::io::split(ours);
            let side = Side { reader: FrameReader::new(Box::new(read)), writer: FrameWriter::new(Box::new(write)) };
            Box::pin(std::future::ready(Ok(side))) as BoxFuture<'static, _>
        };
        Box::pin(std::future::ready(Ok(Wire {
            reader: FrameReader::new(Box::new(read)),
            writer: FrameWriter::new(Box::new(write)),
            end: Box::new(|| None),
            side: Arc::new(side),
        })))
    }

    fn refresh(&self) {}
}

impl World {
    fn answer(&mut self, message: ClientMessage, outbox: &Outbox) {
        let send = |message| drop(outbox.send(message));
        let zxid = Zxid(self.zxid);
        let answer = |id, answer| send(ServerMessage::Answer { id, zxid, answer });
        match message {
            ClientMessage::Hello(hello) => send(ServerMessage::Welcome(Box::new(Welcome {
                version: conclave_protocol::PROTOCOL_VERSION,
                member: MemberId(1),
                cluster: "fake".into(),
                principal: "client/test".into(),
                now_ms: 1_000,
                zxid,
                endpoints: Vec::new(),
                attached: hello.attach.map(|_| conclave_protocol::Attached { timeout_ms: 10_000 }),
            }))),
            ClientMessage::Open { id, .. } => {
                let opened = Value::Opened { session: SessionId(9), timeout_ms: 10_000 };
                send(ServerMessage::Reply { id, zxid, outcome: codec::encode(&Stored::Ok(opened)).into() });
            }
            ClientMessage::Write { op, .. } | ClientMessage::Once { op, .. } if self.swallow > 0 => {
                self.swallow -= 1;
                self.late.push(op);
            }
            ClientMessage::Write { id, op, .. } | ClientMessage::Once { id, op, .. } => {
                let outcome = self.write(op);
                let zxid = Zxid(self.zxid);
                send(ServerMessage::Reply { id, zxid, outcome: codec::encode(&outcome).into() });
            }
            ClientMessage::Read { .. } if self.deaf => {}
            ClientMessage::Read { id, query, .. } => {
                if let Some(before_read) = self.before_read.take() {
                    before_read(self);
                }
                let (zxid, answer) = (Zxid(self.zxid), self.read(&query));
                self.queries.push(query);
                send(ServerMessage::Answer { id, zxid, answer });
            }
            ClientMessage::Watch { id, watch } => {
                self.begun.push(watch.clone());
                if let Some(since) = watch.since {
                    if since > zxid {
                        return answer(id, Err(Refusal::FutureZxid { zxid: since, last: zxid }));
                    }
                    if since < self.forgotten {
                        send(ServerMessage::Resync { watch: watch.watch, zxid });
                    } else {
                        for (at, changes) in self.history.iter().filter(|(at, _)| *at > since) {
                            self.tell(outbox, &watch, *at, changes);
                        }
                    }
                }
                self.watches.push((outbox.clone(), watch));
                answer(id, Ok(Answer::Watching));
            }
            ClientMessage::Unwatch { id, watch } => {
                self.watches.retain(|(_, one)| one.watch != watch);
                answer(id, Ok(Answer::Unwatched));
            }
            ClientMessage::Heartbeat { id } => answer(id, Ok(Answer::Alive)),
        }
    }

    fn side(&mut self, request: SideRequest) -> Vec<SideMessage> {
        let SideRequest::Subtree { path, data, seen, .. } = request else { panic!("{request:?}") };
        if let Some(before_side) = self.before_side.take() {
            before_side(self);
        }
        assert!(seen <= Zxid(self.zxid));
        if !self.znodes.contains_key(&path) {
            return vec![SideMessage::Refused { refusal: Refusal::NoZnode { path } }];
        }
        let mut entries: Vec<TreeEntry> = self
            .znodes
            .iter()
            .filter(|(other, _)| other.is_within(&path))
            .map(|(path, znode)| TreeEntry {
                path: path.clone(),
                stat: znode.stat,
                data: data.then(|| znode.data.clone()),
            })
            .collect();
        entries.sort_by(|a, b| a.path.names().cmp(b.path.names()));
        let mut messages = vec![SideMessage::Subtree { zxid: Zxid(self.zxid) }, SideMessage::Working];
        messages.extend(entries.chunks(2).map(|part| SideMessage::Znodes(part.to_vec())));
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile(self);
        }
        if self.breaks > 0 {
            self.breaks -= 1;
            messages.truncate(3);
        } else {
            messages.push(SideMessage::End { bytes: entries.len() as u64 });
        }
        messages
    }

    /// Carries a write out, and tells the watches.
    pub(crate) fn write(&mut self, op: Op) -> Stored {
        self.zxid += 1;
        let mut tx = Transaction { zxid: Zxid(self.zxid), znodes: self.znodes.clone(), changes: Vec::new() };
        let outcome = match op.clone() {
            Op::Multi(steps) => {
                let step = |(n, step)| tx.step(step).map_err(|cause| crate::namespace::refused_step(n, cause));
                steps.into_iter().enumerate().map(step).collect::<Result<Vec<_>, _>>().map(Value::Multi)
            }
            Op::Create(create) => tx.step(Step::Create(create)),
            Op::Set(set) => tx.step(Step::Set(set)),
            Op::Delete(delete) => tx.step(Step::Delete(delete)),
            Op::Update(update) => tx.step(Step::Update(update)),
            Op::Prune(prune) => tx.prune(&prune.path, prune.limit as usize),
            Op::Acl(set) => tx.step(Step::Acl(set)),
            Op::Call(_) => Ok(Value::Called(Bytes::new())),
            Op::Cancel { .. } => Ok(Value::Cancelled),
            Op::Upload(_) => Ok(Value::Uploaded),
            Op::Install(_) | Op::Manage(_) => panic!("the fake has no plugins"),
            Op::End(_) => Ok(Value::Ended),
            Op::Close => Ok(Value::Closed),
        };
        self.ops.push(op);
        let Transaction { zxid, znodes, changes } = tx;
        if outcome.is_ok() {
            self.znodes = znodes;
            if !changes.is_empty() {
                self.history.push((zxid, changes.clone()));
                self.untold.push((zxid, changes));
            }
        }
        self.speak();
        outcome
    }

    /// Tells what was not told, unless it is to be silent: with what the znodes hold now.
    pub(crate) fn speak(&mut self) {
        if self.silent {
            return;
        }
        for (zxid, changes) in std::mem::take(&mut self.untold) {
            let watches = std::mem::take(&mut self.watches).into_iter();
            self.watches =
                watches.filter(|(outbox, watch)| !(self.tell(outbox, watch, zxid, &changes) && watch.once)).collect();
        }
    }

    /// Whether there was something to tell.
    fn tell(&self, outbox: &Outbox, watch: &WatchRequest, zxid: Zxid, changes: &[Change]) -> bool {
        let changes: Vec<Change> = changes.iter().filter(|change| matches(watch, change)).cloned().collect();
        if changes.is_empty() {
            return false;
        }
        let present = changes.iter().map(|change| self.znodes.get(&change.path).cloned());
        let present = if watch.data { present.collect() } else { Vec::new() };
        drop(outbox.send(ServerMessage::Event { watch: watch.watch, zxid, changes, present }));
        true
    }

    fn read(&self, query: &Query) -> Result<Answer, Refusal> {
        let find = |path: &Path| self.znodes.get(path).ok_or_else(|| Refusal::NoZnode { path: path.clone() });
        let below = |path: &Path| {
            let path = path.clone();
            self.znodes.keys().filter(move |other| **other != path && other.is_within(&path))
        };
        Ok(match query {
            Query::Get { path } => find(path).map(|z| Answer::Znode { data: z.data.clone(), stat: z.stat })?,
            Query::Exists { path } => Answer::Exists(self.znodes.get(path).map(|znode| znode.stat)),
            Query::Children { path, prefix, after, limit, detail } => {
                find(path)?;
                let after = after.clone().unwrap_or_default();
                let name = |child: &Path| child.name().unwrap().to_owned();
                let mut names: Vec<String> =
                    below(path).filter(|child| child.parent().as_ref() == Some(path)).map(name).collect();
                names.retain(|name| name.starts_with(prefix) && *name > after);
                let most = self.page.min(*limit as usize);
                let more = names.len() > most;
                names.truncate(most);
                let entry = |name: String| {
                    let znode = &self.znodes[&path.join(&name).unwrap()];
                    let stat = (*detail != Detail::Names).then_some(znode.stat);
                    let data = (*detail == Detail::Data).then(|| znode.data.clone());
                    Entry { name, stat, data }
                };
                Answer::Page(Page { children: names.into_iter().map(entry).collect(), more })
            }
            Query::Many { paths } => Answer::Many(paths.iter().map(|path| self.znodes.get(path).cloned()).collect()),
            Query::Count { path } => Answer::Count(find(path).map(|_| below(path).count() as u64)?),
            Query::Acl { path } => Answer::Acl { acl: conclave_protocol::AccessList::open(), stat: find(path)?.stat },
            // Two to a page, all of them: whoever asks.
            Query::Owned { after, .. } => {
                let from = usize::try_from(after.unwrap_or(0)).unwrap();
                let paths: Vec<Path> = self.znodes.keys().skip(from).take(2).cloned().collect();
                let next = (from + 2 < self.znodes.len()).then_some(from as u64 + 2);
                Answer::Owned { paths, next }
            }
            Query::Sessions { after, limit } => {
                let from = after.map_or(1, |after| after.0 + 1);
                let info = |session| conclave_protocol::SessionInfo {
                    session: SessionId(session),
                    principal: "p".into(),
                    timeout_ms: 1,
                    ephemerals: 0,
                    writes: 0,
                    unacknowledged: 0,
                };
                let sessions: Vec<_> = (from..=5).take(*limit as usize).map(info).collect();
                let more = sessions.last().is_some_and(|last| last.session.0 < 5);
                Answer::Sessions { sessions, more }
            }
            Query::Call(_) => Answer::Called(Bytes::new()),
            Query::Plugins { .. } => Answer::Plugins(Vec::new()),
            Query::Calls { .. } => Answer::Calls { calls: Vec::new(), more: false },
            Query::Status => panic!("the fake has no status"),
        })
    }
}

fn matches(watch: &WatchRequest, change: &Change) -> bool {
    let at = change.path == watch.path;
    let is_in = match watch.scope {
        Scope::Data => at,
        Scope::Existence => at && matches!(change.kind, ChangeKind::Created | ChangeKind::Deleted),
        Scope::Children => {
            let child = change.path.parent().as_ref() == Some(&watch.path);
            (child && matches!(change.kind, ChangeKind::Created | ChangeKind::Deleted))
                || (at && change.kind == ChangeKind::Deleted)
        }
        Scope::Subtree => change.path.is_within(&watch.path),
    };
    let name = change.path.name().unwrap_or_default();
    is_in
        && watch.kinds.is_none_or(|kinds| kinds.has(change.kind))
        && watch.names.as_ref().is_none_or(|names| names.matches(name))
}
