//! Creating, setting and deleting one znode.

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use conclave_protocol::{
    AccessList, Create as CreateOp, Delete as DeleteOp, Kind, Op, Path, PathError, Set as SetOp, Stat, Value,
};
use futures::future::BoxFuture;

use super::{At, millis};
use crate::builder::{Write, write_methods};
use crate::error::{Error, Result};

/// A znode that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its path; a sequential one's has its number.
    pub path: Path,
    /// Its stat; `stat.created` is the transaction's zxid, unless it was there already.
    pub stat: Stat,
    /// It was there already, and its data was set: only with [`Create::or_set`].
    pub replaced: bool,
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
    pub(super) fn new(at: &At, data: Bytes) -> Self {
        Self { path: at.path(), data, if_version: None, write: Write::new(at.client().clone()) }
    }

    write_methods!();

    /// Only when its data has this version; else it is refused with `bad-version`, which names the actual one.
    pub fn if_version(mut self, version: u64) -> Self {
        self.if_version = Some(version);
        self
    }

    /// It can't be put together, and gives this error.
    pub(crate) fn failed(mut self, error: Error) -> Self {
        self.write.failed = Some(error);
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
    or_set: bool,
    acl: Option<AccessList>,
    write: Write,
}

impl Create {
    pub(super) fn new(at: &At, data: Bytes) -> Self {
        Self {
            path: at.path(),
            data,
            kind: Kind::default(),
            parents: false,
            or_set: false,
            acl: None,
            write: Write::new(at.client().clone()),
        }
    }

    write_methods!();

    /// It goes with the client's session, which is opened if there is none.
    pub fn ephemeral(mut self) -> Self {
        self.kind.ephemeral = true;
        self
    }

    /// Its name is the path's last name, completed by its parent's next number (at least ten digits).
    pub fn sequential(mut self) -> Self {
        self.kind.sequential = true;
        self
    }

    /// It goes by itself some time after its last child went, and not before it had one. Not together with
    /// [`Create::ephemeral`].
    pub fn container(mut self) -> Self {
        self.kind.container = true;
        self
    }

    /// It goes by itself when neither its data nor its list of children has changed for so long, and it has no children.
    /// Milliseconds of cluster time count; never earlier, and a while later when the cluster has much to do.
    pub fn ttl(mut self, time: Duration) -> Self {
        self.kind.ttl_ms = Some(millis(time));
        self
    }

    /// Missing parents are created too, persistent and empty, in the same transaction.
    pub fn parents(mut self) -> Self {
        self.parents = true;
        self
    }

    /// If it is there already, and of the same kind, its data is set instead; of another kind, it is refused with
    /// `other-kind`. Not together with [`Create::sequential`].
    pub fn or_set(mut self) -> Self {
        self.or_set = true;
        self
    }

    /// Its access list, and that of the parents that are created with it. Without: its parent's.
    pub fn acl(mut self, acl: AccessList) -> Self {
        self.acl = Some(acl);
        self
    }

    /// It can't be put together, and gives this error.
    pub(crate) fn failed(mut self, error: Error) -> Self {
        self.write.failed = Some(error);
        self
    }
}

impl IntoFuture for Create {
    type Output = Result<Created>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { path, data, kind, parents, or_set, acl, write } = self;
        Box::pin(async move {
            let path = path?;
            let op = Op::Create(CreateOp { path: path.clone(), data, kind, parents, or_set, acl });
            match write.send(Ok(op)).await? {
                Value::Created { path, stat } => Ok(Created { path, stat, replaced: false }),
                Value::Set { stat } if or_set => Ok(Created { path, stat, replaced: true }),
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
    pub(super) fn new(at: &At) -> Self {
        Self { path: at.path(), if_version: None, recursive: false, write: Write::new(at.client().clone()) }
    }

    write_methods!();

    /// Only when its data has this version; else it is refused with `bad-version`.
    pub fn if_version(mut self, version: u64) -> Self {
        self.if_version = Some(version);
        self
    }

    /// With everything below it, in one transaction; refused with `limit` when that is too much for one:
    /// [`At::delete_all`](crate::At::delete_all) has no such limit.
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
