//! Who holds a lock and who waits for it, for people to see.

use std::fmt;
use std::time::{Duration, SystemTime};

use conclave_awards::line::order;
use conclave_client::{Client, Entry, Fence, Path, SessionId, Stat, Zxid};
use serde::Deserialize;

use crate::error::Result;
use crate::layout::{Layout, Settings, Who, is_reader};
use crate::lock::{Lock, PLUGIN};
use crate::look::none_if_missing;

/// Who holds a lock. `Display` names it in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its principal; empty if the holder znode does not say.
    pub principal: String,
    /// What it says of itself.
    pub note: Option<String>,
    /// Since when, in cluster time.
    pub since: SystemTime,
    /// Of the award.
    pub fence: Fence,
    /// Its session; none when the znode was created by hand and stays until it is deleted.
    pub session: Option<SessionId>,
}

/// One who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its principal; empty if its place does not say.
    pub principal: String,
    /// What it says of itself.
    pub note: Option<String>,
    /// Since when, in cluster time.
    pub since: SystemTime,
    /// Its place in line.
    pub place: Path,
    /// Its session; none when the place was created by hand.
    pub session: Option<SessionId>,
}

/// A mutex as it was seen, at one moment; of a plain one the line can be a moment newer than the holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Who waits for it, the next one first.
    pub waiters: Vec<Waiter>,
}

/// A read-write lock or a semaphore as it was seen; of a plain one each part at a moment of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Who holds it alone.
    pub holder: Option<Holder>,
    /// Who shares it, or holds permits.
    pub shared: Vec<Sharer>,
    /// Who waits for it, the next one first.
    pub line: Vec<Claim>,
    /// Of a semaphore: how many permits there are.
    pub capacity: Option<u64>,
}

/// One who shares a lock, or holds permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// Who it is.
    pub holder: Holder,
    /// How many permits it holds; of a semaphore.
    pub permits: Option<u64>,
}

/// One who waits, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who it is.
    pub waiter: Waiter,
    /// It wants to share the lock, to read.
    pub is_shared: bool,
    /// How many permits it wants; of a semaphore.
    pub permits: Option<u64>,
}

impl Overview {
    /// The permits that are held.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shared.iter().map(|sharer| sharer.permits.unwrap_or(1)).fold(0, u64::saturating_add)
    }
}

/// What one who waits is told; see [`Acquire::on_wait`](crate::Acquire::on_wait).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many are before it in line; the holder, who has left the line, is not counted.
    pub ahead: usize,
    /// Who holds the lock, of several who share it one; none when those ahead are about to get it.
    pub holder: Option<Holder>,
}

impl Holder {
    /// For how long, by this machine's clock: for people, not for decisions.
    #[must_use]
    pub fn held_for(&self) -> Duration {
        ago(self.since)
    }

    pub(crate) fn new(path: &Path, data: &[u8], stat: &Stat) -> Self {
        Seen::new(path.clone(), data, stat).holder()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, note, .. } = self;
        match (principal.as_str(), note) {
            ("", None) => f.write_str("somebody who does not say")?,
            ("", Some(note)) => f.write_str(note)?,
            (principal, None) => f.write_str(principal)?,
            (principal, Some(note)) => write!(f, "{principal} ({note})")?,
        }
        write!(f, " for {} s", self.held_for().as_secs())
    }
}

impl Waiter {
    /// For how long, by this machine's clock: for people, not for decisions.
    #[must_use]
    pub fn waited_for(&self) -> Duration {
        ago(self.since)
    }
}

/// A holder, or a place in line, as it was seen: what the query `show` tells of it.
#[derive(Debug, Deserialize)]
struct Seen {
    path: Path,
    /// Of its creation.
    zxid: Zxid,
    since_ms: u64,
    session: Option<SessionId>,
    #[serde(flatten)]
    who: Who,
}

/// What the query `show` tells.
#[derive(Debug, Deserialize)]
struct Shown {
    holder: Option<Seen>,
    shared: Vec<Seen>,
    line: Vec<Seen>,
}

impl Seen {
    fn new(path: Path, data: &[u8], stat: &Stat) -> Self {
        Self { path, zxid: stat.created, since_ms: stat.created_ms, session: stat.owner, who: Who::decode(data) }
    }

    fn child(parent: &Path, entry: Entry) -> Result<Self> {
        let data = entry.data.unwrap_or_default();
        Ok(Self::new(parent.join(&entry.name)?, &data, &entry.stat.unwrap_or_default()))
    }

    fn holder(self) -> Holder {
        let Self { path, zxid, since_ms, session, who: Who { principal, note, .. } } = self;
        Holder { principal, note, since: time(since_ms), fence: Fence { path, zxid }, session }
    }

    fn sharer(self) -> Sharer {
        let permits = self.who.permits;
        Sharer { holder: self.holder(), permits }
    }

    fn waiter(self) -> Waiter {
        let Self { path, since_ms, session, who: Who { principal, note, .. }, .. } = self;
        Waiter { principal, note, since: time(since_ms), place: path, session }
    }

    fn claim(self) -> Claim {
        let (is_shared, permits) = (self.path.name().is_some_and(is_reader), self.who.permits);
        Claim { waiter: self.waiter(), is_shared, permits }
    }
}

/// Reads who holds it, and of which zxid that is.
pub(crate) async fn holder(client: &Client, layout: &Layout) -> Result<Option<(Holder, Zxid)>> {
    let znode = none_if_missing(client.at(layout.holder()).get().await)?;
    Ok(znode.map(|znode| (Holder::new(layout.holder(), &znode.data, &znode.stat), znode.zxid)))
}

/// Reads a mutex.
pub(crate) async fn view(lock: &Lock) -> Result<View> {
    let Shown { holder, line, .. } = show(lock, false).await?;
    let waiters = line.into_iter().map(Seen::waiter).collect();
    Ok(View { holder: holder.map(Seen::holder), waiters })
}

/// Reads a read-write lock or a semaphore.
pub(crate) async fn overview(lock: &Lock) -> Result<Overview> {
    let own = async { Ok(none_if_missing(lock.client.at(lock.layout.lock()).get().await)?) };
    let (Shown { holder, shared, line }, own) = futures::try_join!(show(lock, true), own)?;
    let settings = own.and_then(|znode| serde_json::from_slice::<Settings>(&znode.data).ok());
    Ok(Overview {
        holder: holder.map(Seen::holder),
        shared: shared.into_iter().map(Seen::sharer).collect(),
        line: line.into_iter().map(Seen::claim).collect(),
        capacity: settings.map(|settings| settings.capacity),
    })
}

/// All of it: by the plugin's query in one look; of a plain lock part by part, and those who share it only if wanted.
async fn show(lock: &Lock, with_shared: bool) -> Result<Shown> {
    let Lock { client, layout, .. } = lock;
    if !lock.is_plain {
        return Ok(client.ask(PLUGIN, "show").arg("path", layout.lock().as_str()).typed().await?);
    }
    let children = async |parent: &Path| {
        let listing = none_if_missing(client.at(parent).children().with_data().await)?;
        let children = listing.map(|listing| listing.children).unwrap_or_default();
        children.into_iter().map(|entry| Seen::child(parent, entry)).collect::<Result<Vec<_>>>()
    };
    let shared = async { if with_shared { children(layout.shared()).await } else { Ok(Vec::new()) } };
    let holder = async {
        let znode = none_if_missing(client.at(layout.holder()).get().await)?;
        Ok(znode.map(|znode| Seen::new(layout.holder().clone(), &znode.data, &znode.stat)))
    };
    let (holder, shared, mut line) = futures::try_join!(holder, shared, children(layout.line()))?;
    line.retain(|place| place.path.name().and_then(order).is_some());
    line.sort_by(|a, b| a.path.name().and_then(order).cmp(&b.path.name().and_then(order)));
    Ok(Shown { holder, shared, line })
}

/// A moment in cluster time.
pub(crate) fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn ago(since: SystemTime) -> Duration {
    // Cluster time may be ahead of this machine's clock.
    SystemTime::now().duration_since(since).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_by_what_is_known_of_it() {
        let stat = Stat { created: Zxid(7), created_ms: u64::MAX, ..Stat::default() };
        let path = Path::parse("/m/holder").unwrap();
        for (data, expected) in [
            (r#"{"principal":"ann"}"#, "ann for 0 s"),
            (r#"{"principal":"ann","note":"deploy"}"#, "ann (deploy) for 0 s"),
            ("maintenance", "maintenance for 0 s"),
            ("", "somebody who does not say for 0 s"),
        ] {
            let holder = Holder { since: SystemTime::now(), ..Holder::new(&path, data.as_bytes(), &stat) };
            assert_eq!(holder.to_string(), expected);
            assert_eq!(holder.fence.to_string(), "/m/holder@7");
        }
    }
}
