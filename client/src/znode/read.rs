//! Reads of one znode, and of several at once.

use std::future::IntoFuture;

use conclave_protocol::{Answer, Path, PathError, Query, Stat};
use futures::future::BoxFuture;

use super::{At, Znode};
use crate::builder::{Read, read_methods};
use crate::client::Client;
use crate::error::{Error, Result};

/// Reads data and stat. Gives a [`Znode`]; refused with `no-znode` when there is none.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Get {
    path: Result<Path, PathError>,
    read: Read,
}

impl Get {
    pub(super) fn new(at: &At) -> Self {
        Self { path: at.path(), read: Read::new(at.client().clone()) }
    }

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
    pub(super) fn new(at: &At) -> Self {
        Self { path: at.path(), read: Read::new(at.client().clone()) }
    }

    read_methods!();

    /// As awaited, with the zxid of the state that it was read from.
    ///
    /// # Errors
    /// As every read.
    pub async fn with_zxid(self) -> Result<(conclave_protocol::Zxid, Option<Stat>)> {
        match self.read.send(Query::Exists { path: self.path? }).await? {
            (zxid, Answer::Exists(stat)) => Ok((zxid, stat)),
            _ => Err(Error::Mismatch { question: "exists" }),
        }
    }
}

impl IntoFuture for GetStat {
    type Output = Result<Option<Stat>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.with_zxid().await?.1) })
    }
}

/// Is it there? Gives `bool`.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Exists {
    path: Result<Path, PathError>,
    read: Read,
}

impl Exists {
    pub(super) fn new(at: &At) -> Self {
        Self { path: at.path(), read: Read::new(at.client().clone()) }
    }

    read_methods!();
}

impl IntoFuture for Exists {
    type Output = Result<bool>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let stat = GetStat { path: self.path, read: self.read };
        Box::pin(async move { Ok(stat.await?.is_some()) })
    }
}

/// Counts the znodes below one, however deep. Gives `u64`; refused with `no-znode` when there is none.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Count {
    path: Result<Path, PathError>,
    read: Read,
}

impl Count {
    pub(super) fn new(at: &At) -> Self {
        Self { path: at.path(), read: Read::new(at.client().clone()) }
    }

    read_methods!();
}

impl IntoFuture for Count {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.read.send(Query::Count { path: self.path? }).await? {
                (_, Answer::Count(count)) => Ok(count),
                _ => Err(Error::Mismatch { question: "count" }),
            }
        })
    }
}

/// Reads several znodes from one state; made by [`Client::many`]. Gives a `Vec<Option<Znode>>` in the order of the
/// paths.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Many {
    paths: Result<Vec<Path>, PathError>,
    read: Read,
}

impl Many {
    pub(crate) fn new(client: Client, paths: Result<Vec<Path>, PathError>) -> Self {
        Self { paths, read: Read::new(client) }
    }

    read_methods!();
}

impl IntoFuture for Many {
    type Output = Result<Vec<Option<Znode>>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let paths = self.paths?;
            let count = paths.len();
            match self.read.send(Query::Many { paths }).await? {
                (zxid, Answer::Many(znodes)) if znodes.len() == count => {
                    let znode =
                        |present: conclave_protocol::Present| Znode { data: present.data, stat: present.stat, zxid };
                    Ok(znodes.into_iter().map(|present| present.map(znode)).collect())
                }
                _ => Err(Error::Mismatch { question: "many" }),
            }
        })
    }
}
