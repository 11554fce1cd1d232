//! The accepting side: who may come in, and where each stream of theirs goes.

use std::sync::Arc;
use std::time::Duration;

use conclave_link::{Connection, FrameReader, FrameWriter, Listener, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::wire::{self, Hello, Open, Refused, Request, Response, Welcome};
use super::{CLOSE_REFUSED, Error, Offering, PeerRequest, Shared, Stream};

/// How long a peer may take over the first frame of a connection or a stream.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// The greatest first frame: requests are small.
const FIRST_BYTES: usize = 64 << 10;

/// Where the streams of others go.
#[derive(Clone)]
pub(super) struct Outlets {
    /// Streams of appends.
    pub(super) append: mpsc::Sender<Stream>,
    /// Streams of snapshots that are to be installed.
    pub(super) snapshot: mpsc::Sender<Offering>,
    /// Streams of members that want a checkpoint, with the least index that must be in it.
    pub(super) fetch: mpsc::Sender<(Stream, u64)>,
    /// Raft's requests, and read indices.
    pub(super) raft: mpsc::Sender<PeerRequest>,
    /// Streams of forwarded requests.
    pub(super) forward: mpsc::Sender<Stream>,
    /// All other requests.
    pub(super) services: mpsc::Sender<PeerRequest>,
}

pub(super) async fn run(listener: Arc<Listener>, shared: Arc<Shared>, outlets: Outlets) {
    while let Some(connection) = listener.accept().await {
        let (shared, outlets) = (Arc::clone(&shared), outlets.clone());
        tokio::spawn(async move {
            let address = connection.remote_address();
            if let Err(error) = serve(&connection, &shared, &outlets).await {
                tracing::info!(peer = %connection.principal(), %address, %error, "peer connection ended");
            }
        });
    }
}

async fn serve(connection: &Connection, shared: &Arc<Shared>, outlets: &Outlets) -> Result<(), Error> {
    let from = timeout(FIRST_FRAME, greet(connection, shared)).await.map_err(|_| Error::NoAnswer(FIRST_FRAME))??;
    loop {
        let (send, receive) = connection.accept_bi().await?;
        let (shared, outlets) = (Arc::clone(shared), outlets.clone());
        tokio::spawn(async move {
            let opened = timeout(FIRST_FRAME, open(from, send, receive, &shared, &outlets)).await;
            if let Err(error) = opened.unwrap_or(Err(Error::NoAnswer(FIRST_FRAME))) {
                tracing::debug!(from, %error, "peer stream ended");
            }
        });
    }
}

/// Reads who it is, and says yes or no.
async fn greet(connection: &Connection, shared: &Shared) -> Result<u64, Error> {
    let (send, receive) = connection.accept_bi().await?;
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
    let frame = reader.next(FIRST_BYTES).await?.ok_or(Error::Ended)?;
    let checked = wire::decode::<Hello>(&frame)
        .map_err(|malformed| Refused::Malformed(malformed.to_string()))
        .and_then(|hello| check(connection, shared, hello));
    match checked {
        Ok(hello) => {
            writer.push(&wire::encode(&Welcome::Yes { boot: shared.me.boot }))?;
            writer.flush().await?;
            shared.process_is(hello.from, hello.boot);
            Ok(hello.from)
        }
        Err(reason) => {
            tracing::warn!(peer = %connection.principal(), address = %connection.remote_address(), %reason,
                "a peer was refused");
            writer.push(&wire::encode(&Welcome::No(reason.clone())))?;
            writer.flush().await?;
            let _ = writer.stream_mut().finish();
            // The close would overtake the answer; the dialler drops its end when it has read it.
            let _ = timeout(FIRST_FRAME, connection.closed()).await;
            connection.close(CLOSE_REFUSED, &reason.to_string());
            Err(Error::Refused(reason))
        }
    }
}

fn check(connection: &Connection, shared: &Shared, hello: Hello) -> Result<Hello, Refused> {
    let me = &shared.me;
    // The listener admits members only; a client that came this far has no id.
    let certificate = connection.principal().member_id().unwrap_or_default();
    if hello.cluster != me.cluster {
        return Err(Refused::OtherCluster(me.cluster.clone()));
    }
    if hello.from != certificate || certificate == 0 {
        return Err(Refused::OtherId { said: hello.from, certificate });
    }
    if hello.to != me.id {
        return Err(Refused::OtherTarget(me.id));
    }
    Ok(hello)
}

/// Reads what a stream is for, and hands it on.
async fn open(
    from: u64,
    send: SendStream,
    receive: RecvStream,
    shared: &Shared,
    outlets: &Outlets,
) -> Result<(), Error> {
    let mut reader = FrameReader::new(receive);
    let writer = FrameWriter::new(send);
    let frame = reader.next(FIRST_BYTES).await?.ok_or(Error::Ended)?;
    match wire::decode(&frame)? {
        Open::Append => {
            outlets.append.send(Stream { from, writer, reader }).await.map_err(|_| Error::Stopped)?;
        }
        // A leader speaks for itself alone.
        Open::Snapshot(ballot) if ballot.member != from => {
            return Err(Error::Refused(Refused::NotYours(ballot.member)));
        }
        Open::Snapshot(ballot) => {
            let offering = Offering {
                stream: Stream { from, writer, reader },
                ballot,
                // Raft knows more: whether this member has been away, and follows somebody who was added meanwhile.
                is_known: shared.knows(from),
            };
            outlets.snapshot.send(offering).await.map_err(|_| Error::Stopped)?;
        }
        Open::Fetch { .. } | Open::Forward if !shared.knows(from) => return Err(Error::Refused(Refused::NotAMember)),
        Open::Forward => {
            outlets.forward.send(Stream { from, writer, reader }).await.map_err(|_| Error::Stopped)?;
        }
        Open::Fetch { at_least } => {
            let stream = Stream { from, writer, reader };
            outlets.fetch.send((stream, at_least)).await.map_err(|_| Error::Stopped)?;
        }
        Open::Ask(request) => {
            let response = answer(from, request, shared, outlets).await;
            reply(writer, &response).await?;
        }
    }
    Ok(())
}

async fn reply(mut writer: FrameWriter<SendStream>, response: &Response) -> Result<(), Error> {
    writer.push(&wire::encode(response))?;
    writer.flush().await?;
    // Fails only where the stream was reset: nobody waits for the answer then.
    let _ = writer.stream_mut().finish();
    Ok(())
}

async fn answer(from: u64, request: Request, shared: &Shared, outlets: &Outlets) -> Response {
    // A candidate, or a leader that hands over, speaks for itself alone.
    let speaks_for = match &request {
        Request::Vote(candidacy) | Request::PreVote(candidacy) => Some(candidacy.ballot.member),
        Request::Handover(handover) => Some(handover.ballot.member),
        Request::ReadIndex
        | Request::Clock
        | Request::Status
        | Request::Digest { .. }
        | Request::Admin(_)
        | Request::Ready(_)
        | Request::PluginStats(_)
        | Request::PluginLog { .. } => None,
    };
    let outlet = match speaks_for {
        Some(member) if member != from => return Response::Refused(Refused::NotYours(member)),
        // Raft's own messages are taken from every member of the cluster that has a certificate: a member that was
        // away may not know yet who was added meanwhile, and would refuse the only candidates there are (Raft
        // dissertation, 4.1). Pre-vote and the leader's lease keep removed ones from doing harm.
        Some(_) => &outlets.raft,
        None if !shared.knows(from) => return Response::Refused(Refused::NotAMember),
        None if matches!(request, Request::ReadIndex) => &outlets.raft,
        None => &outlets.services,
    };
    let (reply, answered) = oneshot::channel();
    match outlet.send(PeerRequest { from, request, reply }).await {
        Ok(()) => answered.await.unwrap_or(Response::Refused(Refused::NotAvailable)),
        Err(_) => Response::Refused(Refused::NotAvailable),
    }
}
