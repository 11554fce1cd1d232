//! Hashes: of a row, of the whole state (the sum of its rows' hashes), and of the chain of entries.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::Table;

/// Rows up to this many bytes are hashed in one piece.
const SHORT: usize = 512;

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
        // The key's length is hashed too, or bytes could move between key and value. Keys end at 511 bytes.
        let [low, high, ..] = key.len().to_le_bytes();
        let head = [table.number(), low, high];
        let bytes = head.len() + key.len() + value.len();
        if bytes > SHORT {
            let mut hash = Xxh3::new();
            hash.update(&head);
            hash.update(key);
            hash.update(value);
            return Self(hash.digest128());
        }
        // The same hash in one piece: the streaming state costs more to set up than a short row to hash.
        let mut row = [0; SHORT];
        row[..3].copy_from_slice(&head);
        row[3..3 + key.len()].copy_from_slice(key);
        row[3 + key.len()..bytes].copy_from_slice(value);
        Self(xxh3_128(&row[..bytes]))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_hashes_the_same_in_one_piece_and_streamed() {
        for bytes in [0, 1, 100, 500, 501, 502, 503, 5_000] {
            let value = vec![7; bytes];
            let mut hash = Xxh3::new();
            hash.update(&[Table::Data.number(), 8, 0]);
            hash.update(b"01234567");
            hash.update(&value);
            assert_eq!(RowHash::of(Table::Data, b"01234567", &value), RowHash(hash.digest128()), "{bytes} bytes");
        }
    }

    #[test]
    fn table_key_and_value_each_count_and_so_does_where_the_key_ends() {
        let hash = RowHash::of(Table::Child, b"ab", b"cd");
        assert_ne!(hash, RowHash::of(Table::Data, b"ab", b"cd"));
        assert_ne!(hash, RowHash::of(Table::Child, b"a", b"bcd"));
        assert_ne!(hash, RowHash::of(Table::Child, b"ab", b"ce"));
        assert_ne!(RowHash::of(Table::Child, &[1; 260], b""), RowHash::of(Table::Child, &[1; 4], &[1; 256]));
    }

    #[test]
    fn the_sum_of_rows_does_not_depend_on_their_order_and_forgets_what_is_removed() {
        let rows = [b"a", b"b", b"c"].map(|key| RowHash::of(Table::Data, key, b"x"));
        let mut forth = Digest::default();
        let mut back = Digest::default();
        rows.iter().for_each(|row| forth.add(*row));
        rows.iter().rev().for_each(|row| back.add(*row));
        assert_eq!(forth, back);
        assert_ne!(forth, Digest::default());
        rows.iter().for_each(|row| forth.remove(*row));
        assert_eq!(forth, Digest::default());
    }
}
