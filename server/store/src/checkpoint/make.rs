//! Making a checkpoint: the tables are read once, which is their scrub, and the file is read back before it counts.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use conclave_core::{Fault, Table};

use super::directory::{NEW, name};
use super::format::{Encoder, Header, Trailer, VALUE_BYTES};
use super::{Checkpoint, Checkpoints, OnProgress, Progress, Step};
use crate::error::checkpoint_io;
use crate::{CheckpointError, Snapshot, Store};

/// A block is up to about this much: one write each, or less.
const WRITE_BYTES: usize = 1 << 20;

impl Checkpoints {
    /// Makes one of the state as of now, on this thread, which should have nothing else to do; pins pages while it reads
    /// the tables. It is durable, and was read back and found to be right, when this returns; the older ones are gone.
    /// Whatever fails before that leaves the older one. When a newer one was received meanwhile, it is that one that is
    /// returned, and kept.
    ///
    /// # Errors
    /// [`CheckpointError::Tables`]: this member's state is damaged. [`CheckpointError::Full`],
    /// [`CheckpointError::Cancelled`], [`CheckpointError::Damaged`] when what was read back is not what was written,
    /// [`CheckpointError::Busy`], [`CheckpointError::Io`], [`CheckpointError::Fault`].
    pub fn make(&self, store: &Store, progress: &mut OnProgress<'_>) -> Result<Checkpoint, CheckpointError> {
        let _claim = self.claim_making()?;
        let snapshot = store.snapshot()?;
        let header = self.header(&snapshot)?;
        let position = header.local.applied.unwrap_or(conclave_core::apply::Position { term: 0, index: 0 });
        let new = self.0.dir.join(format!("{}{NEW}", name(position)));
        let made = write(&new, &header, snapshot, progress)
            .and_then(|trailer| read_back(&new, trailer, progress))
            .and_then(|()| self.adopt_made(&new, position));
        if made.is_err() {
            // It may not be there at all.
            _ = fs::remove_file(&new);
        }
        made
    }

    fn header(&self, snapshot: &Snapshot) -> Result<Header, CheckpointError> {
        let local = snapshot.local().map_err(CheckpointError::Tables)?;
        let state = snapshot.state().map_err(CheckpointError::Tables)?;
        Ok(Header { cluster: self.0.cluster.clone(), local, zxid: state.zxid, time_ms: state.time_ms })
    }
}

/// Writes the file, durably but for its name. The snapshot goes as soon as its rows are written.
fn write(
    path: &Path,
    header: &Header,
    snapshot: Snapshot,
    progress: &mut OnProgress<'_>,
) -> Result<Trailer, CheckpointError> {
    let total_rows = Some(snapshot.rows().map_err(CheckpointError::Tables)?);
    let io = |source| CheckpointError::io("write", path, source);
    let file = File::create(path).map_err(checkpoint_io("create", path))?;
    let mut encoder = Encoder::begin(BufWriter::with_capacity(WRITE_BYTES, file), header).map_err(io)?;
    snapshot
        .each_row(|table, key, value, hash| {
            if value.len() > VALUE_BYTES {
                return Err(Stop::Fault(too_large(table, value.len())));
            }
            if encoder.row(table, key, value, hash).map_err(|error| Stop::Other(io(error)))? {
                let Trailer { rows, raw_bytes, .. } = *encoder.so_far();
                if progress(Progress { step: Step::Write, rows, bytes: raw_bytes, total_rows }).is_break() {
                    return Err(Stop::Other(CheckpointError::Cancelled));
                }
            }
            Ok(())
        })
        .map_err(|stop| match stop {
            Stop::Fault(fault) => CheckpointError::Tables(fault),
            Stop::Other(error) => error,
        })?;
    drop(snapshot);
    let (computed, expected) = (encoder.so_far().digest.0, header.local.digest);
    if computed != expected {
        return Err(CheckpointError::Tables(Fault::Digest { zxid: header.zxid, computed, expected }));
    }
    let (file, trailer) = encoder.finish().map_err(io)?;
    let file = file.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(checkpoint_io("sync", path))?;
    Ok(trailer)
}

fn too_large(table: Table, bytes: usize) -> Fault {
    Fault::Invariant(format!("a row of table {} has {bytes} bytes", table.name()))
}

/// Reads the file again, from the disk where that can be had, and compares.
fn read_back(path: &Path, wrote: Trailer, progress: &mut OnProgress<'_>) -> Result<(), CheckpointError> {
    let written = Checkpoint::open(path)?;
    written.drop_cache();
    written.verify(progress)?;
    if written.0.trailer != wrote {
        return Err(CheckpointError::damaged(path, "it is not what was written"));
    }
    Ok(())
}

/// Why the reading of the tables ended.
enum Stop {
    Fault(Fault),
    Other(CheckpointError),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
