//! What Raft replicates: transactions that were planned together, as rows, changes and replies.

use bytes::Bytes;
use conclave_protocol::{Nonce, SessionId, Zxid};
use serde::{Deserialize, Serialize};

use crate::Fault;
use crate::digest::Chain;
use crate::row::Recorded;

const FORMAT: u8 = 3;

/// One entry. All or nothing: its rows are coalesced by key, and its digest is the one after its last transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The Raft term of the planner.
    pub term: u64,
    /// The chain that it was planned on.
    pub prev: Chain,
    /// The last transaction before it.
    pub base: Zxid,
    /// Cluster time when it was planned, milliseconds: never less than the stamp before.
    pub time_ms: u64,
    /// Its transactions, with the zxids `base + 1 ..`.
    pub transactions: Vec<Transaction>,
    /// The rows that they write, sorted by (table, key), each key once.
    pub rows: Vec<RowWrite>,
    /// The digest after it.
    pub digest: u128,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Who waits for it.
    pub origin: Origin,
    /// What it changed, in order.
    pub changes: Vec<Recorded>,
    /// CBOR of its [`Outcome`](conclave_protocol::Outcome); empty for the leader's own.
    pub outcome: Bytes,
}

/// Where a transaction comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A session's request.
    Session {
        /// Which session.
        session: SessionId,
        /// Its sequence there.
        sequence: u64,
    },
    /// A one-shot write, or the opening of a session.
    Once {
        /// Whose.
        principal: String,
        /// Which.
        nonce: Nonce,
    },
    /// The end of a session's call that had parked.
    Completion {
        /// Which session.
        session: SessionId,
        /// The call's sequence there.
        sequence: u64,
    },
    /// The leader's own: genesis, stamps, expiry.
    Leader,
}

/// One row to be written, or to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowWrite {
    /// The table's number.
    pub table: u8,
    /// The row's key.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// Its value; none deletes it.
    pub value: Option<Bytes>,
}

impl Entry {
    /// Its payload bytes: what the log holds, what travels, and what the chain hashes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bytes = postcard::to_extend(self, vec![FORMAT]);
        bytes.expect("a Vec takes every byte, and entries have only known lengths").into()
    }

    /// The entry that these bytes are.
    ///
    /// # Errors
    /// A [`Fault`]: the log's checksums were right, so this is damage or a version that we cannot read.
    pub fn decode(payload: &[u8]) -> Result<Self, Fault> {
        let entry: Self = match payload.split_first() {
            Some((&FORMAT, rest)) => match postcard::take_from_bytes(rest) {
                Ok((entry, [])) => entry,
                Ok((_, rest)) => return Err(Fault::Entry(format!("{} bytes follow it", rest.len()))),
                Err(error) => return Err(Fault::Entry(error.to_string())),
            },
            Some((format, _)) => {
                return Err(Fault::Entry(format!("it has format {format}, this version reads {FORMAT}")));
            }
            None => return Err(Fault::Entry("it is empty".to_owned())),
        };
        if entry.base.0.checked_add(entry.transactions.len() as u64).is_none() {
            return Err(Fault::Entry(format!("its zxids begin at {}", entry.base)));
        }
        let place = |row: usize| (entry.rows[row].table, &entry.rows[row].key);
        if let Some(row) = (1..entry.rows.len()).find(|row| place(row - 1) >= place(*row)) {
            return Err(Fault::Entry(format!("its rows are not sorted, each once, at number {row}")));
        }
        Ok(entry)
    }

    /// The last transaction in it.
    #[must_use]
    pub fn last(&self) -> Zxid {
        Zxid(self.base.0.saturating_add(self.transactions.len() as u64))
    }

    /// Its transactions with their zxids.
    pub fn numbered(&self) -> impl Iterator<Item = (Zxid, &Transaction)> {
        (self.base.0.saturating_add(1)..).map(Zxid).zip(&self.transactions)
    }
}
