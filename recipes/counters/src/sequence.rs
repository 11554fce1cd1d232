//! Unique numbers that rise, fetched in blocks.

use std::ops::Range;
use std::sync::Arc;

use conclave_client::{Client, Path, ToPath};
use tokio::sync::Mutex;

use crate::counter::with_parents;
use crate::error::{Error, Result};

/// Numbers that are fetched at once, unless it is said.
const BLOCK: u64 = 100;
/// As many as can be had at once: a mistake must not use them up.
pub(crate) const MOST: u64 = 1 << 32;

/// Unique numbers, from 1 on. Clones share the numbers that were fetched. Curator's CachedAtomicLong; what databases call a
/// sequence.
///
/// - *Never a number twice*, whoever asks and whatever fails: a block of numbers is taken by one transaction, and is not
///   known to anybody before that is on the disks of a majority.
/// - *They rise* for each handle and its clones. Of two handles, one may give lower numbers later, as each has its own
///   block; with [`Sequence::block`] of 1 they rise for all, in the order in which they were asked for.
/// - *There are gaps.* What a handle has not used is lost when it is dropped or its program crashes; a block whose answer did
///   not come may be lost too.
#[derive(Clone, Debug)]
pub struct Sequence {
    client: Client,
    path: Path,
    block: u64,
    shared: Arc<Mutex<Block>>,
}

/// What a handle and its clones have.
#[derive(Debug, Default)]
struct Block {
    /// That were fetched, and not given.
    rest: Range<u64>,
    /// The highest that was ever fetched.
    highest: u64,
}

impl Sequence {
    /// The sequence at a path. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// When the text is no path.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        Ok(Self { client: client.clone(), path: path.to_path()?, block: BLOCK, shared: Arc::default() })
    }

    /// Fetches so many numbers at once, 100 if it is not said: the more, the fewer round trips, and the more are lost with
    /// a crash. Handles may differ in it.
    #[must_use]
    pub fn block(mut self, numbers: u64) -> Self {
        self.block = numbers;
        self.shared = Arc::default();
        self
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// The next number. One round trip for each block, and none for the others; who asks meanwhile waits for the same one.
    /// Dropping the future loses no number that is there; a block that is on its way may be lost.
    ///
    /// # Errors
    /// [`Error::WentBack`], [`Error::BadNumber`], and as every write. It can be asked again after each: at most numbers
    /// are lost.
    pub async fn next(&self) -> Result<u64> {
        let mut shared = self.shared.lock().await;
        if let Some(number) = shared.rest.next() {
            return Ok(number);
        }
        // Nothing is awaited between having it and keeping it.
        let mut fetched = self.fetch(&mut shared, self.block).await?;
        let number = fetched.next();
        shared.rest = fetched;
        number.ok_or(Error::BadCount { count: self.block })
    }

    /// So many numbers without a gap between them. One round trip; the handle's own block stays for [`Sequence::next`].
    ///
    /// # Errors
    /// As [`Sequence::next`].
    pub async fn take(&self, count: u64) -> Result<Range<u64>> {
        let mut shared = self.shared.lock().await;
        self.fetch(&mut shared, count).await
    }

    async fn fetch(&self, shared: &mut Block, count: u64) -> Result<Range<u64>> {
        let number = i64::try_from(count).ok().filter(|_| (1..=MOST).contains(&count));
        let number = number.ok_or(Error::BadCount { count })?;
        let add = || async { self.client.at(&self.path).add(number).or_create().await };
        let end = with_parents(&self.client, &self.path, add).await?.number;
        let range = range(end, count, shared.highest).map_err(|wrong| match wrong {
            Wrong::Negative => {
                Error::BadNumber { path: self.path.clone(), why: format!("{end} is no end of a sequence") }
            }
            Wrong::Back { is } => Error::WentBack { path: self.path.clone(), was: shared.highest, is },
        })?;
        shared.highest = range.end - 1;
        Ok(range)
    }
}

/// Why a number of the znode's gives no block.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// There are no numbers below 1.
    Negative,
    /// It was this before the block, less than it had been.
    Back { is: u64 },
}

/// The block that ends with the number that its znode was raised to by so many. None of them may have been given.
fn range(end: i64, count: u64, highest: u64) -> Result<Range<u64>, Wrong> {
    let end = u64::try_from(end).map_err(|_| Wrong::Negative)?;
    let before = end.checked_sub(count).ok_or(Wrong::Negative)?;
    if before < highest {
        return Err(Wrong::Back { is: before });
    }
    Ok(before + 1..end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_the_number_was_raised_by_and_nothing_that_was_given() {
        for (end, count, highest, expected) in [
            (100, 100, 0, Ok(1..101)),
            (101, 1, 100, Ok(101..102)),
            (500, 100, 100, Ok(401..501)),
            // It was deleted, or set back.
            (100, 100, 100, Err(Wrong::Back { is: 0 })),
            (199, 100, 100, Err(Wrong::Back { is: 99 })),
            // Somebody counts with it otherwise.
            (50, 100, 0, Err(Wrong::Negative)),
            (-1, 1, 0, Err(Wrong::Negative)),
            (i64::MAX, 1, 7, Ok(i64::MAX as u64..i64::MAX as u64 + 1)),
        ] {
            assert_eq!(range(end, count, highest), expected, "{end} {count} {highest}");
        }
    }
}
