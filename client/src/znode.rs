//! One znode's requests: what [`Client::at`](crate::Client::at) offers.

use std::future::IntoFuture;

use bytes::Bytes;
use conclave_protocol::{
    Answer, Create as CreateOp, Delete as DeleteOp, Entry, Kind, Op, Page, Path, PathError, Query, Set as SetOp, Stat,
    Value, Zxid, limits,
};
use futures::future::BoxFuture;
use futures::stream::{self, Stream};

use crate::builder::{Read, ToPath, Write, read_methods, write_methods};
use crate::client::Client;
use crate::error::{Error, Result};

/// A znode as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    /// Its data.
    pub data: Bytes,
    /// Its stat.
    pub stat: Stat,
    /// The zxid of the state that it was read from.
    pub zxid: Zxid,
}

/// A znode that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its path; a sequential one's has its number.
    pub path: Path,
    /// Its stat; `stat.created` is the transaction's zxid.
    pub stat: Stat,
}

/// Children as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In order of their names' bytes.
    pub children: Vec<Entry>,
    /// The zxid of the state that the first page was read from: a watch `since` it misses nothing.
    pub zxid: Zxid,
    /// All of it is one state: it came in one page.
    pub whole: bool,
}

/// The place that requests are about; made by [`Client::at`](crate::Client::at).
#[derive(Clone, Debug)]
#[must_use = "say what to do there"]
pub struct At {
    client: Client,
    path: Result<Path, PathError>,
}

impl At {
    pub(crate) fn new(client: Client, path: impl ToPath) -> Self {
        Self { client, path: path.to_path() }
    }

    /// Reads data and stat.
    pub fn get(&self) -> Get {
        Get { path: self.path.clone(), read: Read::new(self.client.clone()) }
    }

    /// Is it there?
    pub fn exists(&self) -> Exists {
        Exists { stat: self.stat() }
    }

    /// Reads the stat, or none if it is not there.
    pub fn stat(&self) -> GetStat {
        GetStat { path: self.path.clone(), read: Read::new(self.client.clone()) }
    }

    /// Lists the children.
    pub fn children(&self) -> Children {
        Children {
            path: self.path.clone(),
            after: None,
            limit: limits::PAGE_CHILDREN,
            data: false,
            read: Read::new(self.client.clone()),
        }
    }

    /// Replaces the data.
    pub fn set(&self, data: impl Into<Bytes>) -> Set {
        Set { path: self.path.clone(), data: data.into(), if_version: None, write: Write::new(self.client.clone()) }
    }

    /// Creates it.
    pub fn create(&self, data: impl Into<Bytes>) -> Create {
        Create {
            path: self.path.clone(),
            data: data.into(),
            kind: Kind::default(),
            parents: false,
            write: Write::new(self.client.clone()),
        }
    }

    /// Deletes it.
    pub fn delete(&self) -> Delete {
        Delete { path: self.path.clone(), if_version: None, recursive: false, write: Write::new(self.client.clone()) }
    }
}

/// Reads data and stat. Gives a [`Znode`]; refused with `no-znode` when there is none.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Get {
    path: Result<Path, PathError>,
    read: Read,
}

impl Get {
    read_methods!();
}

impl IntoFuture for Get {
    type Output = Result<Znode>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.read.send(Query::Get { path: self.path? }).await? {
                (zxid, Answer::Znode { data, stat }) => Ok(Znode { data, stat, zxid }),
                _ => Err(Error::Mismatch { question: "get" }),
            }
        })
    }
}

/// Reads the stat. Gives `Option<Stat>`.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct GetStat {
    path: Result<Path, PathError>,
    read: Read,
}

impl GetStat {
    read_methods!();
}

impl IntoFuture for GetStat {
    type Output = Result<Option<Stat>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.read.send(Query::Exists { path: self.path? }).await? {
                (_, Answer::Exists(stat)) => Ok(stat),
                _ => Err(Error::Mismatch { question: "exists" }),
            }
        })
    }
}

/// Is it there? Gives `bool`.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Exists {
    stat: GetStat,
}

impl Exists {
    /// See [`GetStat::within`].
    pub fn within(self, time: std::time::Duration) -> Self {
        Self { stat: self.stat.within(time) }
    }

    /// See [`GetStat::linearizable`].
    pub fn linearizable(self) -> Self {
        Self { stat: self.stat.linearizable() }
    }

    /// See [`GetStat::session`].
    pub fn session(self) -> Self {
        Self { stat: self.stat.session() }
    }

    /// See [`GetStat::stale`].
    pub fn stale(self) -> Self {
        Self { stat: self.stat.stale() }
    }
}

impl IntoFuture for Exists {
    type Output = Result<bool>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.stat.await?.is_some()) })
    }
}

/// Lists children in order of their names. Awaited it gives all of them, a [`Listing`]; [`Children::page`] one page,
/// [`Children::stream`] one after the other. Pages are read one by one: only what is within one page is one state.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Children {
    path: Result<Path, PathError>,
    after: Option<String>,
    limit: u32,
    data: bool,
    read: Read,
}

impl Children {
    read_methods!();

    /// With their data.
    pub fn with_data(mut self) -> Self {
        self.data = true;
        self
    }

    /// Only names after this one.
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after = Some(name.into());
        self
    }

    /// At most this many in a page, 1 to [`limits::PAGE_CHILDREN`]; the number in all is not limited by it.
    pub fn page_size(mut self, children: u32) -> Self {
        self.limit = children.clamp(1, limits::PAGE_CHILDREN);
        self
    }

    /// One page, and the zxid of the state that it was read from.
    ///
    /// # Errors
    /// As every read; refused with `no-znode` when there is no such znode.
    pub async fn page(&self) -> Result<(Zxid, Page)> {
        let query =
            Query::Children { path: self.path.clone()?, after: self.after.clone(), limit: self.limit, data: self.data };
        match self.read.send(query).await? {
            (zxid, Answer::Page(page)) => Ok((zxid, page)),
            _ => Err(Error::Mismatch { question: "children" }),
        }
    }

    /// The children one by one; pages are read as they are needed. Ends after the first error.
    pub fn stream(self) -> impl Stream<Item = Result<Entry>> + Send + Unpin {
        let begin = Some((self, Vec::new().into_iter(), true));
        Box::pin(stream::unfold(begin, |state| async {
            let (mut rest, mut entries, mut more) = state?;
            loop {
                if let Some(entry) = entries.next() {
                    return Some((Ok(entry), Some((rest, entries, more))));
                }
                if !more {
                    return None;
                }
                match rest.page().await {
                    Ok((_, page)) => {
                        more = page.more && rest.go_on(&page);
                        entries = page.children.into_iter();
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        }))
    }

    /// Moves the cursor behind the page; false when the page is empty, which would never end.
    fn go_on(&mut self, page: &Page) -> bool {
        let last = page.children.last().map(|entry| entry.name.clone());
        let goes_on = last.is_some();
        self.after = last.or(self.after.take());
        goes_on
    }
}

impl IntoFuture for Children {
    type Output = Result<Listing>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move {
            let (zxid, mut page) = self.page().await?;
            let mut more = page.more && self.go_on(&page);
            let mut listing = Listing { children: std::mem::take(&mut page.children), zxid, whole: !more };
            while more {
                let (_, page) = self.page().await?;
                more = page.more && self.go_on(&page);
                listing.children.extend(page.children);
            }
            Ok(listing)
        })
    }
}

/// Replaces the data. Gives the new [`Stat`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Set {
    path: Result<Path, PathError>,
    data: Bytes,
    if_version: Option<u64>,
    write: Write,
}

impl Set {
    write_methods!();

    /// Only when its data has this version; else it is refused with `bad-version`, which names the actual one.
    pub fn if_version(mut self, version: u64) -> Self {
        self.if_version = Some(version);
        self
    }
}

impl IntoFuture for Set {
    type Output = Result<Stat>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { path, data, if_version, write } = self;
        let op = path.map(|path| Op::Set(SetOp { path, data, if_version })).map_err(Into::into);
        Box::pin(async move {
            match write.send(op).await? {
                Value::Set { stat } => Ok(stat),
                _ => Err(Error::Mismatch { question: "set" }),
            }
        })
    }
}

/// Creates the znode. Gives [`Created`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Create {
    path: Result<Path, PathError>,
    data: Bytes,
    kind: Kind,
    parents: bool,
    write: Write,
}

impl Create {
    write_methods!();

    /// It goes with the client's session, which is opened if there is none.
    pub fn ephemeral(mut self) -> Self {
        self.kind.ephemeral = true;
        self.write.in_session = true;
        self
    }

    /// Its name is the path's last name, completed by its parent's next number (at least ten digits).
    pub fn sequential(mut self) -> Self {
        self.kind.sequential = true;
        self
    }

    /// Missing parents are created too, persistent and empty, in the same transaction.
    pub fn parents(mut self) -> Self {
        self.parents = true;
        self
    }
}

impl IntoFuture for Create {
    type Output = Result<Created>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { path, data, kind, parents, write } = self;
        let op = path.map(|path| Op::Create(CreateOp { path, data, kind, parents })).map_err(Into::into);
        Box::pin(async move {
            match write.send(op).await? {
                Value::Created { path, stat } => Ok(Created { path, stat }),
                _ => Err(Error::Mismatch { question: "create" }),
            }
        })
    }
}

/// Deletes the znode. Gives how many znodes went.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Delete {
    path: Result<Path, PathError>,
    if_version: Option<u64>,
    recursive: bool,
    write: Write,
}

impl Delete {
    write_methods!();

    /// Only when its data has this version; else it is refused with `bad-version`.
    pub fn if_version(mut self, version: u64) -> Self {
        self.if_version = Some(version);
        self
    }

    /// With everything below it, in one transaction.
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }
}

impl IntoFuture for Delete {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { path, if_version, recursive, write } = self;
        let op = path.map(|path| Op::Delete(DeleteOp { path, if_version, recursive })).map_err(Into::into);
        Box::pin(async move {
            match write.send(op).await? {
                Value::Deleted { count } => Ok(count),
                _ => Err(Error::Mismatch { question: "delete" }),
            }
        })
    }
}
