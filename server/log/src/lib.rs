//! The write-ahead log and the vote record: append-only, checksummed, chained, on a small `Disk` trait.
//!
//! ```text
//!  Handle (any thread) ──one queue──▶ Writer (its thread) ──▶ Log ──▶ segments      ┐
//!    │ tail cache, watermarks                    └──────────▶ Votes ▶ vote-a, vote-b ├─ Disk
//!    └─ reads what is not cached ──▶ Reader (index) ─────────────────▶ segments      ┘
//! ```
//!
//! What it promises: what was reported durable is there after any crash; what is damaged is reported as
//! [`Error::Corrupt`], never passed off as the end of the log; nothing is invented.
//!
//! A full disk is waited out: only growing the log meets it (zeros ahead, a new segment), before any frame is written,
//! so nothing is torn, and queued operations stay queued. Votes are overwritten in place and need no room. Any other
//! failure of the disk is final. [`check`] reads a log without changing it.

mod check;
mod disk;
mod error;
mod frame;
mod handle;
mod index;
mod log;
mod memory;
mod recover;
mod scan;
mod segment;
mod stats;
mod vote;
mod writer;

pub use bytes::Bytes;

pub use crate::{
    check::{CheckReport, SegmentReport, check},
    disk::{Disk, File, RealDisk},
    error::Error,
    handle::{Done, Handle},
    index::Reader,
    log::{Log, Options, Position, Record},
    memory::{Act, Fault, Loss, MemDisk},
    recover::{Recovered, Torn, open},
    stats::Stats,
    vote::{Vote, VoteCopy, Votes},
    writer::{Fatal, Writer},
};
