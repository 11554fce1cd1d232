//! The bytes of a checkpoint: a header, compressed blocks of rows, a trailer; each tied to the one before by its hash.
//!
//! ```text
//! header   magic (8) · format (4) · bytes of the body (4) · body: postcard of `Header` · hash (16)
//! block    number, from 0 (4) · raw bytes (4) · stored bytes (4) · hash (16) · content
//! trailer  ffffffff (4) · rows (8) · raw bytes (8) · digest (16) · hash of the last block (16) · id (16)
//! ```
//! All numbers are little-endian; a hash is xxh3-128. A block's is of the hash before it (the header's for the first),
//! of the three numbers and of the content, so that no block can be changed, cut out, or put in another's place. The id
//! is the hash of the trailer before it: two files of the same id are the same byte for byte. It detects faults, not
//! forgery. Content is an LZ4 block, or the raw rows themselves where that would not be smaller. A row is its table (1),
//! bytes of its key (2), bytes of its value (4), key, value; rows are sorted by table and key, each once.

#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

use conclave_core::Table;
use conclave_core::apply::Local;
use conclave_core::digest::{Digest, RowHash};
use conclave_protocol::{Zxid, limits};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The format that this version writes, and the only one that it reads.
pub(crate) const FORMAT: u32 = 3;

const MAGIC: &[u8; 8] = b"cncl-cpt";
/// Bytes before the header's body.
const HEAD_BYTES: usize = 16;
const HASH_BYTES: usize = 16;
/// A header holds a cluster's id and its membership: this many bytes are plenty.
const BODY_BYTES: usize = 1 << 20;
/// A block ends with the row that reaches this size: large enough to compress well, small enough for caches.
const BLOCK_BYTES: usize = 256 << 10;
/// The longest key that LMDB takes.
const KEY_BYTES: usize = 511;
/// No value is longer: the entry that wrote it had to fit a frame between members.
pub(crate) const VALUE_BYTES: usize = limits::PEER_FRAME_BYTES;
/// Bytes before a row's key.
const ROW_HEAD_BYTES: usize = 7;
/// No block has more raw bytes.
const RAW_BYTES: usize = BLOCK_BYTES + ROW_HEAD_BYTES + KEY_BYTES + VALUE_BYTES;
/// LZ4 can't do better than this, so that a file's size bounds what reading it allocates.
const BEST_RATIO: usize = 255;
const BLOCK_HEAD_BYTES: usize = 12;
/// In place of a block's number.
const LAST: u32 = u32::MAX;
pub(crate) const TRAILER_BYTES: usize = 4 + 8 + 8 + 3 * HASH_BYTES;

/// What a checkpoint says of itself first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Whose tree it is.
    pub(crate) cluster: String,
    /// Chain, digest, last applied entry, membership.
    pub(crate) local: Local,
    /// The last transaction.
    pub(crate) zxid: Zxid,
    /// The time of the last stamp, milliseconds since 1970.
    pub(crate) time_ms: u64,
}

/// What it says of itself last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) rows: u64,
    /// Of all blocks, before compression.
    pub(crate) raw_bytes: u64,
    /// The sum over digested rows.
    pub(crate) digest: Digest,
    last: u128,
    pub(crate) id: u128,
}

/// Why bytes are no good checkpoint.
#[derive(Debug)]
pub(crate) enum Wrong {
    Io(io::Error),
    Damaged(String),
    OtherFormat(u32),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early".to_owned()),
            _ => Self::Io(error),
        }
    }
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Damaged(why.into()))
}

/// Writes one.
#[derive(Debug)]
pub(crate) struct Encoder<W> {
    out: W,
    raw: Vec<u8>,
    stored: Vec<u8>,
    number: u32,
    trailer: Trailer,
}

impl<W: Write> Encoder<W> {
    pub(crate) fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let mut bytes =
            postcard::to_extend(header, bytes).expect("a Vec takes every byte, and fields have known lengths");
        let body = bytes.len() - HEAD_BYTES;
        if body > BODY_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the membership is too large for a header"));
        }
        bytes[12..16].copy_from_slice(&length(body));
        let last = xxh3_128(&bytes);
        out.write_all(&bytes)?;
        out.write_all(&last.to_le_bytes())?;
        let trailer = Trailer { rows: 0, raw_bytes: 0, digest: Digest::default(), last, id: 0 };
        // Room for a block and a row beyond it: no reallocation while rows are copied.
        let raw = Vec::with_capacity(BLOCK_BYTES + ROW_HEAD_BYTES + KEY_BYTES + limits::DATA_BYTES);
        Ok(Self { out, raw, stored: Vec::new(), number: 0, trailer })
    }

    /// Takes the next row, which is verified; tells whether it finished a block. Keys and values are within bounds.
    pub(crate) fn row(&mut self, table: Table, key: &[u8], value: &[u8], hash: RowHash) -> io::Result<bool> {
        debug_assert!(key.len() <= KEY_BYTES && value.len() <= VALUE_BYTES, "checked by the caller");
        let [low, high, ..] = key.len().to_le_bytes();
        self.raw.extend_from_slice(&[table.number(), low, high]);
        self.raw.extend_from_slice(&length(value.len()));
        self.raw.extend_from_slice(key);
        self.raw.extend_from_slice(value);
        self.trailer.rows += 1;
        if table.is_digested() {
            self.trailer.digest.add(hash);
        }
        if self.raw.len() < BLOCK_BYTES {
            return Ok(false);
        }
        self.block()?;
        Ok(true)
    }

    /// So far: `raw_bytes` counts the blocks that are written.
    pub(crate) fn so_far(&self) -> &Trailer {
        &self.trailer
    }

    /// Writes the last block, and the trailer.
    pub(crate) fn finish(mut self) -> io::Result<(W, Trailer)> {
        if !self.raw.is_empty() {
            self.block()?;
        }
        let mut bytes = self.trailer.unsigned();
        self.trailer.id = xxh3_128(&bytes);
        bytes.extend_from_slice(&self.trailer.id.to_le_bytes());
        self.out.write_all(&bytes)?;
        Ok((self.out, self.trailer))
    }

    fn block(&mut self) -> io::Result<()> {
        self.stored.resize(lz4_flex::block::get_maximum_output_size(self.raw.len()), 0);
        let stored = lz4_flex::block::compress_into(&self.raw, &mut self.stored).map_err(io::Error::other)?;
        let content = if stored < self.raw.len() { &self.stored[..stored] } else { &self.raw };
        let mut head = [0; BLOCK_HEAD_BYTES];
        head[..4].copy_from_slice(&self.number.to_le_bytes());
        head[4..8].copy_from_slice(&length(self.raw.len()));
        head[8..].copy_from_slice(&length(content.len()));
        self.trailer.last = block_hash(self.trailer.last, &head, content);
        self.out.write_all(&head)?;
        self.out.write_all(&self.trailer.last.to_le_bytes())?;
        self.out.write_all(content)?;
        self.trailer.raw_bytes += self.raw.len() as u64;
        self.number += 1;
        self.raw.clear();
        Ok(())
    }
}

impl Trailer {
    fn unsigned(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.extend_from_slice(&LAST.to_le_bytes());
        bytes.extend_from_slice(&self.rows.to_le_bytes());
        bytes.extend_from_slice(&self.raw_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.digest.0.to_le_bytes());
        bytes.extend_from_slice(&self.last.to_le_bytes());
        bytes
    }

    /// Out of the last bytes of a file.
    pub(crate) fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, Wrong> {
        let (signed, id) = bytes.split_at(TRAILER_BYTES - HASH_BYTES);
        let id = u128_of(id);
        if xxh3_128(signed) != id {
            return wrong("its trailer is damaged");
        }
        if signed[..4] != LAST.to_le_bytes() {
            return wrong("its trailer is none");
        }
        let (rows, raw_bytes) = (u64_of(&signed[4..12]), u64_of(&signed[12..20]));
        Ok(Self { rows, raw_bytes, digest: Digest(u128_of(&signed[20..36])), last: u128_of(&signed[36..52]), id })
    }
}

/// Reads one, and believes nothing of it.
#[derive(Debug)]
pub(crate) struct Decoder<R> {
    input: R,
    /// Bytes of the file that are not read yet, the trailer's included.
    left: u64,
    header: Header,
    number: u32,
    raw: Vec<u8>,
    stored: Vec<u8>,
    /// Table and key of the last row.
    previous: Vec<u8>,
    sofar: Trailer,
}

impl<R: Read> Decoder<R> {
    /// Reads the header of a file of so many bytes.
    pub(crate) fn begin(mut input: R, bytes: u64) -> Result<Self, Wrong> {
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head)?;
        if head[..8] != *MAGIC {
            return wrong("it is no checkpoint");
        }
        let format = u32_of(&head[8..12]);
        if format != FORMAT {
            return Err(Wrong::OtherFormat(format));
        }
        let body = u32_of(&head[12..]) as usize;
        let fixed = HEAD_BYTES + HASH_BYTES + TRAILER_BYTES;
        if body > BODY_BYTES || (body + fixed) as u64 > bytes {
            return wrong("its header is damaged");
        }
        let mut signed = head.to_vec();
        signed.resize(HEAD_BYTES + body, 0);
        input.read_exact(&mut signed[HEAD_BYTES..])?;
        let last = read_hash(&mut input)?;
        if xxh3_128(&signed) != last {
            return wrong("its header is damaged");
        }
        let Ok((header, [])) = postcard::take_from_bytes(&signed[HEAD_BYTES..]) else {
            return wrong("its header can't be read");
        };
        let left = bytes - (HEAD_BYTES + body + HASH_BYTES) as u64;
        let sofar = Trailer { rows: 0, raw_bytes: 0, digest: Digest::default(), last, id: 0 };
        Ok(Self { input, left, header, number: 0, raw: vec![], stored: vec![], previous: vec![], sofar })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// What has been read so far.
    pub(crate) fn so_far(&self) -> &Trailer {
        &self.sofar
    }

    /// Reads the next block, verifies it, and hands its rows on; none when it was the last. Then the sums have been
    /// found to be right.
    pub(crate) fn block<E: From<Wrong>>(
        &mut self,
        each: impl FnMut(Table, &[u8], &[u8], RowHash) -> Result<(), E>,
    ) -> Result<Option<()>, E> {
        if self.left == TRAILER_BYTES as u64 {
            self.trailer()?;
            return Ok(None);
        }
        self.next_block()?;
        self.rows(each)?;
        Ok(Some(()))
    }

    /// The verified trailer, after the last block.
    pub(crate) fn end(self) -> Trailer {
        self.sofar
    }

    fn trailer(&mut self) -> Result<(), Wrong> {
        let mut bytes = [0; TRAILER_BYTES];
        self.input.read_exact(&mut bytes)?;
        let trailer = Trailer::decode(&bytes)?;
        let sums = Trailer { id: trailer.id, ..self.sofar };
        if sums != trailer {
            return wrong("its blocks do not come to what its trailer says");
        }
        if trailer.digest.0 != self.header.local.digest {
            return wrong("its rows do not come to the digest in its header");
        }
        self.sofar = trailer;
        self.left = 0;
        Ok(())
    }

    fn next_block(&mut self) -> Result<(), Wrong> {
        let fixed = (BLOCK_HEAD_BYTES + HASH_BYTES + TRAILER_BYTES) as u64;
        if self.left < fixed {
            return wrong("it ends in the middle of a block");
        }
        let mut head = [0; BLOCK_HEAD_BYTES];
        self.input.read_exact(&mut head)?;
        let (raw, stored) = (u32_of(&head[4..8]) as usize, u32_of(&head[8..]) as usize);
        if u32_of(&head[..4]) != self.number || self.number == LAST {
            return wrong(format!("where block {} should be is another", self.number));
        }
        let lengths = (1..=RAW_BYTES).contains(&raw)
            && stored <= raw
            && stored as u64 <= self.left - fixed
            && raw <= stored.saturating_mul(BEST_RATIO);
        if !lengths {
            return wrong(format!("the lengths of block {} are impossible", self.number));
        }
        let hash = read_hash(&mut self.input)?;
        self.stored.resize(stored, 0);
        self.input.read_exact(&mut self.stored)?;
        if block_hash(self.sofar.last, &head, &self.stored) != hash {
            return wrong(format!("block {} is damaged", self.number));
        }
        if stored == raw {
            std::mem::swap(&mut self.raw, &mut self.stored);
        } else {
            self.raw.resize(raw, 0);
            let unpacked = lz4_flex::block::decompress_into(&self.stored, &mut self.raw);
            if unpacked.ok() != Some(raw) {
                return wrong(format!("block {} can't be unpacked", self.number));
            }
        }
        self.left -= (BLOCK_HEAD_BYTES + HASH_BYTES + stored) as u64;
        self.sofar.last = hash;
        self.sofar.raw_bytes += raw as u64;
        self.number += 1;
        Ok(())
    }

    fn rows<E: From<Wrong>>(
        &mut self,
        mut each: impl FnMut(Table, &[u8], &[u8], RowHash) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { raw, previous, sofar, .. } = self;
        let mut rest = raw.as_slice();
        while !rest.is_empty() {
            let ((table, key, value), after) =
                split_row(rest).ok_or_else(|| Wrong::Damaged("a row in it can't be read".to_owned()))?;
            rest = after;
            let sorted = match previous.split_first() {
                Some((before, before_key)) => (*before, before_key) < (table.number(), key),
                None => true,
            };
            if !sorted {
                return wrong("its rows are not sorted, each once").map_err(E::from);
            }
            previous.clear();
            previous.push(table.number());
            previous.extend_from_slice(key);
            let hash = RowHash::of(table, key, value);
            sofar.rows += 1;
            if table.is_digested() {
                sofar.digest.add(hash);
            }
            each(table, key, value, hash)?;
        }
        Ok(())
    }
}

/// Table, key and value of a row.
type Row<'a> = (Table, &'a [u8], &'a [u8]);

/// The first row, and what follows it.
fn split_row(bytes: &[u8]) -> Option<(Row<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<ROW_HEAD_BYTES>()?;
    let table = Table::of_number(head[0])?;
    let key_bytes = usize::from(u16::from_le_bytes([head[1], head[2]]));
    if !(1..=KEY_BYTES).contains(&key_bytes) {
        return None;
    }
    let (key, rest) = rest.split_at_checked(key_bytes)?;
    let (value, rest) = rest.split_at_checked(u32_of(&head[3..]) as usize)?;
    Some(((table, key, value), rest))
}

fn block_hash(before: u128, head: &[u8; BLOCK_HEAD_BYTES], content: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&before.to_le_bytes());
    hash.update(head);
    hash.update(content);
    hash.digest128()
}

fn read_hash(input: &mut impl Read) -> io::Result<u128> {
    let mut hash = [0; HASH_BYTES];
    input.read_exact(&mut hash)?;
    Ok(u128::from_le_bytes(hash))
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("lengths are bounded far below").to_le_bytes()
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn u128_of(bytes: &[u8]) -> u128 {
    u128::from_le_bytes(bytes.try_into().expect("sixteen bytes"))
}
