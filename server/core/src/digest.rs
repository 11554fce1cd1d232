//! Hashes: of a row, of the whole state (the sum of its rows' hashes), and of the chain of entries.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::Table;

/// The sum, modulo 2^128, of the hashes of all digested rows: order does not matter, so it is kept up row by row.
/// It detects faults, not forgery. (AdHash, as in ZooKeeper's digest.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u128);

impl Digest {
    /// Takes a row in.
    pub fn add(&mut self, row: RowHash) {
        self.0 = self.0.wrapping_add(row.0);
    }

    /// Takes a row out.
    pub fn remove(&mut self, row: RowHash) {
        self.0 = self.0.wrapping_sub(row.0);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The hash of (table, key, value) that is stored in front of each row and verified at each read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHash(pub u128);

impl RowHash {
    /// Bytes that it takes.
    pub const BYTES: usize = 16;

    /// Of this row.
    #[must_use]
    pub fn of(table: Table, key: &[u8], value: &[u8]) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&[table.number(), u8::try_from(key.len() & 0xff).expect("masked to a byte")]);
        hash.update(key);
        hash.update(value);
        Self(hash.digest128())
    }
}

/// Ties an entry to the one before it: the hash of the payload bytes of the last entry that was not void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Chain(pub u128);

impl Chain {
    /// At zxid 0: the hash of the cluster's id, so that entries of another cluster are void.
    #[must_use]
    pub fn start(cluster: &str) -> Self {
        Self(xxh3_128(cluster.as_bytes()))
    }

    /// After an entry with exactly these payload bytes.
    #[must_use]
    pub fn after(payload: &[u8]) -> Self {
        Self(xxh3_128(payload))
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
