//! One znode's requests: what [`Client::at`](crate::Client::at) offers.

mod acl;
mod children;
mod edit;
mod prune;
mod read;
mod subtree;
mod write;

use std::time::Duration;

use bytes::Bytes;
use conclave_protocol::{AccessList, Edit, Path, PathError, Stat, Zxid};

use crate::builder::ToPath;
use crate::client::Client;
use crate::error::Result;
use crate::typed::Typed;

pub use acl::{Access, GetAcl, SetAcl};
pub use children::{Children, Listing};
pub use edit::{EditData, EditNumber, Edited};
pub use prune::{Prune, Pruned};
pub use read::{Count, Exists, Get, GetStat, Many};
pub use subtree::{Subtree, SubtreeStream};
pub use write::{Create, Created, Delete, Set};

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

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn path(&self) -> Result<Path, PathError> {
        self.path.clone()
    }

    /// Reads data and stat.
    pub fn get(&self) -> Get {
        Get::new(self)
    }

    /// Is it there?
    pub fn exists(&self) -> Exists {
        Exists::new(self)
    }

    /// Reads the stat, or none if it is not there.
    pub fn stat(&self) -> GetStat {
        GetStat::new(self)
    }

    /// Lists the children.
    pub fn children(&self) -> Children {
        Children::new(self)
    }

    /// Counts the znodes below it, however deep.
    pub fn count(&self) -> Count {
        Count::new(self)
    }

    /// Reads it and everything below it, as of one zxid.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/app/config").create("v1").parents().await?;
    /// # let mut told = Vec::new();
    /// let mut subtree = client.at("/app").subtree().with_data().await?;
    /// println!("as of {}", subtree.zxid());
    /// while let Some(znode) = subtree.next().await {
    ///     let znode = znode?;
    ///     println!("{} {} bytes", znode.path, znode.stat.data_bytes);
    /// #   told.push((znode.path.to_string(), znode.stat.data_bytes));
    /// }
    /// # assert_eq!(told, [("/app".to_owned(), 0), ("/app/config".to_owned(), 2)]);
    /// # Ok(()) }
    /// ```
    pub fn subtree(&self) -> Subtree {
        Subtree::new(self)
    }

    /// Replaces the data.
    pub fn set(&self, data: impl Into<Bytes>) -> Set {
        Set::new(self, data.into())
    }

    /// Creates it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/app").create("").await?;
    /// use std::time::Duration;
    ///
    /// let task = client.at("/tasks/t-").create("do it").sequential().parents().ttl(Duration::from_secs(3600)).await?;
    /// assert_eq!(task.path.as_str(), "/tasks/t-0000000000");
    /// let mode = client.at("/app/mode").create("on").or_set().await?;
    /// println!("{}", if mode.replaced { "it was there" } else { "it is new" });
    /// # assert!(!mode.replaced);
    /// # Ok(()) }
    /// ```
    pub fn create(&self, data: impl Into<Bytes>) -> Create {
        Create::new(self, data.into())
    }

    /// Deletes it.
    pub fn delete(&self) -> Delete {
        Delete::new(self)
    }

    /// Deletes it with everything below it, part by part: for subtrees that are too large for one transaction, or whose
    /// deletion in one would hold up others. See [`Prune`].
    pub fn delete_all(&self) -> Prune {
        Prune::new(self)
    }

    /// Adds to the number that the data is, in decimal; no data counts as 0. Refused with `bad-number` when the data is
    /// none, or the sum is no 64-bit integer.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// let visits = client.at("/visits").add(1).or_create().await?;
    /// assert_eq!(visits.number, 1);
    /// # Ok(()) }
    /// ```
    pub fn add(&self, number: i64) -> EditNumber {
        EditNumber::new(self, Edit::Add(number))
    }

    /// Makes the number that the data is this one, if this one is less, or if there is no data.
    pub fn min(&self, number: i64) -> EditNumber {
        EditNumber::new(self, Edit::Min(number))
    }

    /// Makes the number that the data is this one, if this one is greater, or if there is no data.
    pub fn max(&self, number: i64) -> EditNumber {
        EditNumber::new(self, Edit::Max(number))
    }

    /// Puts bytes behind the data.
    pub fn append(&self, data: impl Into<Bytes>) -> EditData {
        EditData::new(self, Edit::Append(data.into()))
    }

    /// Replaces the data if it is what is expected; refused with `check-failed` otherwise.
    pub fn swap(&self, expected: impl Into<Bytes>, data: impl Into<Bytes>) -> EditData {
        EditData::new(self, Edit::Swap { expected: expected.into(), data: data.into() })
    }

    /// Reads the access list.
    pub fn acl(&self) -> GetAcl {
        GetAcl::new(self)
    }

    /// Replaces the access list. It holds for this znode alone; a new child begins with a copy of it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// # client.at("/app").create("v1").await?;
    /// use conclave_client::{AccessList, Grant, Permissions, Who};
    ///
    /// let me = client.peer().map(|peer| peer.principal).unwrap_or_default();
    /// let list = AccessList(vec![
    ///     Grant { who: Who::Principal(me), may: Permissions::ALL },
    ///     Grant { who: Who::Anyone, may: "r".parse()? },
    /// ]);
    /// client.at("/app").set_acl(list).await?;
    /// # let you = cluster.client("you").await?;
    /// # assert_eq!(you.at("/app").get().await?.data, "v1");
    /// # let refused = you.at("/app").set("v2").await;
    /// # assert!(matches!(refused, Err(conclave_client::Error::Refused(_))), "{refused:?}");
    /// # Ok(()) }
    /// ```
    pub fn set_acl(&self, acl: AccessList) -> SetAcl {
        SetAcl::new(self, acl)
    }

    /// The same place, with data that is a value of a type. See [`Typed`].
    pub fn typed<T>(&self) -> Typed<T> {
        Typed::new(self.clone())
    }
}

/// A time in the protocol's milliseconds: what is longer than all of them is their most.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
