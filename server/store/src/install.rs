//! Building tables from a checkpoint, and putting them in the place of those that are read.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

use conclave_core::apply::Local;
use conclave_core::digest::RowHash;
use heed::PutFlags;

use crate::checkpoint::{Checkpoint, OnProgress, Progress, Step};
use crate::environment::{Environment, directory};
use crate::error::checkpoint_io;
use crate::marker::sync_dir;
use crate::{CheckpointError, Writer};

/// Rows are committed whenever so many bytes of them have been put: less memory than one transaction for all.
const COMMIT_BYTES: usize = 32 << 20;

/// Where an install could be interrupted; each has its test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The new tables are complete, not durable.
    Loaded,
    /// They are durable, and the marker names the old ones.
    Durable,
    /// The marker names the new ones, readers have the old ones.
    Marked,
    /// Readers have the new ones; the old ones are still there.
    Swapped,
}

impl Writer {
    /// Puts the tables of a checkpoint in the place of the present ones: builds `env-(N+1)`, makes it durable, makes the
    /// marker name it, and then gives it to readers. Snapshots of the old tables go on reading them; with the last of
    /// those, `env-N` is closed and removed. The checkpoint is verified while it is read.
    ///
    /// # Errors
    /// Whatever fails before the marker is written leaves everything as it was: [`CheckpointError::Damaged`],
    /// [`CheckpointError::OtherCluster`], [`CheckpointError::Cancelled`], [`CheckpointError::Full`],
    /// [`CheckpointError::Io`]. [`CheckpointError::Fault`]: the member has to stop, unless
    /// [`is_full`](CheckpointError::is_full).
    pub fn install(&mut self, checkpoint: &Checkpoint, progress: &mut OnProgress<'_>) -> Result<(), CheckpointError> {
        self.install_in_steps(checkpoint, progress, &mut |_| {})
    }

    pub(crate) fn install_in_steps(
        &mut self,
        checkpoint: &Checkpoint,
        progress: &mut OnProgress<'_>,
        reached: &mut dyn FnMut(Point),
    ) -> Result<(), CheckpointError> {
        let shared = &self.store.0;
        shared.check()?;
        if checkpoint.cluster() != shared.cluster {
            let (found, expected) = (checkpoint.cluster().to_owned(), shared.cluster.clone());
            return Err(CheckpointError::OtherCluster { found, expected });
        }
        let number = self.environment.number() + 1;
        let path = directory(shared.lock.dir(), number);
        if path.exists() {
            // Of an install that failed, and could not be cleared away then.
            fs::remove_dir_all(&path).map_err(checkpoint_io("remove", &path))?;
        }
        let built = self.build(number, checkpoint, progress, reached).and_then(|built| {
            match self.store.0.mark_replaced(&built) {
                Ok(()) => Ok(built),
                // The marker still names the old tables.
                Err(fault @ conclave_core::Fault::Full(_)) => Err((CheckpointError::Fault(fault), true)),
                // Nobody knows which it names: neither may go.
                Err(fault) => Err((CheckpointError::Fault(fault), false)),
            }
        });
        let built = match built {
            Ok(built) => Arc::new(built),
            Err((error, remove)) => {
                if remove {
                    // Otherwise the next start, or install, does.
                    _ = fs::remove_dir_all(&path);
                }
                return Err(error);
            }
        };
        reached(Point::Marked);
        shared.swap(&built);
        reached(Point::Swapped);
        self.local = checkpoint.local().clone();
        self.environment = built;
        Ok(())
    }

    /// A durable environment; an error tells whether what there is of it can be removed.
    fn build(
        &self,
        number: u32,
        checkpoint: &Checkpoint,
        progress: &mut OnProgress<'_>,
        reached: &mut dyn FnMut(Point),
    ) -> Result<Environment, (CheckpointError, bool)> {
        let shared = &self.store.0;
        let mut build = || -> Result<Environment, CheckpointError> {
            let environment = Environment::create(&shared.lock, number, &shared.options)?.tables(&shared.cluster)?;
            load(&environment, checkpoint, checkpoint.local(), progress)?;
            reached(Point::Loaded);
            environment.sync()?;
            sync_dir(shared.lock.dir())?;
            reached(Point::Durable);
            Ok(environment)
        };
        build().map_err(|error| (error, true))
    }
}

/// Fills an empty environment with the rows of a checkpoint, which is verified meanwhile, and keeps `local` beside them.
/// Not durable yet. After an error the environment is good for nothing.
pub(crate) fn load(
    environment: &Environment,
    checkpoint: &Checkpoint,
    local: &Local,
    progress: &mut OnProgress<'_>,
) -> Result<(), CheckpointError> {
    let fault = |error| CheckpointError::Fault(environment.fault(error));
    // Taken and put back at each commit.
    let mut writing = Some(environment.env.write_txn().map_err(fault)?);
    let mut row = Vec::new();
    let mut put = 0;
    checkpoint.each_row(Step::Load, progress, |table, key, value, hash| {
        row.clear();
        row.extend_from_slice(&hash.0.to_be_bytes());
        row.extend_from_slice(value);
        // Rows come in the order of their keys: each goes to the end of its table, and pages fill up.
        let txn = match &mut writing {
            Some(txn) if put < COMMIT_BYTES => txn,
            full => {
                put = 0;
                if let Some(txn) = full.take() {
                    txn.commit().map_err(fault)?;
                }
                full.insert(environment.env.write_txn().map_err(fault)?)
            }
        };
        environment.table(table).put_with_flags(txn, PutFlags::APPEND, key, &row).map_err(fault)?;
        put += RowHash::BYTES + key.len() + value.len();
        Ok(())
    })?;
    if let Some(mut txn) = writing {
        environment.write_local(&mut txn, local)?;
        txn.commit().map_err(fault)?;
    }
    Ok(())
}

/// For those who have nobody to tell.
pub(crate) fn silent(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
