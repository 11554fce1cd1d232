//! What waits for a connection's writer, and how much of it there may be: requests by their room, events and replies by
//! their bytes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes};
use conclave_protocol::{
    Change, Present, RequestId, ServerMessage, SessionId, WatchId, Zxid, codec,
    limits::{self, Limits},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// What the smallest request takes of a connection's room, in KiB: [`limits::IN_FLIGHT`] of them fill it.
pub(crate) const LEAST_ROOM: u32 = 4;
/// KiB of answers of reads that may wait for one connection; further reads are not carried out until some are written.
const REPLY_ROOM: u32 = 16 << 10;
/// KiB that a read may turn out to take: kept for it until it is known what it takes.
const LARGEST_REPLY: u32 = 4 << 10;
/// Bytes of one event; whoever would be told more in one is to read the present state. Clients take frames of twice
/// that.
pub(crate) const EVENT_BYTES: usize = limits::TRANSACTION_BYTES;
/// What an event and a change take beside their paths and data, bytes, about.
const AROUND: usize = 64;

/// What a connection's writer is told.
#[derive(Debug)]
pub(crate) enum Out {
    /// A request has arrived, and takes so much of its connection's room: replies after its own wait for it.
    Expect(RequestId, u32),
    /// Its reply.
    Fill(RequestId, ServerMessage),
    /// Its reply, and what that takes until it is written.
    Charged(RequestId, ServerMessage, Charge),
    /// At once, out of turn; so much of the room is free again.
    Now(ServerMessage, u32),
    /// At once, out of turn, and what it takes until it is written; so much of the room is free again.
    NowCharged(ServerMessage, u32, Charge),
    /// The end of a parked call of the session, and what that takes until it is written: behind every reply that was
    /// given before, the one that says that it parked among them.
    Completed(ServerMessage, Option<Charge>),
    /// An event for this watch: counted until it is written.
    Event(WatchId, Arc<Body>),
    /// This watch is to read the present state, in place of changes up to here: counted like an event.
    Resync(WatchId, Zxid),
    /// Here an event for this watch was left out, the first since it was told of anything, because too many wait: in its
    /// place the writer says what [`Publisher::caught_up`](crate::publish::Publisher::caught_up) gives for this debt, by
    /// its number, before any reply that is newer than the event.
    Lagging(WatchId, u64),
    /// The last message.
    Last(ServerMessage),
}

/// What a reply takes until it is written.
#[derive(Debug)]
pub(crate) enum Charge {
    /// Of the room for answers.
    Replies(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit),
    /// Of the room for requests, KiB: so that whoever does not take the replies to his writes can't send more.
    Requests(u32),
}

/// What is told of a transaction, without the watch that is told: everybody who is told the same shares it, and its
/// bytes.
#[derive(Debug)]
pub(crate) struct Body {
    zxid: Zxid,
    changes: Vec<Change>,
    present: Vec<Option<Present>>,
    weight: usize,
    /// The bytes that follow the watch's number in the message.
    rest: OnceLock<Option<Bytes>>,
}

/// The bytes of an event before its watch's number: maps of one and of four entries, and their first keys.
const HEAD: &[u8] = b"\xa1\x65event\xa4\x65watch";

impl Body {
    /// Of a transaction; none when it would be too large for a message.
    pub(crate) fn new(zxid: Zxid, changes: Vec<Change>, present: Vec<Option<Present>>) -> Option<Self> {
        let paths: usize = changes.iter().map(|change| change.path.as_str().len() + AROUND).sum();
        let data: usize = present.iter().flatten().map(|present| present.data.len() + 4 * AROUND).sum();
        let weight = AROUND + paths + data;
        (weight <= EVENT_BYTES).then(|| Self { zxid, changes, present, weight, rest: OnceLock::new() })
    }

    /// Of which transaction.
    #[cfg(test)]
    pub(crate) fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// What it tells.
    pub(crate) fn message(&self, watch: WatchId) -> ServerMessage {
        let (changes, present) = (self.changes.clone(), self.present.clone());
        ServerMessage::Event { watch, zxid: self.zxid, changes, present }
    }

    /// The frame for a watch. All but its number is encoded once.
    pub(crate) fn frame(&self, watch: WatchId) -> Bytes {
        let rest = self.rest.get_or_init(|| {
            let whole = codec::encode(&self.message(WatchId(0)));
            // The number 0 is one byte.
            whole.starts_with(HEAD).then(|| Bytes::from(whole).slice(HEAD.len() + 1..))
        });
        let Some(rest) = rest else { return codec::encode(&self.message(watch)).into() };
        let mut frame = Vec::with_capacity(HEAD.len() + 9 + rest.len());
        frame.put_slice(HEAD);
        put_number(&mut frame, watch.0);
        frame.put_slice(rest);
        frame.into()
    }
}

/// A number as CBOR has it: RFC 8949, section 3.1, in the shortest form.
fn put_number(bytes: &mut Vec<u8>, number: u64) {
    match number {
        #[expect(clippy::cast_possible_truncation, reason = "the pattern says so")]
        0..=23 => bytes.put_u8(number as u8),
        #[expect(clippy::cast_possible_truncation, reason = "the pattern says so")]
        24..=0xff => bytes.put_slice(&[0x18, number as u8]),
        0x100..=0xffff => {
            bytes.put_u8(0x19);
            bytes.put_uint(number, 2);
        }
        0x1_0000..=0xffff_ffff => {
            bytes.put_u8(0x1a);
            bytes.put_uint(number, 4);
        }
        _ => {
            bytes.put_u8(0x1b);
            bytes.put_u64(number);
        }
    }
}

/// Events that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    events: AtomicUsize,
    bytes: AtomicUsize,
    written: Notify,
}

/// So many events, of so many bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    events: usize,
    bytes: usize,
}

impl Amount {
    /// One more.
    pub(crate) fn add(&mut self, out: &Out) {
        let bytes = match out {
            Out::Event(_, body) => body.weight,
            Out::Resync(..) => AROUND,
            _ => return,
        };
        self.events += 1;
        self.bytes += bytes;
    }
}

impl Queued {
    fn add(&self, amount: Amount) {
        self.events.fetch_add(amount.events, Ordering::AcqRel);
        self.bytes.fetch_add(amount.bytes, Ordering::AcqRel);
    }

    /// So much is written.
    pub(crate) fn sub(&self, amount: Amount) {
        self.events.fetch_sub(amount.events, Ordering::AcqRel);
        self.bytes.fetch_sub(amount.bytes, Ordering::AcqRel);
        self.written.notify_waiters();
    }

    /// Whether as many events wait as may.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        let reaches = |count: &AtomicUsize, limit: u64| count.load(Ordering::Acquire) as u64 >= limit;
        reaches(&self.events, limits.queued_events) || reaches(&self.bytes, limits.queued_event_bytes)
    }

    /// Waits until there is room for more events: once there was none, until half of it is free, so that whoever fills
    /// it does not come for every few.
    pub(crate) async fn room(&self, limits: &Limits) {
        if !self.is_full(limits) {
            return;
        }
        let (queued_events, queued_event_bytes) = (limits.queued_events / 2, limits.queued_event_bytes / 2);
        let half = Limits { queued_events, queued_event_bytes, ..*limits };
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            // Before the look, so that what is written after it wakes.
            written.as_mut().enable();
            if !self.is_full(&half) {
                return;
            }
            written.await;
        }
    }

    /// How many events wait.
    #[cfg(test)]
    pub(crate) fn events(&self) -> usize {
        self.events.load(Ordering::Acquire)
    }

    /// As if so many events waited.
    #[cfg(test)]
    pub(crate) fn pretend(&self, events: usize) {
        self.events.store(events, Ordering::Release);
    }
}

/// A connection, as those see it who have something to tell it.
#[derive(Clone)]
pub(crate) struct Outbox {
    /// Where its messages go.
    pub(crate) out: mpsc::UnboundedSender<Out>,
    /// Events that are not written yet.
    pub(crate) queued: Arc<Queued>,
    /// The session that it carries; 0: none.
    pub(crate) session: Arc<AtomicU64>,
    /// Who is at its other end: the URI of its certificate.
    pub(crate) principal: Arc<str>,
    /// What its requests may take until they are answered, KiB.
    pub(crate) room: Arc<Semaphore>,
    /// What answers of its reads may take until they are written, KiB.
    replies: Arc<Semaphore>,
}

impl Outbox {
    /// Of a connection of this principal, which carries this session if any; and the end that its writer reads.
    pub(crate) fn new(
        principal: impl Into<Arc<str>>,
        session: Option<SessionId>,
    ) -> (Self, mpsc::UnboundedReceiver<Out>) {
        let (out, written) = mpsc::unbounded_channel();
        let outbox = Self {
            out,
            queued: Arc::default(),
            session: Arc::new(AtomicU64::new(session.map_or(0, |session| session.0))),
            principal: principal.into(),
            room: Arc::new(Semaphore::new(limits::IN_FLIGHT * LEAST_ROOM as usize)),
            replies: Arc::new(Semaphore::new(REPLY_ROOM as usize)),
        };
        (outbox, written)
    }

    /// The connection may be gone: then nobody waits for what is sent.
    pub(crate) fn send(&self, out: Out) {
        drop(self.out.send(out));
    }

    /// The session that it carries.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.session.load(Ordering::Acquire) {
            0 => None,
            session => Some(SessionId(session)),
        }
    }

    /// Tells a watch.
    pub(crate) fn event(&self, watch: WatchId, body: Option<Arc<Body>>, zxid: Zxid) {
        let out = match body {
            Some(body) => Out::Event(watch, body),
            None => Out::Resync(watch, zxid),
        };
        let mut amount = Amount::default();
        amount.add(&out);
        self.queued.add(amount);
        self.send(out);
    }

    /// The reply to a write. What it takes is taken of the room for requests, as far as there is any.
    pub(crate) fn reply(&self, id: RequestId, message: ServerMessage) {
        let kib = match &message {
            ServerMessage::Reply { outcome, .. } => outcome.len() / 1024,
            _ => 0,
        };
        // The request has room of its own until then.
        match self.take_room(kib.saturating_sub(LEAST_ROOM as usize)) {
            None => self.send(Out::Fill(id, message)),
            Some(charge) => self.send(Out::Charged(id, message, charge)),
        }
    }

    /// The end of a parked call of the session. It has no request that waits for it: all that it takes is taken of the room
    /// for requests, as far as there is any. How many there can be at a time, the calls of a session bound.
    pub(crate) fn completed(&self, sequence: u64, zxid: Zxid, outcome: Bytes) {
        let charge = self.take_room(outcome.len() / 1024 + 1);
        self.send(Out::Completed(ServerMessage::Completed { sequence, zxid, outcome }, charge));
    }

    fn take_room(&self, kib: usize) -> Option<Charge> {
        match self.room.forget_permits(kib) {
            0 => None,
            taken => Some(Charge::Requests(u32::try_from(taken).expect("there never were so many"))),
        }
    }

    /// Room for the answer of a read that is about to be carried out, if there is any now.
    pub(crate) fn try_reserve(&self) -> Option<Reserved> {
        Arc::clone(&self.replies).try_acquire_many_owned(LARGEST_REPLY).ok().map(Some).map(Reserved)
    }

    /// The same, once there is some.
    pub(crate) async fn reserve(&self) -> Reserved {
        // The semaphore is never closed.
        Reserved(Arc::clone(&self.replies).acquire_many_owned(LARGEST_REPLY).await.ok())
    }
}

/// Room for an answer.
#[derive(Debug)]
pub(crate) struct Reserved(Option<OwnedSemaphorePermit>);

impl Reserved {
    /// For an answer that has to be given whatever room there is: the one that all others wait for.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// What of it an answer of so many bytes takes; the rest is free again. Small ones are covered by their request.
    pub(crate) fn charge(self, bytes: usize) -> Option<Charge> {
        let mut all = self.0?;
        let taken = all.split((bytes / 1024).min(LARGEST_REPLY as usize))?;
        (taken.num_permits() > 0).then_some(Charge::Replies(taken))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_protocol::{ChangeKind, Path, Stat};

    use super::*;

    fn change(at: &str) -> Change {
        Change { kind: ChangeKind::Data, path: Path::parse(at).unwrap(), version: 3 }
    }

    #[test]
    fn a_frame_is_what_encoding_the_message_gives() {
        let present = Present { data: Bytes::from_static(b"data"), stat: Stat::default() };
        for present in [vec![], vec![Some(present), None]] {
            let body = Body::new(Zxid(70_000), vec![change("/a"), change("/b")], present).unwrap();
            for watch in [0, 1, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
                let watch = WatchId(watch);
                assert_eq!(body.frame(watch), codec::encode(&body.message(watch)), "watch {watch}");
            }
            assert!(body.rest.get().unwrap().is_some(), "each frame was encoded as a whole");
        }
    }

    #[test]
    fn an_event_that_no_message_holds_is_none() {
        let present = |bytes| Some(Present { data: vec![0; bytes].into(), stat: Stat::default() });
        assert!(Body::new(Zxid(1), vec![change("/a")], vec![present(EVENT_BYTES / 2)]).is_some());
        let two = vec![present(EVENT_BYTES / 2), present(EVENT_BYTES / 2)];
        assert!(Body::new(Zxid(1), vec![change("/a"), change("/b")], two).is_none());
    }

    #[tokio::test]
    async fn room_for_events_is_counted_in_events_and_in_bytes() {
        let limits = Limits { queued_events: 3, queued_event_bytes: 1 << 20, ..Limits::default() };
        let (outbox, mut here) = Outbox::new("alice", None);
        let small = || Body::new(Zxid(1), vec![change("/a")], vec![]).map(Arc::new);
        for _ in 0..3 {
            assert!(!outbox.queued.is_full(&limits));
            outbox.event(WatchId(1), small(), Zxid(1));
        }
        assert!(outbox.queued.is_full(&limits));
        let mut written = Amount::default();
        while let Ok(out) = here.try_recv() {
            written.add(&out);
        }
        let room = tokio::spawn({
            let queued = Arc::clone(&outbox.queued);
            async move { queued.room(&limits).await }
        });
        outbox.queued.sub(written);
        room.await.unwrap();
        let data = Present { data: vec![0; 1 << 20].into(), stat: Stat::default() };
        outbox.event(WatchId(1), Body::new(Zxid(1), vec![change("/a")], vec![Some(data)]).map(Arc::new), Zxid(1));
        assert!(outbox.queued.is_full(&limits));
    }

    #[tokio::test]
    async fn answers_that_nobody_takes_leave_no_room_for_further_reads() {
        let (outbox, _here) = Outbox::new("alice", None);
        let mut charges = Vec::new();
        while let Some(reserved) = outbox.try_reserve() {
            charges.push(reserved.charge(1 << 20).unwrap());
        }
        assert_eq!(charges.len(), 13, "16 MiB of room, of which a read needs 4 to begin with");
        charges.truncate(12);
        drop(outbox.reserve().await);
        assert!(outbox.try_reserve().unwrap().charge(100).is_none(), "what is small takes nothing");
    }

    #[test]
    fn a_large_reply_to_a_write_takes_of_the_room_for_requests() {
        let (outbox, mut here) = Outbox::new("alice", None);
        let before = outbox.room.available_permits();
        let reply = |bytes: usize| ServerMessage::Reply { id: 1, zxid: Zxid(1), outcome: vec![0; bytes].into() };
        outbox.reply(1, reply(100));
        assert!(matches!(here.try_recv(), Ok(Out::Fill(1, _))));
        outbox.reply(1, reply(1 << 20));
        let Ok(Out::Charged(1, _, Charge::Requests(taken))) = here.try_recv() else { panic!("not charged") };
        assert_eq!(outbox.room.available_permits() + taken as usize, before);
        assert_eq!(taken, 1_020);
    }
}
