//! What the clients of a run have seen, counted while it goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conclave_client::Error as ClientError;
use conclave_testing::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How far back the counter's value is taken from when a connection is found broken: it broke longer ago than that, so
/// nothing up to this value was carried out by a request that was sent again.
const BEFORE: Duration = Duration::from_millis(100);

/// Shared by all clients of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Increments that may begin.
    pub(crate) quota: Semaphore,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) sessions_lost: AtomicU64,
    /// Connections that were found broken with requests on their way, of clients without a session.
    pub(crate) broken: AtomicU64,
    /// Those requests: all are sent again.
    pub(crate) again: AtomicU64,
    /// Those of them that had been carried out before.
    pub(crate) known: AtomicU64,
    shared: Mutex<Values>,
    own: Mutex<BTreeMap<String, Own>>,
    /// Which member the patient clients without a session are connected to.
    peers: Mutex<BTreeMap<String, u64>>,
}

/// The values of the counter that all share.
#[derive(Debug, Default)]
struct Values {
    acknowledged: BTreeSet<u64>,
    /// How many values there were when, the oldest first.
    highest: VecDeque<(Instant, u64)>,
    unknown: u64,
}

/// A counter with one client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    /// Of the unknown ones, those that a read in the session's order has found carried out.
    pub(crate) found: u64,
}

/// What became of an increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Carried out, with this value.
    Acknowledged(u64),
    /// Perhaps carried out.
    Unknown,
    /// Surely not: it is to be tried again.
    Not,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let zero = AtomicU64::default;
        Self {
            quota: Semaphore::new(0),
            acknowledged: zero(),
            unknown: zero(),
            refused: zero(),
            unsent: zero(),
            sessions_lost: zero(),
            broken: zero(),
            again: zero(),
            known: zero(),
            shared: Mutex::default(),
            own: Mutex::default(),
            peers: Mutex::default(),
        }
    }

    /// Increments that have come to their end.
    pub(crate) fn finished(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed) + self.unknown.load(Ordering::Relaxed)
    }

    /// Counts an answer, and says what it means.
    ///
    /// # Errors
    /// When a counter's answer is no number.
    pub(crate) fn judge(&self, answer: Result<&u64, &ClientError>) -> Result<Fate, Error> {
        match answer {
            Ok(value) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                Ok(Fate::Acknowledged(*value))
            }
            Err(error) if error.outcome() == conclave_client::Outcome::Unknown => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                Ok(Fate::Unknown)
            }
            Err(error) => {
                let counter = if error.refusal().is_some() { &self.refused } else { &self.unsent };
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(Fate::Not)
            }
        }
    }

    /// Takes what became of an increment of the shared counter.
    ///
    /// # Errors
    /// When somebody else got the same value: one of both was carried out twice, or not at all.
    pub(crate) fn shared(&self, fate: Fate) -> Result<(), Error> {
        let mut shared = self.values();
        match fate {
            Fate::Acknowledged(value) if shared.acknowledged.insert(value) => {
                let now = Instant::now();
                let (last, highest) = shared.highest.back().copied().unwrap_or((now - BEFORE, 0));
                if now - last >= BEFORE / 10 {
                    shared.highest.push_back((now, highest.max(value)));
                }
                Ok(())
            }
            Fate::Acknowledged(value) => Err(format!("the value {value} was acknowledged twice").into()),
            Fate::Unknown => {
                shared.unknown += 1;
                Ok(())
            }
            Fate::Not => Ok(()),
        }
    }

    /// A value that the shared counter had a moment ago.
    pub(crate) fn value_before(&self) -> u64 {
        let mut shared = self.values();
        let then = Instant::now() - BEFORE;
        while shared.highest.get(1).is_some_and(|(at, _)| *at <= then) {
            shared.highest.pop_front();
        }
        shared.highest.front().filter(|(at, _)| *at <= then).map_or(0, |(_, value)| *value)
    }

    /// Values of the shared counter that were acknowledged, the highest of them, and increments of unknown outcome.
    pub(crate) fn shared_result(&self) -> (u64, u64, u64) {
        let shared = self.values();
        (shared.acknowledged.len() as u64, shared.acknowledged.last().copied().unwrap_or(0), shared.unknown)
    }

    /// Takes what became of an increment of a counter with one client.
    ///
    /// # Errors
    /// When the value is not the next one.
    pub(crate) fn own(&self, path: &str, fate: Fate) -> Result<(), Error> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let one = own.entry(path.to_owned()).or_default();
        match fate {
            Fate::Acknowledged(value) => {
                one.acknowledged += 1;
                let due = one.acknowledged + one.found;
                if value != due {
                    return Err(format!("{path} is at {value}, and {due} is due: {one:?}").into());
                }
            }
            Fate::Unknown => one.unknown += 1,
            Fate::Not => {}
        }
        Ok(())
    }

    /// A read in the session's order has found this value: it tells what became of the unknown ones before it.
    ///
    /// # Errors
    /// When it cannot be.
    pub(crate) fn own_found(&self, path: &str, value: u64) -> Result<(), Error> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let one = own.entry(path.to_owned()).or_default();
        one.found = value
            .checked_sub(one.acknowledged)
            .filter(|found| *found <= one.unknown)
            .ok_or_else(|| format!("{path} is at {value}: increments are lost or done twice: {one:?}"))?;
        Ok(())
    }

    /// A patient client without a session is connected to this member.
    pub(crate) fn connected(&self, client: &str, member: u64) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).insert(client.to_owned(), member);
    }

    /// The members that such clients are connected to, or were last.
    pub(crate) fn peers(&self) -> Vec<u64> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    /// All counters with one client.
    pub(crate) fn own_results(&self) -> BTreeMap<String, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_value_that_two_callers_get_is_an_error() {
        let tally = Tally::new();
        tally.shared(Fate::Acknowledged(1)).unwrap();
        tally.shared(Fate::Acknowledged(3)).unwrap();
        tally.shared(Fate::Unknown).unwrap();
        assert_eq!(tally.shared_result(), (2, 3, 1));
        tally.shared(Fate::Acknowledged(3)).unwrap_err();
    }

    #[test]
    fn a_counter_with_one_client_goes_up_by_one() {
        let tally = Tally::new();
        tally.own("/a", Fate::Acknowledged(1)).unwrap();
        tally.own("/a", Fate::Unknown).unwrap();
        tally.own_found("/a", 2).unwrap();
        tally.own("/a", Fate::Acknowledged(3)).unwrap();
        tally.own("/a", Fate::Acknowledged(5)).unwrap_err();
        tally.own_found("/a", 9).unwrap_err();
    }
}
