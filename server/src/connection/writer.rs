//! A connection's writer: replies in the order of the requests, events before replies that are newer, everything counted
//! until it is written.

use std::collections::VecDeque;
use std::sync::Arc;

use conclave_link::{FrameError, FrameWriter};
use conclave_protocol::{RequestId, ServerMessage, codec};
use tokio::io::AsyncWrite;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::outbox::{Amount, Charge, Out, Outbox, Queued};
use crate::publish::Publisher;
use crate::watches::ConnectionId;

/// Bytes of frames that are made before they are handed to the stream: a client that takes nothing holds up no more.
const FILL: usize = 256 << 10;

/// A request that is to be answered in turn.
struct Slot {
    id: RequestId,
    /// What it takes of the room.
    room: u32,
    /// Its reply, once it is there, and what that takes.
    reply: Option<Told>,
    /// Ends of parked calls that are told behind it.
    behind: Vec<Told>,
}

/// A message, and what it takes until it is written.
type Told = (ServerMessage, Option<Charge>);

/// The connection's writer.
pub(super) struct Writer {
    publisher: Arc<Publisher>,
    id: ConnectionId,
    queued: Arc<Queued>,
    /// Requests in the order of their arrival.
    slots: VecDeque<Slot>,
    answered: watch::Sender<RequestId>,
    room: Arc<Semaphore>,
    /// What was pushed and is not written yet: events, room, replies.
    events: Amount,
    freed: usize,
    charges: Vec<Charge>,
}

impl Writer {
    /// Of this connection; tells which request was answered last.
    pub(super) fn new(
        publisher: Arc<Publisher>,
        id: ConnectionId,
        outbox: &Outbox,
        answered: watch::Sender<RequestId>,
    ) -> Self {
        Self {
            publisher,
            id,
            queued: Arc::clone(&outbox.queued),
            slots: VecDeque::new(),
            answered,
            room: Arc::clone(&outbox.room),
            events: Amount::default(),
            freed: 0,
            charges: Vec::new(),
        }
    }

    /// Writes until the last message, the end of the queue, or the end of the stream; gives the stream back.
    pub(super) async fn run<W: AsyncWrite + Unpin>(
        mut self,
        mut writer: FrameWriter<W>,
        mut receiver: mpsc::UnboundedReceiver<Out>,
    ) -> FrameWriter<W> {
        let mut batch = Vec::new();
        loop {
            if receiver.recv_many(&mut batch, 256).await == 0 {
                return writer;
            }
            let mut last = false;
            for out in batch.drain(..) {
                last = matches!(out, Out::Last(_));
                // A message that can't be sent is missed by the client: the connection ends with it.
                last |= self.take(out, &mut writer).is_err();
                if last {
                    break;
                }
                if writer.pending() >= FILL && self.flush(&mut writer).await.is_err() {
                    return writer;
                }
            }
            if self.flush(&mut writer).await.is_err() || last {
                return writer;
            }
        }
    }

    /// Hands what was pushed to the stream; then it does not count any more.
    async fn flush<W: AsyncWrite + Unpin>(&mut self, writer: &mut FrameWriter<W>) -> Result<(), FrameError> {
        writer.flush().await?;
        self.queued.sub(std::mem::take(&mut self.events));
        for charge in self.charges.drain(..) {
            match charge {
                Charge::Requests(room) => self.freed += room as usize,
                Charge::Replies(_) => {}
            }
        }
        self.room.add_permits(std::mem::take(&mut self.freed));
        Ok(())
    }

    fn take<W: AsyncWrite + Unpin>(&mut self, out: Out, writer: &mut FrameWriter<W>) -> Result<(), FrameError> {
        self.events.add(&out);
        match out {
            Out::Expect(id, room) => {
                self.slots.push_back(Slot { id, room, reply: None, behind: Vec::new() });
                Ok(())
            }
            Out::Fill(id, message) => self.fill(id, (message, None), writer),
            Out::Charged(id, message, charge) => self.fill(id, (message, Some(charge)), writer),
            Out::Now(message, room) => {
                self.freed += room as usize;
                push(writer, &message)
            }
            Out::NowCharged(message, room, charge) => {
                self.freed += room as usize;
                self.charges.push(charge);
                push(writer, &message)
            }
            Out::Completed(message, charge) => self.completed((message, charge), writer),
            Out::Event(watch, body) => writer.push_bytes(body.frame(watch)),
            Out::Resync(watch, zxid) => push(writer, &ServerMessage::Resync { watch, zxid }),
            Out::Lagging(watch, debt) => match self.publisher.caught_up(self.id, watch, debt) {
                Some(message) => push(writer, &message),
                None => Ok(()),
            },
            Out::Last(message) => push(writer, &message),
        }
    }

    /// A parked call has ended. Among the replies that wait for earlier ones may be the one that says that it parked: it is
    /// told behind the last of them.
    fn completed<W: AsyncWrite + Unpin>(&mut self, told: Told, writer: &mut FrameWriter<W>) -> Result<(), FrameError> {
        if let Some(slot) = self.slots.iter_mut().rev().find(|slot| slot.reply.is_some()) {
            slot.behind.push(told);
            return Ok(());
        }
        self.charges.extend(told.1);
        push(writer, &told.0)
    }

    /// A reply is there; writes those at the front, as far as they are.
    fn fill<W: AsyncWrite + Unpin>(
        &mut self,
        id: RequestId,
        reply: Told,
        writer: &mut FrameWriter<W>,
    ) -> Result<(), FrameError> {
        // Request numbers rise.
        match self.slots.binary_search_by_key(&id, |slot| slot.id) {
            Ok(at) => self.slots[at].reply = Some(reply),
            // It was answered before: what this one takes is free again.
            Err(_) => self.charges.extend(reply.1),
        }
        let mut answered = None;
        while let Some(Slot { reply: Some(_), .. }) = self.slots.front() {
            if let Some(Slot { id, room, reply: Some(reply), behind }) = self.slots.pop_front() {
                self.freed += room as usize;
                for (message, charge) in std::iter::once(reply).chain(behind) {
                    self.charges.extend(charge);
                    push(writer, &message)?;
                }
                answered = Some(id);
            }
        }
        if let Some(id) = answered {
            self.answered.send_replace(id);
        }
        Ok(())
    }
}

fn push<W: AsyncWrite + Unpin>(writer: &mut FrameWriter<W>, message: &ServerMessage) -> Result<(), FrameError> {
    writer.push_bytes(codec::encode(message).into())
}
