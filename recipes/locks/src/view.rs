//! Who holds a lock and who waits for it, for people to see.

use std::fmt;
use std::time::{Duration, SystemTime};

use conclave_client::{Client, Error, Fence, Path, Refusal, SessionId, Stat, Zxid};

use crate::decide::order;
use crate::error::Result;
use crate::layout::{Layout, Who};

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

/// A lock as it was seen. The line was read after the holder: it can be a moment newer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Who holds it.
    pub holder: Option<Holder>,
    /// Who waits for it, the next one first.
    pub waiters: Vec<Waiter>,
}

/// What one who waits is told; see [`Acquire::on_wait`](crate::Acquire::on_wait).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many are before it in line; the holder, who has left the line, is not counted.
    pub ahead: usize,
    /// Who holds the lock; none when those ahead are about to get it.
    pub holder: Option<Holder>,
}

impl Holder {
    /// For how long, by this machine's clock: for people, not for decisions.
    #[must_use]
    pub fn held_for(&self) -> Duration {
        ago(self.since)
    }

    fn new(path: &Path, data: &[u8], stat: &Stat) -> Self {
        let Who { principal, note } = Who::decode(data);
        let fence = Fence { path: path.clone(), zxid: stat.created };
        Self { principal, note, since: time(stat), fence, session: stat.owner }
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

/// Reads who holds it, and of which zxid that is.
pub(crate) async fn holder(client: &Client, layout: &Layout) -> Result<Option<(Holder, Zxid)>> {
    match client.at(layout.holder()).get().await {
        Ok(znode) => Ok(Some((Holder::new(layout.holder(), &znode.data, &znode.stat), znode.zxid))),
        Err(Error::Refused(Refusal::NoZnode { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads all of it.
pub(crate) async fn view(client: &Client, layout: &Layout) -> Result<View> {
    let holder = holder(client, layout).await?.map(|(holder, _)| holder);
    let line = match client.at(layout.line()).children().with_data().await {
        Ok(line) => line.children,
        Err(Error::Refused(Refusal::NoZnode { .. })) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut waiters = Vec::with_capacity(line.len());
    for entry in line.iter().filter(|entry| order(&entry.name).is_some()) {
        let Who { principal, note } = Who::decode(entry.data.as_deref().unwrap_or_default());
        let place = layout.line().join(&entry.name)?;
        waiters.push(Waiter { principal, note, since: time(&entry.stat), place, session: entry.stat.owner });
    }
    waiters.sort_by(|a, b| a.place.name().and_then(order).cmp(&b.place.name().and_then(order)));
    Ok(View { holder, waiters })
}

fn time(stat: &Stat) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(stat.created_ms)).unwrap_or(SystemTime::UNIX_EPOCH)
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
