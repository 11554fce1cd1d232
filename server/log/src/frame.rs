//! One frame of the log: a header with its own checksum, tied to the frame before it, and a payload.
//!
//! ```text
//!  0 magic u32 │ 4 type u8 │ 5 kind u8 │ 6 zero u16 │ 8 length u32 │ 12 behind u32
//! 16 sequence  │ 24 index  │ 32 term │ 40 committed + 1 │ 48 chain │ 56 payload sum │ 64 header sum    (u64 each)
//! 72 payload
//! ```
//! All little-endian. `chain` is the header sum of the frame before; since the header sum covers the payload
//! sum and the chain, a frame vouches for everything before it. `behind` says how far behind this frame the
//! durable watermark was when it was written: sequence − behind was synced. That is what tells a lost tail
//! (nobody was told about it) from damage to what was promised.
//!
//! Sums are XXH3-64 seeded with the log's salt, so that bytes a user stored cannot pass for a frame, nor can a
//! segment of another log. They find faults, not forgery.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a header.
pub(crate) const HEADER: usize = 72;
const MAGIC: [u8; 4] = *b"CLg1";
/// Heads carry the salt, so they cannot be summed with it.
const HEAD_SEED: u64 = 0x636f_6e63_6c61_7665;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// First of a segment; its payload is a [`crate::segment::Head`].
    Head = 1,
    /// A log entry.
    Entry = 2,
    /// Entries from `index` on are taken back (a conflict with the leader's log).
    Truncate = 3,
    /// Entries up to `index` (with `term`) are in a durable checkpoint.
    Purge = 4,
    /// Nothing but the watermarks, written when the queue is empty.
    Mark = 5,
    /// The segment is complete and its successor, number `index`, exists. Not in the chain: it is written
    /// when the successor's head already is, and has that head's sequence.
    Seal = 6,
}

/// A header, without its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) of: Type,
    /// The record's kind, the caller's business.
    pub(crate) kind: u8,
    /// Payload bytes.
    pub(crate) length: u32,
    /// Number of the frame, across segments, never used twice.
    pub(crate) sequence: u64,
    /// The last frame that was durable when this one was written.
    pub(crate) durable: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Committed index + 1, 0 for none.
    pub(crate) committed: u64,
    /// Header sum of the frame before.
    pub(crate) chain: u64,
}

/// A header that was found whole, with the sums that it carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) header: Header,
    pub(crate) payload_sum: u64,
    pub(crate) sum: u64,
}

/// Why there is no frame at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The file ends inside it.
    Short,
    /// The header is not one.
    Header,
    /// The header is good, the payload is not what it says.
    Payload,
}

impl Header {
    /// Appends the frame to `out`; returns its header sum, the next frame's chain. `length` is taken from
    /// `payload`, which the caller has limited to far below 4 GiB.
    pub(crate) fn encode(&self, salt: u64, payload: &[u8], out: &mut Vec<u8>) -> u64 {
        let seed = seed(self.of, salt);
        let start = out.len();
        let behind = u32::try_from(self.sequence.saturating_sub(self.durable)).unwrap_or(u32::MAX);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.of as u8, self.kind, 0, 0]);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&behind.to_le_bytes());
        let payload_sum = xxh3_64_with_seed(payload, seed);
        for word in [self.sequence, self.index, self.term, self.committed, self.chain, payload_sum] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let sum = xxh3_64_with_seed(&out[start..], seed);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(payload);
        sum
    }
}

/// Reads the header at the start of `bytes` and checks its sum.
pub(crate) fn header(bytes: &[u8], salt: u64) -> Result<Found, Bad> {
    let Some(bytes) = bytes.get(..HEADER) else { return Err(Bad::Short) };
    if bytes[..4] != MAGIC || bytes[6..8] != [0, 0] {
        return Err(Bad::Header);
    }
    let of = match bytes[4] {
        1 => Type::Head,
        2 => Type::Entry,
        3 => Type::Truncate,
        4 => Type::Purge,
        5 => Type::Mark,
        6 => Type::Seal,
        _ => return Err(Bad::Header),
    };
    let sum = word(bytes, 64);
    if sum != xxh3_64_with_seed(&bytes[..64], seed(of, salt)) {
        return Err(Bad::Header);
    }
    let sequence = word(bytes, 16);
    let behind = half(bytes, 12);
    // u32::MAX means "at least": nothing is claimed then.
    let durable = if behind == u32::MAX { 0 } else { sequence.saturating_sub(u64::from(behind)) };
    let header = Header {
        of,
        kind: bytes[5],
        length: half(bytes, 8),
        sequence,
        durable,
        index: word(bytes, 24),
        term: word(bytes, 32),
        committed: word(bytes, 40),
        chain: word(bytes, 48),
    };
    Ok(Found { header, payload_sum: word(bytes, 56), sum })
}

/// Reads the whole frame at the start of `bytes`: the header and its payload, both checked.
pub(crate) fn whole(bytes: &[u8], salt: u64) -> Result<(Found, &[u8]), Bad> {
    let found = header(bytes, salt)?;
    let Some(payload) = bytes.get(HEADER..HEADER + found.header.length as usize) else { return Err(Bad::Short) };
    if xxh3_64_with_seed(payload, seed(found.header.of, salt)) != found.payload_sum {
        return Err(Bad::Payload);
    }
    Ok((found, payload))
}

/// Offsets in `bytes` where a frame could start, lowest first.
pub(crate) fn candidates(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.windows(MAGIC.len()).enumerate().filter(|(_, w)| *w == MAGIC).map(|(at, _)| at)
}

fn seed(of: Type, salt: u64) -> u64 {
    if of == Type::Head { HEAD_SEED } else { salt }
}

/// The little-endian u64 at `at`; the caller has checked the length.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Header {
        Header {
            of: Type::Entry,
            kind: 7,
            length: 5,
            sequence: 9,
            durable: 4,
            index: 3,
            term: 2,
            committed: 1,
            chain: 8,
        }
    }

    #[test]
    fn a_frame_reads_back_and_no_flipped_bit_does() {
        let mut bytes = Vec::new();
        let sum = sample().encode(1, b"hello", &mut bytes);
        let (found, payload) = whole(&bytes, 1).unwrap();
        assert_eq!((found.header, found.sum, payload), (sample(), sum, &b"hello"[..]));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(whole(&bytes, 1).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_frame_of_another_log_is_none() {
        let mut bytes = Vec::new();
        sample().encode(1, b"hello", &mut bytes);
        assert_eq!(whole(&bytes, 2).unwrap_err(), Bad::Header);
    }

    #[test]
    fn a_watermark_too_far_behind_claims_nothing() {
        let mut bytes = Vec::new();
        Header { sequence: 1 << 40, durable: 3, ..sample() }.encode(1, b"", &mut bytes);
        assert_eq!(header(&bytes, 1).unwrap().header.durable, 0);
    }
}
