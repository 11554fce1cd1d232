//! Where a queue keeps what in the tree, and what its znodes contain.

use conclave_plugin::{Child, Create, Path, Result, Tree};
use serde::{Deserialize, Serialize};

/// The greatest priority.
pub(crate) const PRIORITIES: u64 = 9;

/// Bytes of an item's data: what a procedure that may park returns has 64 KiB, and `take` returns more than the data.
pub(crate) const ITEM_BYTES: usize = 63 << 10;

/// A queue's paths.
pub(crate) struct Layout {
    pub(crate) queue: Path,
    /// What can be taken: `RANK-ZXID`, so that names sort by priority, then by age.
    pub(crate) items: Path,
    /// What is not due yet: `DUE-ITEM`.
    pub(crate) delayed: Path,
    /// What somebody works on: `UNTIL-ZXID`.
    pub(crate) claimed: Path,
    /// What was delivered too often: under the names of the items.
    pub(crate) dead: Path,
    /// Keys that were pushed lately; each goes by its time to live.
    pub(crate) keys: Path,
}

/// How a queue works: JSON in its own znode.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) visibility_ms: u64,
    pub(crate) max_deliveries: u64,
    pub(crate) bound: u64,
    pub(crate) dedup_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { visibility_ms: 30_000, max_deliveries: 5, bound: 100_000, dedup_ms: 300_000 }
    }
}

/// What is known of an item: a line of JSON before its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    /// How often it was given to somebody.
    pub(crate) deliveries: u64,
    pub(crate) pushed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Of a claim: which item.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) item: String,
    /// Of a claim: until when; it may have been extended since it got its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until_ms: Option<u64>,
}

/// An item as it lies in a znode.
pub(crate) struct Item {
    pub(crate) header: Header,
    pub(crate) data: Vec<u8>,
}

impl Layout {
    pub(crate) fn new(queue: &Path) -> Result<Self> {
        Ok(Self {
            queue: queue.clone(),
            items: queue.join("items")?,
            delayed: queue.join("delayed")?,
            claimed: queue.join("claimed")?,
            dead: queue.join("dead")?,
            keys: queue.join("keys")?,
        })
    }

    pub(crate) fn config(&self, tree: &Tree) -> Result<Config> {
        match tree.get(&self.queue)? {
            Some(znode) if !znode.data.is_empty() => {
                znode.json().map_err(|error| format!("{} is no queue: {error}", self.queue).into())
            }
            _ => Ok(Config::default()),
        }
    }

    pub(crate) fn put(&self, tree: &Tree, below: &Path, name: &str, item: &Item) -> Result<()> {
        tree.create(below.join(name)?, item.encode()?, Create::with_parents()).map(drop)
    }
}

impl Layout {
    /// Puts back what was there before, under a name of its own if somebody has put something there by hand meanwhile.
    pub(crate) fn put_back(&self, tree: &Tree, below: &Path, name: &str, item: &Item) -> Result<()> {
        let mut free = name.to_owned();
        let mut number = 1;
        while tree.exists(below.join(&free)?)?.is_some() {
            number += 1;
            free = format!("{name}-{number}");
        }
        self.put(tree, below, &free, item)
    }
}

impl Item {
    /// Out of a znode's data. What somebody put there by hand is all data.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let parts = end.map(|end| (&bytes[..end], &bytes[end + 1..]));
        match parts.and_then(|(header, data)| Some((serde_json::from_slice(header).ok()?, data))) {
            Some((header, data)) => Self { header, data: data.to_vec() },
            None => Self { header: Header::default(), data: bytes.to_vec() },
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&self.header)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.data);
        Ok(bytes)
    }
}

/// An item's name: greater priorities first, then the oldest. One transaction pushes one item, so no two have the same.
pub(crate) fn item_name(priority: u64, zxid: u64) -> String {
    format!("{}-{zxid:020}", PRIORITIES - priority.min(PRIORITIES))
}

/// A name that sorts by a time.
pub(crate) fn timed(ms: u64, rest: &str) -> String {
    format!("{ms:014}-{rest}")
}

/// The time in such a name, and the rest.
pub(crate) fn time_of(child: &Child) -> Option<(u64, &str)> {
    let (time, rest) = child.name().split_once('-')?;
    Some((time.parse().ok()?, rest))
}
