//! A whole subtree as of one zxid, on a side stream: read at full speed, sent at the client's pace.
//!
//! While a state is read, LMDB can't use the pages again that later commits free, so a slow client must not be what ends
//! the reading. What is read goes to a spool: memory, and from some size on a file without a name in the data directory,
//! which is gone with the process.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::query::{self, Walk};
use conclave_core::view::Base;
use conclave_protocol::{Path, Refusal, SIDE_FRAME_BYTES, SideMessage, TreeEntry, Zxid, codec};
use tempfile::SpooledTempFile;

use crate::member::Shared;

/// Bytes of a spool that lie in memory.
const MEMORY: usize = 4 << 20;
/// Bytes of a spool, at most.
const SPOOL_BYTES: u64 = 4 << 30;
/// Znodes and bytes of data that are put into one message, about.
const PAGE: usize = 512;
const PAGE_BYTES: usize = 256 << 10;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Who asks.
    pub(crate) principal: Arc<str>,
    /// The top.
    pub(crate) path: Path,
    /// With data.
    pub(crate) data: bool,
}

/// Why there is no subtree.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It is refused.
    Refused(Refusal),
    /// It went wrong.
    Failed(String),
    /// This member stops.
    Fault(Fault),
    /// Nobody waits for it any more.
    Unwanted,
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("what was read can't be put by: {error}"))
    }
}

/// Says to whoever reads that it need not go on, when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// For the reader: true when nobody waits any more.
    pub(crate) fn over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A subtree that was read: messages, ready to be sent.
pub(crate) struct Spool {
    file: BufReader<SpooledTempFile>,
    /// The state that it was read from.
    pub(crate) zxid: Zxid,
    /// How many znodes are in it.
    pub(crate) znodes: u64,
    /// Bytes that were not taken yet.
    left: u64,
}

/// Reads a subtree from the present state; blocks for as long as that takes.
pub(crate) fn read(shared: &Shared, asked: &Asked, over: &AtomicBool) -> Result<Spool, Stopped> {
    let snapshot = shared.store.snapshot()?;
    let is_full = || shared.room.refuses_growth();
    spool(&snapshot, asked, &shared.data, SPOOL_BYTES, &is_full, over)
}

fn spool(
    base: &dyn Base,
    asked: &Asked,
    dir: &FilePath,
    most: u64,
    is_full: &dyn Fn() -> bool,
    over: &AtomicBool,
) -> Result<Spool, Stopped> {
    let zxid = query::state(base)?.zxid;
    let mut walk = Walk::new(base, &asked.principal, &asked.path, asked.data)?.map_err(Stopped::Refused)?;
    let mut file = tempfile::spooled_tempfile_in(MEMORY, dir);
    let (mut znodes, mut bytes) = (0, 0);
    loop {
        if over.load(Ordering::Acquire) {
            return Err(Stopped::Unwanted);
        }
        let page = walk.next(base, PAGE, PAGE_BYTES)?;
        if page.is_empty() {
            break;
        }
        znodes += page.len() as u64;
        for message in messages(page) {
            bytes += 4 + message.len() as u64;
            if bytes > most {
                let what = format!("bytes of the subtree {}", asked.path);
                return Err(Stopped::Refused(Refusal::Limit { what, limit: most, actual: bytes }));
            }
            let length = u32::try_from(message.len()).map_err(io::Error::other)?;
            file.write_all(&length.to_le_bytes())?;
            file.write_all(&message)?;
        }
        if bytes > MEMORY as u64 && is_full() {
            return Err(Stopped::Failed("the member's disk is nearly full: another may have room for it".to_owned()));
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(Spool { file: BufReader::with_capacity(PAGE_BYTES, file), zxid, znodes, left: bytes })
}

/// As many messages as it takes for none to be too long: paths may be as long as data.
fn messages(mut page: Vec<TreeEntry>) -> Vec<Vec<u8>> {
    let message = SideMessage::Znodes(page);
    let bytes = codec::encode(&message);
    let SideMessage::Znodes(entries) = message else { return vec![bytes] };
    page = entries;
    if bytes.len() <= SIDE_FRAME_BYTES || page.len() == 1 {
        return vec![bytes];
    }
    let rest = page.split_off(page.len() / 2);
    let mut both = messages(page);
    both.append(&mut messages(rest));
    both
}

impl Spool {
    /// The next messages: some hundreds of KiB, or one. None: that was all. Blocks.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn take(&mut self) -> io::Result<Vec<Bytes>> {
        let mut messages = Vec::new();
        let mut taken = 0;
        while self.left > 0 && taken < PAGE_BYTES {
            let mut length = [0; 4];
            self.file.read_exact(&mut length)?;
            let mut message = vec![0; u32::from_le_bytes(length) as usize];
            self.file.read_exact(&mut message)?;
            taken += message.len();
            self.left = self.left.saturating_sub(4 + message.len() as u64);
            messages.push(message.into());
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use conclave_core::apply::{Position, apply};
    use conclave_core::memory::{MemTables, NoPlugins};
    use conclave_core::plan::{Asked as By, Planner, Request, Work};
    use conclave_protocol::{Create, Nonce, Op};

    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    /// A tree with these znodes, each with so many bytes.
    fn tree(paths: &[String], bytes: usize) -> MemTables {
        let mut tables = MemTables::with_root("test", Vec::new()).unwrap();
        let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), Arc::new(NoPlugins)).unwrap();
        for (number, at) in paths.iter().enumerate() {
            let mut nonce = [0; 16];
            nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
            let by = By::Once { nonce: Nonce::new(nonce), until_ms: 1_000 };
            let op = Op::Create(Create { parents: true, ..Create::new(path(at), vec![7; bytes]) });
            let request = Request { principal: "alice".to_owned(), asked: by, fence: None, work: Work::Op(op) };
            planner.plan(&request, 1).unwrap();
        }
        apply(&mut tables, Position { term: 1, index: 2 }, &planner.cut().unwrap().payload).unwrap();
        tables
    }

    fn read(tables: &MemTables, at: &str, data: bool, most: u64) -> Result<(Spool, Vec<TreeEntry>), Stopped> {
        let asked = Asked { principal: "alice".into(), path: path(at), data };
        let dir = tempfile::tempdir().unwrap();
        let mut spool = spool(tables, &asked, dir.path(), most, &|| false, &AtomicBool::new(false))?;
        let mut entries = Vec::new();
        loop {
            let messages = spool.take().unwrap();
            if messages.is_empty() {
                return Ok((spool, entries));
            }
            for message in messages {
                assert!(message.len() <= SIDE_FRAME_BYTES);
                let SideMessage::Znodes(page) = codec::decode(&message).unwrap() else { panic!("no znodes") };
                entries.extend(page);
            }
        }
    }

    #[test]
    fn a_subtree_comes_out_of_its_spool_as_it_was_read() {
        // More than lies in memory.
        let paths: Vec<String> = (0..2_000).map(|n| format!("/a/b{}/c{n:04}", n % 7)).collect();
        let tables = tree(&paths, 4_096);
        let (spool, entries) = read(&tables, "/a", true, u64::MAX).unwrap();
        assert_eq!((spool.znodes, entries.len()), (2_008, 2_008));
        assert_eq!(spool.zxid, Zxid(2_001));
        let mut sorted = entries.clone();
        sorted.sort_by(|a, b| a.path.names().cmp(b.path.names()));
        assert_eq!(entries, sorted, "parents come before children, siblings in order");
        assert!(entries.iter().filter(|it| it.path.depth() == 3).all(|it| it.data.as_ref().unwrap().len() == 4_096));
        let (_, without) = read(&tables, "/a/b1", false, u64::MAX).unwrap();
        assert_eq!(without.len(), 1 + 286);
        assert!(without.iter().all(|entry| entry.data.is_none()));
    }

    #[test]
    fn long_paths_are_split_into_messages_that_a_client_takes() {
        let name = "x".repeat(250);
        let above = format!("/{name}").repeat(60);
        let tables = tree(&(0..400).map(|n| format!("{above}/{n}{name}")).collect::<Vec<_>>(), 0);
        let (_, entries) = read(&tables, "/", false, u64::MAX).unwrap();
        assert_eq!(entries.len(), 1 + 60 + 400);
    }

    #[test]
    fn what_is_too_large_or_not_there_is_refused_and_what_nobody_wants_is_not_read() {
        let tables = tree(&["/a/b".to_owned()], 10_000);
        let refused = read(&tables, "/a", true, 5_000).map(drop);
        assert!(matches!(refused, Err(Stopped::Refused(Refusal::Limit { limit: 5_000, .. }))), "{refused:?}");
        let refused = read(&tables, "/x", true, 5_000).map(drop);
        assert!(matches!(refused, Err(Stopped::Refused(Refusal::NoZnode { .. }))), "{refused:?}");
        let wanted = Wanted::default();
        let over = wanted.over();
        drop(wanted);
        let asked = Asked { principal: "alice".into(), path: Path::root(), data: false };
        let unwanted = spool(&tables, &asked, FilePath::new("/"), 5_000, &|| false, &over).map(drop);
        assert!(matches!(unwanted, Err(Stopped::Unwanted)));
    }
}
