//! One client's connection: a reader that dispatches, and a writer that keeps replies in the order of the requests.

mod writer;

use std::sync::Arc;
use std::time::Duration;

use conclave_core::query;
use conclave_link::{Connection, FrameReader, FrameWriter, RecvStream, SendStream};
use conclave_protocol::{
    Attached, ClientMessage, Hello, NO_REQUEST, PROTOCOL_VERSION, PushBack, Refusal, ServerMessage, Welcome, codec,
    limits,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::bulk::{self, Desk};
use crate::cluster;
use crate::dispatch::Dispatch;
use crate::member::Shared;
use crate::outbox::{LEAST_ROOM, Out, Outbox};
use crate::watches::ConnectionId;
use writer::Writer;

/// How long a new connection may take until it has said hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long a member that is behind what the client has seen waits to catch up, before it sends the client away.
const BEHIND_WITHIN: Duration = Duration::from_secs(2);
/// The QUIC close code of an orderly end; the reason is in the text.
const CLOSED: u32 = 0;

/// Serves a client until it goes, or is sent away.
pub(crate) async fn serve(shared: Arc<Shared>, desk: Arc<Desk>, connection: Connection) {
    let Ok(Ok((send, receive))) = tokio::time::timeout(HELLO_WITHIN, connection.accept_bi()).await else {
        connection.close(CLOSED, "no stream was opened");
        return;
    };
    let mut reader = FrameReader::new(receive);
    let mut writer = FrameWriter::new(send);
    match greet(&shared, &connection, &mut reader).await {
        Ok((welcome, outbox, receiver)) => {
            let id = shared.next_connection();
            if write(&mut writer, &[ServerMessage::Welcome(Box::new(welcome))]).await.is_err() {
                return;
            }
            // Only who was welcomed may open further streams; they end with the ordered one.
            let side = tokio::spawn(bulk::accept(Arc::clone(&shared), desk, connection.clone()));
            run(shared, id, connection, reader, writer, outbox, receiver).await;
            side.abort();
        }
        Err(message) => {
            drop(write(&mut writer, &[message]).await);
            finish(writer, &connection).await;
        }
    }
}

/// Reads the hello, and finds out whether this client can be served.
async fn greet(
    shared: &Shared,
    connection: &Connection,
    reader: &mut FrameReader<RecvStream>,
) -> Result<(Welcome, Outbox, mpsc::UnboundedReceiver<Out>), ServerMessage> {
    let bad = |why: String| ServerMessage::Goodbye { refusal: Refusal::BadRequest { why } };
    let frame = tokio::time::timeout(HELLO_WITHIN, reader.next(limits::FRAME_BYTES))
        .await
        .map_err(|_| bad("no hello came".to_owned()))?
        .map_err(|error| bad(error.to_string()))?
        .ok_or_else(|| bad("the stream ended before a hello".to_owned()))?;
    let hello = match codec::decode(&frame) {
        Ok(ClientMessage::Hello(hello)) => hello,
        Ok(_) => return Err(bad("the first message must be a hello".to_owned())),
        Err(error) => return Err(bad(error.to_string())),
    };
    let Hello { versions, attach, seen, cluster } = hello;
    if !versions.contains(&PROTOCOL_VERSION) {
        let why = format!("this member speaks version {PROTOCOL_VERSION} of the protocol, the client {versions:?}");
        return Err(bad(why));
    }
    if let Some(expected) = cluster.filter(|cluster| *cluster != shared.cluster) {
        // Zxids, sessions, watches: what the client would go on from means something else here.
        let refusal = Refusal::OtherCluster { expected, actual: shared.cluster.clone() };
        return Err(ServerMessage::Goodbye { refusal });
    }
    let push_back = |why| ServerMessage::PushBack { id: NO_REQUEST, why };
    if !shared.is_ready() {
        return Err(push_back(PushBack::NotReady));
    }
    let reached = tokio::time::timeout(BEHIND_WITHIN, shared.publisher.reached(seen)).await;
    if !matches!(reached, Ok(true)) {
        return Err(push_back(PushBack::Behind { zxid: shared.publisher.published() }));
    }
    let principal: Arc<str> = connection.principal().uri().into();
    let mut session = None;
    let mut attached = None;
    if let Some(attach) = attach {
        let row = shared.store.snapshot().and_then(|snapshot| query::session(&snapshot, attach.session));
        match row {
            // A session that this member has not seen yet is above what the client has seen; one below is over.
            Ok(None) if attach.session.0 > shared.publisher.published().0 => {
                return Err(push_back(PushBack::Behind { zxid: shared.publisher.published() }));
            }
            Ok(None) => {
                let refusal = Refusal::SessionOver { session: attach.session };
                return Err(ServerMessage::Goodbye { refusal });
            }
            Ok(Some(row)) if row.principal != *principal => {
                let why = format!("session {} belongs to another principal", attach.session);
                return Err(bad(why));
            }
            Ok(Some(row)) => {
                session = Some(attach.session);
                attached = Some(Attached { timeout_ms: row.timeout_ms });
            }
            Err(fault) => {
                shared.fault_of(&fault);
                return Err(push_back(PushBack::NotReady));
            }
        }
    }
    let welcome = Welcome {
        version: PROTOCOL_VERSION,
        member: shared.id,
        cluster: shared.cluster.clone(),
        principal: principal.to_string(),
        now_ms: shared.now_ms(),
        zxid: shared.publisher.published(),
        endpoints: cluster::endpoints(shared),
        attached,
    };
    let (outbox, receiver) = Outbox::new(principal, session);
    Ok((welcome, outbox, receiver))
}

/// What a request takes of its connection's room until its reply is written: its size, in KiB.
fn room_for(frame: &[u8]) -> u32 {
    u32::try_from(frame.len() / 1024 + 1).unwrap_or(u32::MAX).max(LEAST_ROOM)
}

async fn take(room: &Semaphore, much: u32) {
    // The semaphore is never closed.
    if let Ok(permit) = room.acquire_many(much).await {
        permit.forget();
    }
}

/// Reads and dispatches, with the writer beside it, until one of them ends.
async fn run(
    shared: Arc<Shared>,
    id: ConnectionId,
    connection: Connection,
    mut reader: FrameReader<RecvStream>,
    writer: FrameWriter<SendStream>,
    outbox: Outbox,
    receiver: mpsc::UnboundedReceiver<Out>,
) {
    let completions = |session| query::completions(&shared.store.snapshot()?, session);
    if let Err(fault) = shared.publisher.connect_and(id, outbox.clone(), completions) {
        shared.fault_of(&fault);
    }
    if let Some(session) = outbox.session() {
        // It may have ended between the hello and now, when nobody knew of this connection.
        match shared.store.snapshot().and_then(|snapshot| query::session(&snapshot, session)) {
            Ok(Some(_)) => {}
            Ok(None) => outbox.send(Out::Last(ServerMessage::Goodbye { refusal: Refusal::SessionOver { session } })),
            Err(fault) => shared.fault_of(&fault),
        }
    }
    let answered = watch::Sender::new(NO_REQUEST);
    let room = Arc::clone(&outbox.room);
    let mut dispatch = Dispatch::new(Arc::clone(&shared), id, outbox.clone(), answered.subscribe());
    let writing = Writer::new(Arc::clone(&shared.publisher), id, &outbox, answered);
    let mut writing = tokio::spawn(writing.run(writer, receiver));
    let mut written = None;
    let end = loop {
        let next = async {
            // The least first: whoever has no room left does not even get his frame read.
            take(&room, LEAST_ROOM).await;
            let frame = reader.next(limits::FRAME_BYTES).await?;
            if let Some(frame) = &frame {
                take(&room, room_for(frame) - LEAST_ROOM).await;
            }
            Ok::<_, conclave_link::FrameError>(frame)
        };
        let frame = tokio::select! {
            biased;
            done = &mut writing => {
                written = Some(done);
                break None;
            }
            frame = next => frame,
            // Also for those who wait for room.
            _ = connection.closed() => break None,
        };
        match frame {
            Ok(Some(frame)) => match codec::decode::<ClientMessage>(&frame) {
                Ok(message) => {
                    if let Err(refusal) = dispatch.message(message, room_for(&frame)) {
                        break Some(refusal);
                    }
                }
                Err(error) => break Some(Refusal::BadRequest { why: error.to_string() }),
            },
            Ok(None) => break None,
            Err(error) => break Some(Refusal::BadRequest { why: error.to_string() }),
        }
    };
    shared.publisher.disconnect(id);
    if let Some(refusal) = end {
        outbox.send(Out::Last(ServerMessage::Goodbye { refusal }));
    }
    // With the last outbox gone the writer comes to the end of its queue.
    drop((outbox, dispatch));
    match last_of(writing, written).await {
        Some(writer) => finish(writer, &connection).await,
        None => connection.close(CLOSED, "the connection was given up"),
    }
}

/// What the writer's task came to, if it has come to an end; else a little later. None when it was ended.
async fn last_of<W>(mut writing: JoinHandle<W>, written: Option<Result<W, JoinError>>) -> Option<W> {
    const LINGER: Duration = Duration::from_secs(2);
    // A task that has told what it came to must not be asked again.
    if let Some(written) = written {
        return written.ok();
    }
    let done = tokio::time::timeout(LINGER, &mut writing).await;
    if done.is_err() {
        writing.abort();
    }
    done.ok()?.ok()
}

/// Lets the client read what was written last before the connection goes.
async fn finish(writer: FrameWriter<SendStream>, connection: &Connection) {
    const LINGER: Duration = Duration::from_secs(1);
    let mut stream = writer.into_inner();
    drop(stream.finish());
    drop(tokio::time::timeout(LINGER, stream.stopped()).await);
    connection.close(CLOSED, "goodbye");
}

async fn write(
    writer: &mut FrameWriter<SendStream>,
    messages: &[ServerMessage],
) -> Result<(), conclave_link::FrameError> {
    for message in messages {
        writer.push_bytes(codec::encode(message).into())?;
    }
    writer.flush().await
}

#[cfg(test)]
mod tests;
