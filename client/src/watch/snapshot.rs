//! The present state of what is watched, as of one zxid: what a watch begins with, and takes again after a `Resync`.

use std::time::Duration;

use conclave_protocol::{Path, Pattern, Refusal, Scope, TreeEntry, Zxid};
use futures::stream::{self, BoxStream, StreamExt};

use super::WatchEvent;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::znode::{At, SubtreeStream};

/// How long to wait before it is read again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often a list of children of several pages is read before it is taken from the whole subtree.
const LISTINGS: usize = 3;
/// How long a subtree may take to begin: members let it wait for its turn, and say that they are there. Connections that
/// say nothing are given up long before.
const OPENING: Duration = Duration::from_secs(600);

/// What is to be read.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) client: Client,
    pub(super) path: Path,
    pub(super) scope: Scope,
    pub(super) names: Option<Pattern>,
    pub(super) data: bool,
}

enum Stage {
    Begin,
    Subtree { stream: Box<SubtreeStream>, part: u64 },
    End,
}

impl Snapshot {
    /// Its parts, of a state that holds this transaction. The last event says that there are no more; after a
    /// disturbance they begin anew with part 0.
    pub(super) fn parts(&self, at_least: Zxid) -> BoxStream<'static, Result<WatchEvent>> {
        let begin = (self.clone(), Stage::Begin);
        let parts = stream::unfold(begin, move |(this, mut stage)| async move {
            loop {
                let done = match stage {
                    Stage::Begin => this.begin(at_least).await,
                    Stage::Subtree { stream, part } => this.go_on(stream, part).await,
                    Stage::End => return None,
                };
                match done {
                    Ok((event, next)) => return Some((Ok(event), (this, next))),
                    // Connections break, and this has no deadline: it goes on until the client is closed.
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(%error, path = %this.path, "a snapshot is read again");
                        tokio::time::sleep(AGAIN).await;
                        stage = Stage::Begin;
                    }
                    Err(error) => return Some((Err(error), (this, Stage::End))),
                }
            }
        });
        parts.boxed()
    }

    async fn begin(&self, at_least: Zxid) -> Result<(WatchEvent, Stage)> {
        let (zxid, entries) = match self.scope {
            Scope::Data | Scope::Existence => self.one().await?,
            Scope::Children => self.children().await?,
            Scope::Subtree => match self.at().subtree_for(self.data).await {
                Ok(stream) => {
                    let event = WatchEvent::Snapshot { zxid: stream.zxid(), part: 0, entries: Vec::new(), more: true };
                    check(stream.zxid(), at_least)?;
                    return Ok((event, Stage::Subtree { stream: Box::new(stream), part: 1 }));
                }
                Err(Error::Refused(Refusal::NoZnode { .. })) => self.nothing().await?,
                Err(error) => return Err(error),
            },
        };
        check(zxid, at_least)?;
        let entries = entries.into_iter().filter(|entry| self.matches(entry)).collect();
        Ok((WatchEvent::Snapshot { zxid, part: 0, entries, more: false }, Stage::End))
    }

    async fn go_on(&self, mut stream: Box<SubtreeStream>, part: u64) -> Result<(WatchEvent, Stage)> {
        let zxid = stream.zxid();
        match std::future::poll_fn(|cx| stream.poll_part(cx)).await.transpose()? {
            Some(entries) => {
                let entries = entries.into_iter().filter(|entry| self.matches(entry)).collect();
                let event = WatchEvent::Snapshot { zxid, part, entries, more: true };
                Ok((event, Stage::Subtree { stream, part: part + 1 }))
            }
            None => Ok((WatchEvent::Snapshot { zxid, part, entries: Vec::new(), more: false }, Stage::End)),
        }
    }

    /// The znode itself.
    async fn one(&self) -> Result<(Zxid, Vec<TreeEntry>)> {
        let entry = |stat, data| TreeEntry { path: self.path.clone(), stat, data };
        if !self.data {
            let (zxid, stat) = self.at().stat().session().with_zxid().await?;
            return Ok((zxid, stat.map(|stat| entry(stat, None)).into_iter().collect()));
        }
        match self.at().get().session().await {
            Ok(znode) => Ok((znode.zxid, vec![entry(znode.stat, Some(znode.data))])),
            Err(Error::Refused(Refusal::NoZnode { .. })) => self.nothing().await,
            Err(error) => Err(error),
        }
    }

    /// It is not there: as of when. A refusal does not say.
    async fn nothing(&self) -> Result<(Zxid, Vec<TreeEntry>)> {
        match self.at().stat().session().with_zxid().await? {
            (zxid, None) => Ok((zxid, Vec::new())),
            (_, Some(_)) => Err(changed(&self.path)),
        }
    }

    /// The children. Which there are is that of one zxid; stats and data of those on later pages may be newer.
    async fn children(&self) -> Result<(Zxid, Vec<TreeEntry>)> {
        for _ in 0..LISTINGS {
            let (zxid, Some(before)) = self.at().stat().session().with_zxid().await? else {
                return self.nothing().await;
            };
            let listing = self.at().children().session();
            let listing = match (if self.data { listing.with_data() } else { listing }).await {
                Err(Error::Refused(Refusal::NoZnode { .. })) => return self.nothing().await,
                listing => listing?,
            };
            let (zxid, after) = if listing.whole {
                (listing.zxid.max(zxid), Some(before))
            } else {
                self.at().stat().session().with_zxid().await?
            };
            let same = |stat: &conclave_protocol::Stat| {
                (stat.created, stat.children_version) == (before.created, before.children_version)
            };
            if after.as_ref().is_some_and(same) {
                let entry = |entry: conclave_protocol::Entry| {
                    let (path, stat) = (self.path.join(&entry.name)?, entry.stat.unwrap_or_default());
                    Ok(TreeEntry { path, stat, data: entry.data })
                };
                let entries = listing.children.into_iter().map(entry).collect::<Result<_>>()?;
                return Ok((zxid, entries));
            }
        }
        // They change faster than they can be listed.
        let mut stream = match self.at().subtree_for(self.data).await {
            Err(Error::Refused(Refusal::NoZnode { .. })) => return self.nothing().await,
            stream => stream?,
        };
        let mut entries = Vec::new();
        while let Some(entry) = stream.next().await.transpose()? {
            if entry.path.depth() == self.path.depth() + 1 {
                entries.push(entry);
            }
        }
        Ok((stream.zxid(), entries))
    }

    fn at(&self) -> At {
        self.client.at(&self.path)
    }

    /// Whether it has a name that is watched: the one that the members know it by.
    fn matches(&self, entry: &TreeEntry) -> bool {
        let Some(names) = &self.names else { return true };
        match entry.path.name() {
            Some(name) => names.matches(name),
            None => names.matches(self.client.root().name().unwrap_or_default()),
        }
    }
}

/// It changed between two looks: it is looked at again.
fn changed(path: &Path) -> Error {
    crate::side::interrupted(format!("{path} was created meanwhile"))
}

/// A member never shows a state that is older than what was seen; events before it would otherwise be missing.
fn check(zxid: Zxid, at_least: Zxid) -> Result<()> {
    if zxid >= at_least {
        return Ok(());
    }
    Err(crate::side::interrupted(format!("the state is that of {zxid}, {at_least} was told already")))
}

impl At {
    async fn subtree_for(&self, data: bool) -> Result<SubtreeStream> {
        let subtree = self.subtree().session().within(OPENING);
        if data { subtree.with_data().await } else { subtree.await }
    }
}
