//! How entries, memberships and votes are written down: mirrors of our own, so that no file and no frame depends on
//! how openraft lays out its structs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload as Holds;
use openraft::entry::RaftEntry;
use serde::{Deserialize, Serialize};

use super::types::{Entry, EntryPayload, LogId, Membership, Node, Payload, StoredMembership};

/// First byte of an encoded membership.
const FORMAT: u8 = 1;

/// An entry that holds nothing.
pub(crate) const BLANK: u8 = 0;
/// An entry that holds transactions.
pub(crate) const NORMAL: u8 = 1;
/// An entry that holds a membership.
pub(crate) const MEMBERSHIP: u8 = 2;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// An entry of a kind that this version does not know.
    #[error("an entry of kind {0}, which this version does not know")]
    Kind(u8),
    /// A blank entry with bytes in it.
    #[error("a blank entry of {0} bytes")]
    Blank(usize),
    /// A membership that cannot be read.
    #[error("a membership that can't be read: {0}")]
    Membership(String),
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// (term, index) of the entry that said it; none before the first.
    at: Option<(u64, u64)>,
    /// One set of voters, or two while it changes from one to the other.
    voters: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Addresses>,
}

#[derive(Serialize, Deserialize)]
struct Addresses {
    peer: String,
    client: String,
}

/// A membership entry's payload in the log and on the wire.
pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    encode(None, membership)
}

/// Reads [`encode_membership`]'s bytes.
///
/// # Errors
/// [`Error::Membership`].
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, Error> {
    decode(bytes).map(|(_, membership)| membership)
}

/// What the state keeps: the membership, and which entry said it.
pub(crate) fn encode_stored(stored: &StoredMembership) -> Bytes {
    encode(stored.log_id().as_ref(), stored.membership())
}

/// Reads [`encode_stored`]'s bytes; no bytes at all are the state before the first membership.
///
/// # Errors
/// [`Error::Membership`].
pub(crate) fn decode_stored(bytes: &[u8]) -> Result<StoredMembership, Error> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let (at, membership) = decode(bytes)?;
    Ok(StoredMembership::new(at, membership))
}

fn encode(at: Option<&LogId>, membership: &Membership) -> Bytes {
    let stored = Stored {
        at: at.map(|at| (at.leader_id.term, at.index)),
        voters: membership.get_joint_config().clone(),
        nodes: membership
            .nodes()
            .map(|(id, node)| (*id, Addresses { peer: node.peer.clone(), client: node.client.clone() }))
            .collect(),
    };
    let bytes = postcard::to_extend(&stored, vec![FORMAT]);
    bytes.expect("a Vec takes every byte, and memberships have only known lengths").into()
}

fn decode(bytes: &[u8]) -> Result<(Option<LogId>, Membership), Error> {
    let bad = |why: String| Error::Membership(why);
    let rest = match bytes.split_first() {
        Some((&FORMAT, rest)) => rest,
        Some((format, _)) => return Err(bad(format!("it has format {format}, this version reads {FORMAT}"))),
        None => return Err(bad("it is empty".to_owned())),
    };
    let (stored, rest) = postcard::take_from_bytes::<Stored>(rest).map_err(|error| bad(error.to_string()))?;
    if !rest.is_empty() {
        return Err(bad(format!("{} bytes follow it", rest.len())));
    }
    let nodes = stored.nodes.into_iter().map(|(id, at)| (id, Node { peer: at.peer, client: at.client }));
    let membership = Membership::new(stored.voters, nodes.collect::<BTreeMap<_, _>>());
    let membership = membership.map_err(|error| bad(error.to_string()))?;
    Ok((stored.at.map(|(term, index)| LogId::new_term_index(term, index)), membership))
}

/// An entry's kind and its payload's bytes; those of transactions are shared, not copied.
pub(crate) fn to_parts(payload: &EntryPayload) -> (u8, Bytes) {
    match payload {
        Holds::Blank => (BLANK, Bytes::new()),
        Holds::Normal(Payload(bytes)) => (NORMAL, bytes.clone()),
        Holds::Membership(membership) => (MEMBERSHIP, encode_membership(membership)),
    }
}

/// The entry of these parts.
///
/// # Errors
/// Another kind, or a payload that is not of its kind.
pub(crate) fn from_parts(term: u64, index: u64, kind: u8, payload: Bytes) -> Result<Entry, Error> {
    let payload = match kind {
        BLANK if payload.is_empty() => Holds::Blank,
        BLANK => return Err(Error::Blank(payload.len())),
        NORMAL => Holds::Normal(Payload(payload)),
        MEMBERSHIP => Holds::Membership(decode_membership(&payload)?),
        other => return Err(Error::Kind(other)),
    };
    Ok(Entry::new(LogId::new_term_index(term, index), payload))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn membership() -> Membership {
        let node = |n: u64| Node { peer: format!("10.0.0.{n}:7000"), client: format!("10.0.0.{n}:7001") };
        let nodes: BTreeMap<u64, Node> = [1, 2, 3, 9].map(|n| (n, node(n))).into();
        Membership::new(vec![[1, 2].into(), [2, 3].into()], nodes).unwrap()
    }

    #[test]
    fn a_membership_comes_back_as_it_was() {
        let stored = StoredMembership::new(Some(LogId::new_term_index(3, 17)), membership());
        assert_eq!(decode_stored(&encode_stored(&stored)).unwrap(), stored);
        assert_eq!(decode_membership(&encode_membership(&membership())).unwrap(), membership());
        assert_eq!(decode_stored(b"").unwrap(), StoredMembership::default());
    }

    #[test]
    fn every_kind_of_entry_comes_back_as_it_was() {
        for payload in
            [Holds::Blank, Holds::Normal(Payload(Bytes::from_static(b"rows"))), Holds::Membership(membership())]
        {
            let (kind, bytes) = to_parts(&payload);
            let entry = from_parts(4, 5, kind, bytes).unwrap();
            assert_eq!(entry, Entry::new(LogId::new_term_index(4, 5), payload));
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let whole = encode_membership(&membership());
        for length in 0..whole.len() {
            assert!(decode_membership(&whole[..length]).is_err(), "{length} bytes of {} were taken", whole.len());
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(matches!(decode_membership(&longer), Err(Error::Membership(_))));
        assert_eq!(from_parts(1, 1, 7, Bytes::new()).unwrap_err(), Error::Kind(7));
        assert_eq!(from_parts(1, 1, BLANK, Bytes::from_static(b"x")).unwrap_err(), Error::Blank(1));
    }
}
