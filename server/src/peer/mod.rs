//! The peer plane: connections between members, and the streams on them.
//!
//! Each member keeps one connection to every other one for what it has to say itself; answers come back on the same
//! stream. The link has checked certificates when this begins; here the cluster's id is checked, that the peer is the
//! member that it says, and that it speaks for no other.

mod accept;
mod link;
pub(crate) mod transfer;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conclave_link::{Dialer, FrameError, FrameReader, FrameWriter, Listener, RecvStream, SendStream, Tuning};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::raft::Node;
use link::{Link, State};
use wire::{Open, Refused, Request, Response};

/// Close code: the peer was refused, and why is in the words.
const CLOSE_REFUSED: u32 = 1;
/// Close code: the other process is gone.
const CLOSE_STALE: u32 = 2;

/// Requests that may wait to be answered, and streams that may wait to be taken.
const QUEUE: usize = 256;

/// Why a peer was not reached, or did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The link failed.
    #[error(transparent)]
    Link(#[from] conclave_link::Error),
    /// A stream failed, or held what is no frame.
    #[error("{0}")]
    Frame(Arc<FrameError>),
    /// A frame that is no message.
    #[error(transparent)]
    Malformed(#[from] wire::Malformed),
    /// The stream ended where a frame was due.
    #[error("the peer ended the stream")]
    Ended,
    /// The peer refused, and why.
    #[error("refused: {0}")]
    Refused(#[from] Refused),
    /// Nothing came in time.
    #[error("no answer within {} ms", .0.as_millis())]
    NoAnswer(Duration),
    /// A checkpoint on this side can't be read or written.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// The other side gave up, and said why.
    #[error("the peer gave up: {0}")]
    Failed(String),
    /// A checkpoint arrived, and is none that can be used.
    #[error("what arrived is no sound checkpoint: {0}")]
    Damaged(String),
    /// No address is known for that member.
    #[error("member {0} is not in the membership")]
    Unknown(u64),
    /// `host:port` that leads nowhere.
    #[error("{0:?} is no address that can be resolved")]
    Address(String),
    /// The connection was given up here: the member is gone from the membership or has moved, or all is stopping.
    #[error("given up here")]
    Stopped,
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::Frame(Arc::new(error))
    }
}

/// Who this member is to others.
#[derive(Debug)]
struct Identity {
    id: u64,
    cluster: String,
    boot: u64,
}

/// A stream of frames that another member opened.
#[derive(Debug)]
pub struct Stream {
    /// Who opened it.
    pub from: u64,
    /// To it.
    pub writer: Writer,
    /// From it.
    pub reader: Reader,
}

/// Frames to a peer.
pub type Writer = FrameWriter<SendStream>;
/// Frames from a peer; read them with [`wire::FRAME_BYTES`] as the limit.
pub type Reader = FrameReader<RecvStream>;

/// A member that says it leads wants to send a snapshot.
#[derive(Debug)]
pub(crate) struct Offering {
    pub(crate) stream: Stream,
    /// The leader's; it is the sender's own.
    pub(crate) ballot: wire::Ballot,
    /// Whether the sender is in the membership, as far as this member knows.
    pub(crate) is_known: bool,
}

/// Something that another member asks.
#[derive(Debug)]
pub struct PeerRequest {
    /// Who asks.
    pub from: u64,
    /// What.
    pub request: Request,
    /// Takes the answer; dropped, the peer hears [`Refused::NotAvailable`].
    pub reply: oneshot::Sender<Response>,
}

/// What other members bring to this one. Each receiver is one room's; a queue that nobody empties holds its peers up.
#[derive(Debug)]
pub struct Inlets {
    /// For [`Replica`](crate::raft::Replica).
    pub raft: RaftInlets,
    /// Streams of forwarded requests, for the forwarder.
    pub forward: mpsc::Receiver<Stream>,
    /// [`Request::Clock`], [`Request::Status`], [`Request::Digest`] and [`Request::Admin`].
    pub services: mpsc::Receiver<PeerRequest>,
    /// Members that want a checkpoint, with the least index that must be in it.
    pub fetch: mpsc::Receiver<(Stream, u64)>,
}

/// The part of [`Inlets`] that is Raft's.
#[derive(Debug)]
pub struct RaftInlets {
    pub(crate) append: mpsc::Receiver<Stream>,
    pub(crate) snapshot: mpsc::Receiver<Offering>,
    pub(crate) requests: mpsc::Receiver<PeerRequest>,
}

/// The other members. Cheap to clone; the last clone ends the plane.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
    accepting: Arc<Accepting>,
}

struct Accepting {
    listener: Arc<Listener>,
    task: JoinHandle<()>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    me: Arc<Identity>,
    dialer: Arc<Dialer>,
    members: Mutex<Members>,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct Members {
    nodes: BTreeMap<u64, Node>,
    links: BTreeMap<u64, Link>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("me", &self.shared.me).finish_non_exhaustive()
    }
}

/// The link's settings between members: a process that was killed leaves no word behind, so silence must be noticed
/// in the time of a few elections, not in the ten seconds that suit clients.
#[must_use]
pub fn tuning() -> Tuning {
    let mut tuning = Tuning::default();
    tuning.idle_timeout = Duration::from_secs(3);
    tuning.keep_alive = Duration::from_millis(500);
    tuning.handshake = Duration::from_secs(2);
    tuning
}

impl Peers {
    /// Starts to accept other members, and to dial those that [`Peers::set_members`] will name. All its tasks run on
    /// the runtime of this call.
    ///
    /// `listener` and `dialer` are of the peer plane, with this member's certificate and [`tuning`].
    #[must_use]
    pub fn start(id: u64, cluster: &str, listener: Listener, dialer: Dialer) -> (Self, Inlets) {
        let me = Arc::new(Identity { id, cluster: cluster.to_owned(), boot: rand::random() });
        let shared = Arc::new(Shared {
            me,
            dialer: Arc::new(dialer),
            members: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        let (append, append_in) = mpsc::channel(QUEUE);
        let (raft, raft_in) = mpsc::channel(QUEUE);
        let (forward, forward_in) = mpsc::channel(QUEUE);
        let (services, services_in) = mpsc::channel(QUEUE);
        let (snapshot, snapshot_in) = mpsc::channel(QUEUE);
        let (fetch, fetch_in) = mpsc::channel(QUEUE);
        let outlets = accept::Outlets { append, snapshot, fetch, raft, forward, services };
        let listener = Arc::new(listener);
        let task = tokio::spawn(accept::run(Arc::clone(&listener), Arc::clone(&shared), outlets));
        let inlets = Inlets {
            raft: RaftInlets { append: append_in, snapshot: snapshot_in, requests: raft_in },
            forward: forward_in,
            services: services_in,
            fetch: fetch_in,
        };
        (Self { shared, accepting: Arc::new(Accepting { listener, task }) }, inlets)
    }

    /// This member's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.me.id
    }

    /// The dialling end, to give it new credentials.
    #[must_use]
    pub fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    /// The accepting end, to give it new credentials.
    #[must_use]
    pub fn listener(&self) -> &Listener {
        &self.accepting.listener
    }

    /// Who belongs to the cluster, and where: connections to others are made and ended accordingly. Raft calls this
    /// whenever the membership in its log changes.
    pub fn set_members(&self, nodes: BTreeMap<u64, Node>) {
        let shared = &self.shared;
        let mut members = shared.members();
        members.links.retain(|id, link| nodes.get(id).is_some_and(|node| node.peer == link.address()));
        for (id, node) in nodes.iter().filter(|(id, _)| **id != shared.me.id) {
            members.links.entry(*id).or_insert_with(|| shared.link(*id, node.peer.clone()));
        }
        members.nodes = nodes;
    }

    /// Who belongs to the cluster, as [`Peers::set_members`] last said.
    #[must_use]
    pub fn members(&self) -> BTreeMap<u64, Node> {
        self.shared.members().nodes.clone()
    }

    /// Raft is about to talk to a member: it may be one that is only being added.
    pub(crate) fn add(&self, id: u64, node: &Node) {
        let shared = &self.shared;
        let mut members = shared.members();
        if members.links.get(&id).is_none_or(|link| link.address() != node.peer) {
            members.links.insert(id, shared.link(id, node.peer.clone()));
        }
    }

    /// Asks a member one thing. Fails at once when it is known not to be connected.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] past the deadline: what was asked may have been done. [`Error::Refused`] when it does not
    /// answer this. Any other: why it was not reached.
    pub async fn ask(&self, to: u64, request: Request, deadline: Duration) -> Result<Response, Error> {
        let asked = async {
            let (writer, mut reader) = self.open(to, &Open::Ask(request)).await?;
            let frame = reader.next(wire::FRAME_BYTES).await?.ok_or(Error::Ended)?;
            // Held until now: dropping it would tell the peer that nobody wants the answer.
            drop(writer);
            match wire::decode(&frame)? {
                Response::Refused(reason) => Err(Error::Refused(reason)),
                response => Ok(response),
            }
        };
        timeout(deadline, asked).await.unwrap_or(Err(Error::NoAnswer(deadline)))
    }

    /// Opens a stream of requests to a member that leads. What is in the frames is the forwarder's.
    ///
    /// # Errors
    /// Why it was not reached. That it refused shows as the end of the stream.
    pub async fn open_forward(&self, to: u64) -> Result<(Writer, Reader), Error> {
        self.open(to, &Open::Forward).await
    }

    /// Opens a stream of appends.
    pub(crate) async fn open_append(&self, to: u64) -> Result<(Writer, Reader), Error> {
        self.open(to, &Open::Append).await
    }

    /// Opens a stream to send a snapshot on.
    pub(crate) async fn open_snapshot(&self, to: u64, ballot: wire::Ballot) -> Result<(Writer, Reader), Error> {
        self.open(to, &Open::Snapshot(ballot)).await
    }

    /// Opens a stream to fetch a checkpoint on.
    pub(crate) async fn open_fetch(&self, to: u64, at_least: u64) -> Result<(Writer, Reader), Error> {
        self.open(to, &Open::Fetch { at_least }).await
    }

    /// Ends the connection to a member, if there is one: it does not answer, and a new one may.
    pub fn reconnect(&self, to: u64) {
        if let Some(link) = self.shared.members().links.get(&to)
            && let State::Up { connection, .. } = &*link.state().borrow()
        {
            connection.close(CLOSE_STALE, "no answer");
        }
    }

    async fn open(&self, to: u64, purpose: &Open) -> Result<(Writer, Reader), Error> {
        let connection = link::connection(self.shared.state(to)?).await?;
        let (send, receive) = connection.open_bi().await?;
        let (mut writer, reader) = (FrameWriter::new(send), FrameReader::new(receive));
        writer.push(&wire::encode(purpose))?;
        writer.flush().await?;
        Ok((writer, reader))
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing panics half-way through a change of the maps.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, to: u64, address: String) -> Link {
        let _runtime = self.runtime.enter();
        Link::start(Arc::clone(&self.me), Arc::clone(&self.dialer), to, address)
    }

    fn state(&self, to: u64) -> Result<watch::Receiver<State>, Error> {
        self.members().links.get(&to).map(Link::state).ok_or(Error::Unknown(to))
    }

    /// Whether a member belongs to the cluster, as far as this one knows. One that knows nothing yet takes all.
    fn knows(&self, id: u64) -> bool {
        let members = self.members();
        members.nodes.is_empty() || members.nodes.contains_key(&id)
    }

    fn process_is(&self, id: u64, boot: u64) {
        if let Some(link) = self.members().links.get(&id) {
            link.process_is(boot);
        }
    }
}
