//! A group: who is in it, now and from now on.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use conclave_client::{
    Cache, CacheChanges, Client, Error as ClientError, Fence, Path, PathError, Refusal, SessionId, Stat, ToPath, Zxid,
};
use futures::future::BoxFuture;
use futures::stream::{Stream, StreamExt};

use crate::ephemeral::{Create, PersistentEphemeral, State};
use crate::error::Result;

/// A group's paths. The [crate's page](crate) says what each is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    group: Path,
    members: Path,
    claims: Path,
}

impl Layout {
    /// Of the group at this path.
    ///
    /// # Errors
    /// When it is no path, or too deep for what lies below it.
    pub fn new(group: impl ToPath) -> Result<Self, PathError> {
        let group = group.to_path()?;
        let (members, claims) = (group.join("members")?, group.join("claims")?);
        members.join("m")?;
        Ok(Self { group, members, claims })
    }

    /// The group itself.
    #[must_use]
    pub const fn group(&self) -> &Path {
        &self.group
    }

    /// The parent of the members.
    #[must_use]
    pub const fn members(&self) -> &Path {
        &self.members
    }

    /// The parent of the claims of a [`Partition`](crate::Partition).
    #[must_use]
    pub const fn claims(&self) -> &Path {
        &self.claims
    }
}

/// One who is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it says of itself.
    pub data: Bytes,
    /// Its session; none when somebody made its znode by hand, and it stays until it is deleted.
    pub session: Option<SessionId>,
    /// The zxid with which it came, or came back.
    pub since: Zxid,
}

/// Who is in a group, as of one zxid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Of which state.
    pub zxid: Zxid,
    /// By their names.
    pub members: BTreeMap<String, Info>,
}

impl View {
    fn new<'a>(zxid: Zxid, members: impl IntoIterator<Item = (&'a str, &'a Stat, Bytes)>) -> Self {
        let info = |(name, stat, data): (&str, &Stat, Bytes)| {
            (name.to_owned(), Info { data, session: stat.owner, since: stat.created })
        };
        Self { zxid, members: members.into_iter().map(info).collect() }
    }

    /// Of a cache that has them.
    pub(crate) fn of(cache: &Cache, members: &Path) -> Result<Self, ClientError> {
        let read = cache.read();
        let found = read.children(members)?;
        let found = found.map(|(path, znode)| (path.name().unwrap_or_default(), &znode.stat, znode.data.clone()));
        Ok(Self::new(read.zxid().unwrap_or_default(), found))
    }
}

/// A group at a path of the tree. The [crate's page](crate) says what it promises.
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
    layout: Layout,
}

impl Group {
    /// The group at a path. Nothing is asked of the cluster yet; its znodes are made when they are needed.
    ///
    /// # Errors
    /// When the text is no path, or too long a one.
    pub fn new(client: &Client, path: impl ToPath) -> Result<Self> {
        Ok(Self { client: client.clone(), layout: Layout::new(path)? })
    }

    /// Its path.
    #[must_use]
    pub const fn path(&self) -> &Path {
        self.layout.group()
    }

    /// Its paths.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The client that it was made with.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Joins under a name, which nobody else has at the same time. See [`Join`] for errors and cancellation.
    pub fn join(&self, name: &str, data: impl Into<Bytes>) -> Join {
        let path = self.layout.members.join(name);
        Join { name: name.to_owned(), create: PersistentEphemeral::create_at(&self.client, path, data.into()) }
    }

    /// Who is in it now.
    ///
    /// # Errors
    /// As every read.
    pub async fn members(&self) -> Result<View> {
        let at = self.client.at(&self.layout.members);
        let listing = match at.children().with_data().await {
            // What came in several pages is not of one state.
            Ok(listing) if listing.whole => listing,
            Ok(_) => return self.all_members().await,
            Err(ClientError::Refused(Refusal::NoZnode { .. })) => return Ok(View::default()),
            Err(error) => return Err(error.into()),
        };
        let members = listing.children.iter().filter_map(|entry| {
            Some((entry.name.as_str(), entry.stat.as_ref()?, entry.data.clone().unwrap_or_default()))
        });
        Ok(View::new(listing.zxid, members))
    }

    async fn all_members(&self) -> Result<View> {
        let mut subtree = self.client.at(&self.layout.members).subtree().with_data().await?;
        let zxid = subtree.zxid();
        let depth = self.layout.members.depth() + 1;
        let mut view = View { zxid, members: BTreeMap::new() };
        while let Some(entry) = subtree.next().await {
            let entry = entry?;
            if let Some(name) = entry.path.name().filter(|_| entry.path.depth() == depth) {
                let data = entry.data.unwrap_or_default();
                let info = Info { data, session: entry.stat.owner, since: entry.stat.created };
                view.members.insert(name.to_owned(), info);
            }
        }
        Ok(view)
    }

    /// Who is in it, now and whenever that has changed. See [`Members`].
    ///
    /// # Errors
    /// As every watch.
    pub async fn watch(&self) -> Result<Members> {
        let cache = self.client.cache(&self.layout.members).await?;
        let changes = cache.changes();
        Ok(Members { cache, changes, path: self.layout.members.clone(), told: None })
    }
}

/// Joins a group; made by [`Group::join`]. Awaited it gives a [`Member`].
///
/// # Errors
/// As [`Create`].
///
/// # Cancellation
/// Dropping the future leaves nobody in the group.
#[derive(Clone, Debug)]
#[must_use = "nobody joins until it is awaited"]
pub struct Join {
    name: String,
    create: Create,
}

impl Join {
    /// See [`Create::replace`].
    pub fn replace(mut self) -> Self {
        self.create = self.create.replace();
        self
    }

    /// See [`Create::within`].
    pub fn within(mut self, time: Duration) -> Self {
        self.create = self.create.within(time);
        self
    }
}

impl IntoFuture for Join {
    type Output = Result<Member>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(Member { name: self.name, znode: self.create.await? }) })
    }
}

/// A place in a group (Curator's `GroupMember`, kazoo's `Party`). It comes back with a new session when its own is lost.
/// Dropping it leaves the group, without waiting and without a report; see [`Member::leave`].
#[derive(Debug)]
#[must_use = "dropping it leaves the group at once"]
pub struct Member {
    name: String,
    znode: PersistentEphemeral,
}

impl Member {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it in the group?
    #[must_use]
    pub fn state(&self) -> State {
        self.znode.state()
    }

    /// See [`PersistentEphemeral::fence`].
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.znode.fence()
    }

    /// Waits until it is in the group.
    ///
    /// # Errors
    /// As [`PersistentEphemeral::present`].
    pub async fn present(&self) -> Result<Fence> {
        self.znode.present().await
    }

    /// Changes what it says of itself.
    ///
    /// # Errors
    /// As [`PersistentEphemeral::set_data`].
    pub async fn set_data(&self, data: impl Into<Bytes>) -> Result<()> {
        self.znode.set_data(data).await
    }

    /// Leaves the group, and waits until the cluster has done it.
    ///
    /// # Errors
    /// As [`PersistentEphemeral::remove`].
    pub async fn leave(self) -> Result<()> {
        self.znode.remove().await
    }

    pub(crate) const fn znode(&self) -> &PersistentEphemeral {
        &self.znode
    }
}

/// A stream of [`View`]s, each the tree at one zxid: first who is in the group now, then whenever that has changed. A
/// slow reader is not told all that was in between.
///
/// It outlives connections, members and sessions. While no member is reachable it tells nothing, and goes on where it
/// was. It ends only with an error that waiting does not mend, such as a client that was closed.
#[derive(Debug)]
#[must_use = "a stream tells only who asks it"]
pub struct Members {
    cache: Cache,
    changes: CacheChanges,
    path: Path,
    told: Option<Zxid>,
}

impl Members {
    /// Who is in the group as far as it is known, without waiting.
    ///
    /// # Errors
    /// None, as long as the group's path is one.
    pub fn now(&self) -> Result<View> {
        Ok(View::of(&self.cache, &self.path)?)
    }

    /// Waits until it knows of this transaction and all before it; then [`Members::now`] does.
    ///
    /// # Errors
    /// Why it has ended.
    pub async fn reached(&self, zxid: Zxid) -> Result<()> {
        Ok(self.cache.reached(zxid).await?)
    }

    /// The next view; none after an error. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why it has ended. Nothing follows it.
    pub async fn next(&mut self) -> Option<Result<View>> {
        StreamExt::next(self).await
    }
}

impl Stream for Members {
    type Item = Result<View>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(told) = this.told {
            loop {
                match ready!(this.changes.poll_next_unpin(cx)) {
                    // It was in the view already that was told last.
                    Some(Ok(set)) if set.to <= told => {}
                    Some(Ok(_)) => break,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => return Poll::Ready(None),
                }
            }
        }
        let view = this.now();
        if let Ok(view) = &view {
            this.told = Some(view.zxid);
        }
        Poll::Ready(Some(view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_below_the_group() {
        let layout = Layout::new("/groups/w").unwrap();
        assert_eq!(layout.group().as_str(), "/groups/w");
        assert_eq!(layout.members().as_str(), "/groups/w/members");
        assert_eq!(layout.claims().as_str(), "/groups/w/claims");
        assert!(Layout::new("groups").is_err());
        assert!(Layout::new("/a".repeat(62)).is_ok());
        assert!(Layout::new("/a".repeat(63)).is_err());
    }
}
