//! What handles read without asking the driver: state, lease, the last zxid.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use conclave_protocol::{WatchId, Zxid};
use tokio::sync::watch;

use super::sent::{Counts, Sent};
use crate::client::Peer;
use crate::clock::Moment;
use crate::error::Error;
use crate::session::State;
use crate::wire::Opener;

/// Written by the driver, read by all handles.
pub(crate) struct Shared {
    state: watch::Sender<State>,
    zxid: AtomicU64,
    /// When the lease ends, in nanoseconds of [`Moment`]; 0 without a session.
    lease_ns: AtomicU64,
    watches: AtomicU64,
    peer: Mutex<Option<Peer>>,
    /// Opens side streams, while there is a connection.
    opener: watch::Sender<Option<Opener>>,
    /// Why the client came to an end by itself.
    end: OnceLock<Error>,
    sent: Counts,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(State::Suspended),
            zxid: AtomicU64::new(0),
            lease_ns: AtomicU64::new(0),
            watches: AtomicU64::new(1),
            peer: Mutex::new(None),
            opener: watch::Sender::new(None),
            end: OnceLock::new(),
            sent: Counts::default(),
        }
    }
}

impl Shared {
    pub(crate) fn publish(&self, state: State, seen: Zxid, lease: Option<Moment>) {
        self.zxid.store(seen.0, Ordering::Release);
        let lease = lease.map_or(0, |at| u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX));
        self.lease_ns.store(lease, Ordering::Release);
        self.state.send_if_modified(|old| std::mem::replace(old, state) != state);
    }

    pub(crate) fn connected_to(&self, peer: Peer) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
    }

    pub(crate) fn peer(&self) -> Option<Peer> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The client has come to an end by itself, because of this.
    pub(crate) fn ended(&self, error: Error) {
        // The first reason stays.
        let _ = self.end.set(error);
    }

    pub(crate) fn end(&self) -> Option<Error> {
        self.end.get().cloned()
    }

    pub(crate) fn has_session(&self) -> bool {
        self.lease().is_some()
    }

    pub(crate) fn may_open(&self, opener: Option<Opener>) {
        self.opener.send_replace(opener);
    }

    pub(crate) fn opener(&self) -> watch::Receiver<Option<Opener>> {
        self.opener.subscribe()
    }

    /// The state, as the clock sees it now: the driver may not have run since the process was stopped.
    pub(crate) fn state(&self) -> State {
        let told = *self.state.borrow();
        match self.lease() {
            Some(ends) if ends <= Moment::now() => State::Lost,
            _ => told,
        }
    }

    pub(crate) fn states(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(crate) fn time_left(&self) -> Duration {
        self.lease().map_or(Duration::ZERO, |ends| ends.since(Moment::now()))
    }

    pub(crate) fn zxid(&self) -> Zxid {
        Zxid(self.zxid.load(Ordering::Acquire))
    }

    pub(crate) fn next_watch(&self) -> WatchId {
        WatchId(self.watches.fetch_add(1, Ordering::Relaxed))
    }

    /// Something of this kind is about to be sent.
    pub(crate) fn sends(&self, kind: Sent) {
        self.sent.add(kind);
    }

    pub(crate) fn sent(&self, kind: Sent) -> u64 {
        self.sent.of(kind)
    }

    fn lease(&self) -> Option<Moment> {
        match self.lease_ns.load(Ordering::Acquire) {
            0 => None,
            ns => Some(Moment(Duration::from_nanos(ns))),
        }
    }
}
