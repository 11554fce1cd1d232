//! Changing a znode's data by what it is, in one round trip.

use std::future::IntoFuture;

use conclave_protocol::{Edit, Op, Path, PathError, Stat, Update, Value};
use futures::future::BoxFuture;

use super::At;
use crate::builder::{Write, write_methods};
use crate::error::{Error, Result};

/// A number that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edited {
    /// What the data is now.
    pub number: i64,
    /// The stat afterwards.
    pub stat: Stat,
}

/// Calculates with the number that a znode's data is. Gives [`Edited`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct EditNumber {
    path: Result<Path, PathError>,
    edit: Edit,
    if_version: Option<u64>,
    or_create: bool,
    write: Write,
}

/// Changes a znode's data by what it is. Gives the new [`Stat`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct EditData {
    path: Result<Path, PathError>,
    edit: Edit,
    if_version: Option<u64>,
    or_create: bool,
    write: Write,
}

macro_rules! edit_methods {
    () => {
        pub(super) fn new(at: &At, edit: Edit) -> Self {
            let write = Write::new(at.client().clone());
            Self { path: at.path(), edit, if_version: None, or_create: false, write }
        }

        write_methods!();

        /// Only when its data has this version; else it is refused with `bad-version`.
        pub fn if_version(mut self, version: u64) -> Self {
            self.if_version = Some(version);
            self
        }

        /// If it is not there, it is created, persistent, as if it had been there without data. Not with a swap that
        /// expects data.
        pub fn or_create(mut self) -> Self {
            self.or_create = true;
            self
        }

        async fn send(self) -> Result<Value> {
            let Self { path, edit, if_version, or_create, write } = self;
            let op = path.map(|path| Op::Update(Update { path, edit, if_version, or_create }));
            write.send(op.map_err(Into::into)).await
        }
    };
}

impl EditNumber {
    edit_methods!();
}

impl EditData {
    edit_methods!();
}

impl IntoFuture for EditNumber {
    type Output = Result<Edited>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.send().await? {
                Value::Number { number, stat } => Ok(Edited { number, stat }),
                _ => Err(Error::Mismatch { question: "an update of a number" }),
            }
        })
    }
}

impl IntoFuture for EditData {
    type Output = Result<Stat>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.send().await? {
                Value::Set { stat } => Ok(stat),
                _ => Err(Error::Mismatch { question: "an update of data" }),
            }
        })
    }
}
