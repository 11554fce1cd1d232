//! A lock as one sees it who stands in line on plain znodes, or is told of it while it waits.

use std::future::IntoFuture;

use conclave_awards::line::order;
use conclave_awards::wait::On;
use conclave_client::{Client, Entry, Error as ClientError, Fence, Refusal, Session, SessionId, Zxid};

use crate::decide::{Decision, Seen, decide, in_the_way};
use crate::error::{Error, Result};
use crate::layout::{Layout, Settings, Who};
use crate::view::{self, Holder};
use crate::want::Want;

/// What was read, each part at a moment of its own, all at about the same time.
#[derive(Debug)]
pub(crate) struct Look {
    /// All children of the line.
    line: Vec<Entry>,
    /// The version at which the line was empty; none when it was not, or is not there.
    empty_at: Option<u64>,
    /// The line is there.
    has_line: bool,
    holder: Option<Holder>,
    /// Those who share it; none when there is no place for them yet.
    shared: Option<Vec<(Holder, u64)>>,
    /// The semaphore's version and capacity, or why it is none.
    semaphore: Result<(u64, u64), String>,
    /// The oldest of the moments.
    since: Zxid,
}

impl Look {
    /// Reads what decides about this: all that is needed, at once.
    pub(crate) async fn read(client: &Client, layout: &Layout, want: Want) -> Result<Self> {
        let line = async {
            let at = client.at(layout.line());
            let (stat, listing) = futures::join!(at.stat().into_future(), at.children().into_future());
            Ok::<_, Error>((stat?, none_if_missing(listing)?))
        };
        let shared = async {
            match want {
                Want::Mutex => Ok(None),
                Want::Write | Want::Read | Want::Permits(_) => {
                    Ok(none_if_missing(client.at(layout.shared()).children().with_data().await)?)
                }
            }
        };
        let semaphore = async {
            match want {
                Want::Permits(_) => Ok(none_if_missing(client.at(layout.lock()).get().await)?),
                Want::Mutex | Want::Write | Want::Read => Ok(None),
            }
        };
        let ((stat, listing), holder, shared, semaphore) =
            futures::try_join!(line, view::holder(client, layout), shared, semaphore)?;
        let moments = [
            listing.as_ref().map(|listing| listing.zxid),
            holder.as_ref().map(|(_, zxid)| *zxid),
            shared.as_ref().map(|listing| listing.zxid),
            semaphore.as_ref().map(|znode| znode.zxid),
        ];
        Ok(Self {
            empty_at: stat.filter(|stat| stat.children == 0).map(|stat| stat.version),
            has_line: stat.is_some(),
            line: listing.map(|listing| listing.children).unwrap_or_default(),
            holder: holder.map(|(holder, _)| holder),
            shared: shared.map(|listing| sharers(layout, &listing.children)).transpose()?,
            since: moments.into_iter().flatten().min().unwrap_or(Zxid(0)),
            semaphore: match semaphore {
                None => Err("it does not exist".to_owned()),
                Some(znode) if znode.data.is_empty() => Err("it says no capacity".to_owned()),
                Some(znode) => serde_json::from_slice::<Settings>(&znode.data)
                    .map(|settings| (znode.stat.version, settings.capacity))
                    .map_err(|error| format!("it says no capacity ({error})")),
            },
        })
    }

    /// What its own place, of this name, means.
    pub(crate) fn decide(&self, layout: &Layout, want: Want, me: &str) -> Decision {
        decide(layout, want, &self.seen(), me)
    }

    /// What keeps one out who does not stand in line; none when nothing does.
    pub(crate) fn keeps_out(&self, layout: &Layout, want: Want) -> Vec<On> {
        in_the_way(layout, want, &self.seen())
    }

    fn seen(&self) -> Seen<'_> {
        let shared = self.shared.as_deref().unwrap_or_default();
        Seen {
            line: self.line.iter().map(|entry| entry.name.as_str()).collect(),
            held: self.holder.is_some(),
            sharers: shared.len(),
            used: shared.iter().map(|(_, permits)| *permits).fold(0, u64::saturating_add),
            capacity: self.semaphore.as_ref().map_or(0, |(_, capacity)| *capacity),
        }
    }

    /// Who holds it; of several who share it, one.
    pub(crate) fn holder(&self) -> Option<&Holder> {
        let sharer = || self.shared.iter().flatten().map(|(holder, _)| holder).next();
        self.holder.as_ref().or_else(sharer)
    }

    /// How many stand in line.
    pub(crate) fn waiting(&self) -> usize {
        self.line.iter().filter(|entry| order(&entry.name).is_some()).count()
    }

    /// How many of another session's stand in line.
    pub(crate) fn waiting_besides(&self, session: SessionId) -> usize {
        let is_own = |entry: &&Entry| entry.stat.is_some_and(|stat| stat.owner == Some(session));
        self.waiting().saturating_sub(self.line.iter().filter(is_own).count())
    }

    /// The version at which the line was seen empty.
    pub(crate) const fn empty_at(&self) -> Option<u64> {
        self.empty_at
    }

    /// Is the line there?
    pub(crate) const fn has_line(&self) -> bool {
        self.has_line
    }

    /// Is there a place for those who share it?
    pub(crate) const fn has_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Nothing that has happened since this is missed by who watches from it on.
    pub(crate) const fn since(&self) -> Zxid {
        self.since
    }

    /// The semaphore's version and capacity.
    pub(crate) fn semaphore(&self) -> Result<(u64, u64), String> {
        self.semaphore.clone()
    }

    /// The first place in line of this session.
    pub(crate) fn place_of(&self, session: SessionId) -> Option<&str> {
        let own = self.line.iter().filter(|entry| entry.stat.is_some_and(|stat| stat.owner == Some(session)));
        own.filter_map(|entry| order(&entry.name)).min().map(|(_, name)| name)
    }

    /// What this session holds that keeps it from waiting for what it wants: it would be waiting for itself.
    pub(crate) fn own(&self, session: &Session, want: Want) -> Option<Fence> {
        let is_own = |holder: &&Holder| holder.session == Some(session.id());
        let alone = self.holder.as_ref().filter(is_own);
        let mut sharers = self.shared.iter().flatten().map(|(holder, _)| holder);
        let own = match want {
            Want::Mutex => alone,
            Want::Write => alone.or_else(|| sharers.find(is_own)),
            // It may share once more what it shares, as long as nobody has come in between.
            Want::Read if self.waiting() > 0 => alone.or_else(|| sharers.find(is_own)),
            Want::Read => alone,
            // Permits are many, and so may the tasks be that hold some.
            Want::Permits(_) => None,
        };
        own.map(|holder| holder.fence.clone())
    }

    /// Does this session share it?
    pub(crate) fn shares(&self, session: &Session) -> bool {
        self.shared.iter().flatten().any(|(holder, _)| holder.session == Some(session.id()))
    }
}

fn sharers(layout: &Layout, entries: &[Entry]) -> Result<Vec<(Holder, u64)>> {
    let read = entries.iter().map(|entry| {
        let data = entry.data.as_deref().unwrap_or_default();
        let holder = Holder::new(&layout.shared().join(&entry.name)?, data, &entry.stat.unwrap_or_default());
        Ok((holder, Who::decode(data).permits.unwrap_or(1)))
    });
    read.collect()
}

/// What was read, or that it is not there.
pub(crate) fn none_if_missing<T>(read: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Refused(Refusal::NoZnode { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}
