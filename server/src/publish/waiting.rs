//! The requests that wait for their transaction: the only list of them at this member.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use conclave_core::entry::Origin;
use conclave_core::plan::Request;
use conclave_protocol::RequestId;

use crate::watches::ConnectionId;

/// A request that waits.
pub(super) struct Waiting {
    /// Its number at this member: rises in the order of arrival.
    token: u64,
    /// It, to be sent again when the leader changes.
    pub(super) request: Request,
    /// Whose it is.
    pub(super) connection: ConnectionId,
    /// Its number there.
    pub(super) id: RequestId,
}

/// All of them, found by what they come from, by number, and by connection.
#[derive(Default)]
pub(super) struct WaitingList {
    by_origin: HashMap<Origin, Waiting>,
    by_token: BTreeMap<u64, Origin>,
    by_connection: HashMap<ConnectionId, BTreeSet<u64>>,
    last_token: u64,
}

impl WaitingList {
    /// Adds one; none waits under its origin.
    pub(super) fn add(&mut self, connection: ConnectionId, id: RequestId, origin: Origin, request: Request) -> u64 {
        self.last_token += 1;
        let token = self.last_token;
        self.by_token.insert(token, origin.clone());
        self.by_connection.entry(connection).or_default().insert(token);
        self.by_origin.insert(origin, Waiting { token, request, connection, id });
        token
    }

    /// Whether one waits under this origin.
    pub(super) fn has(&self, origin: &Origin) -> bool {
        self.by_origin.contains_key(origin)
    }

    /// Takes the one of this origin out.
    pub(super) fn take(&mut self, origin: &Origin) -> Option<Waiting> {
        let waiting = self.by_origin.remove(origin)?;
        self.by_token.remove(&waiting.token);
        if let Some(tokens) = self.by_connection.get_mut(&waiting.connection) {
            tokens.remove(&waiting.token);
            if tokens.is_empty() {
                self.by_connection.remove(&waiting.connection);
            }
        }
        Some(waiting)
    }

    /// Takes all of a connection's out.
    pub(super) fn remove_all(&mut self, connection: ConnectionId) {
        for token in self.by_connection.remove(&connection).unwrap_or_default() {
            if let Some(origin) = self.by_token.remove(&token) {
                self.by_origin.remove(&origin);
            }
        }
    }

    /// The one with this number.
    pub(super) fn get(&self, token: u64) -> Option<(&Origin, &Waiting)> {
        self.by_origin.get_key_value(self.by_token.get(&token)?)
    }

    /// All, in order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Origin, &Waiting)> {
        self.by_token.iter().filter_map(|(token, origin)| Some((*token, origin, self.by_origin.get(origin)?)))
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.by_origin.len()
    }
}
