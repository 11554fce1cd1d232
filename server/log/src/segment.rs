//! A segment file: its name, its head, its zero-filled space ahead, and the judgement of its end.

use std::sync::Arc;

use crate::{
    disk::{Disk, File},
    error::{Context, Error},
    frame::{self, Bad, HEADER, Header, Type, word},
    log::Position,
    recover::Torn,
};

/// What a segment says of the log before it, so that it can be the first one after a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Segment number: starts at 1, one more each, never used again.
    pub(crate) number: u64,
    /// Seeds the sums of all frames but heads.
    pub(crate) salt: u64,
    /// Last entry before this segment, purged or not.
    pub(crate) last: Option<Position>,
    /// Newest purged entry.
    pub(crate) purged: Option<Position>,
}

/// Of the format; a reader refuses others.
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 56;
/// Where a segment's second frame starts.
pub(crate) const HEAD_END: usize = HEADER + HEAD_BYTES;
/// A new segment is built under this name and renamed when it is durable: so a segment's name always has a
/// whole head, and a damaged head is damage.
pub(crate) const UNFINISHED: &str = "next.tmp";
/// The unit that disks write whole.
const SECTOR: usize = 512;

/// A segment's file name.
pub(crate) fn name(number: u64) -> String {
    format!("log-{number:016}")
}

/// The number in a segment's file name; `None` for other files.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?;
    (digits.len() == 16).then(|| digits.parse().ok()).flatten()
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        let flags = u32::from(self.last.is_some()) | u32::from(self.purged.is_some()) << 1;
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        let none = Position { index: 0, term: 0 };
        let (last, purged) = (self.last.unwrap_or(none), self.purged.unwrap_or(none));
        for value in [self.number, self.salt, last.index, last.term, purged.index, purged.term] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// Reads what [`Head::encode`] wrote; the frame's checksum has been checked, so anything unknown is
    /// another format.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != HEAD_BYTES || bytes[..4] != VERSION.to_le_bytes() || bytes[5..8] != [0; 3] || bytes[4] > 3 {
            return None;
        }
        let position = |at, flag: u8| {
            (bytes[4] & flag != 0).then(|| Position { index: word(bytes, at), term: word(bytes, at + 8) })
        };
        Some(Self { number: word(bytes, 8), salt: word(bytes, 16), last: position(24, 1), purged: position(40, 2) })
    }
}

/// Makes a segment with its head and `fill` bytes of zeros behind it, durable, name and all. Returns the file,
/// the end of the head, and the head's sum. If the disk is full there is none, nor a half-made file.
pub(crate) fn create(
    disk: &dyn Disk,
    head: &Head,
    header: Header,
    fill: usize,
) -> Result<(Arc<dyn File>, u64, u64), Error> {
    let name = name(head.number);
    let mut bytes = Vec::with_capacity(HEADER + HEAD_BYTES + fill);
    let sum = header.encode(head.salt, &head.encode(), &mut bytes);
    let end = bytes.len();
    bytes.resize(end + fill.max(HEADER), 0);
    let file = build(disk, &bytes, &name).inspect_err(|error| {
        if error.is_full() {
            // It takes room that nobody uses. If it can't be removed, the next attempt or opening empties it.
            let _ = disk.remove(UNFINISHED);
        }
    })?;
    disk.sync_dir().during("sync the directory of", &name)?;
    Ok((file, end as u64, sum))
}

/// All that a full disk may interrupt: until the file has its name, it is nobody's.
fn build(disk: &dyn Disk, bytes: &[u8], name: &str) -> Result<Arc<dyn File>, Error> {
    let file = disk.create(UNFINISHED).growing("create", UNFINISHED)?;
    file.write_at(0, bytes).growing("write", UNFINISHED)?;
    file.sync().during("sync", UNFINISHED)?;
    disk.rename(UNFINISHED, name).growing("name", name)?;
    Ok(file)
}

/// Reads a whole file.
pub(crate) fn load(file: &dyn File, name: &str) -> Result<Vec<u8>, Error> {
    let length = file.length().during("measure", name)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let read = file.read_at(0, &mut bytes).during("read", name)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Judges the end of the last segment: no frame with sequence `next` is at `end`. Clean (all zeros), a torn
/// tail that nobody was told about, or damage to what was durable.
///
/// Damage it is if
/// - the file ends there: frames are only written where zeros were durable before, with room to spare, so the
///   file was cut;
/// - a later frame says that frame `next` was durable;
/// - a whole header stands there whose frame does not follow: it can't come from a write that was cut short;
/// - it does not look torn. Ahead of the log are zeros, and a disk writes a sector whole or not at all, so what
///   a power cut leaves of a frame has a part that is all zeros. A frame without such a part was whole once, and
///   rotted: even if it is the very last.
pub(crate) fn judge_end(bytes: &[u8], end: usize, next: u64, salt: u64, name: &str) -> Result<Option<Torn>, Error> {
    let damaged = |what: &str| Err(Error::corrupt(name, end as u64, what));
    if bytes.len() < end + HEADER {
        return damaged("the file was cut");
    }
    let Some(dirty) = bytes[end..].iter().rposition(|b| *b != 0).map(|at| at + 1) else { return Ok(None) };
    for at in frame::candidates(&bytes[end..end + dirty]) {
        let Ok(later) = frame::header(&bytes[end + at..], salt) else { continue };
        if later.header.of != Type::Head && later.header.durable >= next {
            return damaged("a later frame says that this one was durable");
        }
    }
    let extent = match frame::whole(&bytes[end..], salt) {
        Ok(_) => return damaged("a frame that does not follow the one before"),
        Err(Bad::Short) => return damaged("the file was cut"),
        Err(Bad::Header) => HEADER,
        Err(Bad::Payload) => match frame::header(&bytes[end..], salt) {
            Ok(found) => HEADER + found.header.length as usize,
            Err(_) => HEADER,
        },
    };
    if !looks_torn(bytes, end, end + extent) {
        return damaged("a frame that is whole in length and wrong in content");
    }
    Ok(Some(Torn { segment: name.to_owned(), offset_bytes: end as u64, length_bytes: dirty as u64 }))
}

/// Whether `[start, end)` can be what a cut-short write left in a place that was all zeros: a sector's share of
/// it is missing.
fn looks_torn(bytes: &[u8], start: usize, end: usize) -> bool {
    let mut from = start;
    while from < end {
        let to = ((from / SECTOR + 1) * SECTOR).min(end);
        if bytes[from..to].iter().all(|b| *b == 0) {
            return true;
        }
        from = to;
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_head_reads_back() {
        let at = |index| Some(Position { index, term: 4 });
        for (last, purged) in [(None, None), (at(3), None), (at(3), at(2)), (None, at(9))] {
            let head = Head { number: 7, salt: 9, last, purged };
            assert_eq!(Head::decode(&head.encode()), Some(head));
        }
        assert_eq!(Head::decode(&[0; 56]), None);
    }

    #[test]
    fn only_segments_have_a_segments_name() {
        assert_eq!(number(&name(12)), Some(12));
        assert_eq!(number("log-12"), None);
        assert_eq!(number("vote-a"), None);
    }
}
