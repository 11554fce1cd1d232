//! A znode's access list.

use std::future::IntoFuture;

use conclave_protocol::{AccessList, Answer, Op, Path, PathError, Query, SetAcl as SetAclOp, Stat, Value, Zxid};
use futures::future::BoxFuture;

use super::At;
use crate::builder::{Read, Write, read_methods, write_methods};
use crate::error::{Error, Result};

/// A znode's access list as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The list.
    pub acl: AccessList,
    /// The znode's stat; `stat.acl_version` is the list's version.
    pub stat: Stat,
    /// The zxid of the state that it was read from.
    pub zxid: Zxid,
}

/// Reads the access list. Gives [`Access`]; needs the right to read the znode, or to administer it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct GetAcl {
    path: Result<Path, PathError>,
    read: Read,
}

impl GetAcl {
    pub(super) fn new(at: &At) -> Self {
        Self { path: at.path(), read: Read::new(at.client().clone()) }
    }

    read_methods!();
}

impl IntoFuture for GetAcl {
    type Output = Result<Access>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.read.send(Query::Acl { path: self.path? }).await? {
                (zxid, Answer::Acl { acl, stat }) => Ok(Access { acl, stat, zxid }),
                _ => Err(Error::Mismatch { question: "acl" }),
            }
        })
    }
}

/// Replaces the access list. Gives the new [`Stat`]; refused with `locks-out` when nobody could set it again.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct SetAcl {
    path: Result<Path, PathError>,
    acl: AccessList,
    if_acl_version: Option<u64>,
    write: Write,
}

impl SetAcl {
    pub(super) fn new(at: &At, acl: AccessList) -> Self {
        Self { path: at.path(), acl, if_acl_version: None, write: Write::new(at.client().clone()) }
    }

    write_methods!();

    /// Only when its list has this version; else it is refused with `bad-acl-version`.
    pub fn if_acl_version(mut self, version: u64) -> Self {
        self.if_acl_version = Some(version);
        self
    }
}

impl IntoFuture for SetAcl {
    type Output = Result<Stat>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { path, acl, if_acl_version, write } = self;
        let op = path.map(|path| Op::Acl(SetAclOp { path, acl, if_acl_version })).map_err(Into::into);
        Box::pin(async move {
            match write.send(op).await? {
                Value::Acl { stat } => Ok(stat),
                _ => Err(Error::Mismatch { question: "set acl" }),
            }
        })
    }
}
