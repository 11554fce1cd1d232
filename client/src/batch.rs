//! Requests that are not about one znode: several steps as one transaction, and calls of plugins.

use std::future::IntoFuture;

use bytes::Bytes;
use conclave_protocol::{Call as CallOp, Op, Step, Value};
use futures::future::BoxFuture;

use crate::builder::{Write, write_methods};
use crate::client::Client;
use crate::error::{Error, Result};

/// All steps or none, as one transaction. Gives one [`Value`] for each step; a refused step refuses all, with
/// [`Refusal::Step`](crate::Refusal::Step).
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Multi {
    steps: Vec<Step>,
    write: Write,
}

impl Multi {
    pub(crate) fn new(client: Client, steps: Vec<Step>) -> Self {
        let in_session = steps.iter().any(|step| matches!(step, Step::Create(create) if create.kind.ephemeral));
        Self { steps, write: Write { in_session, ..Write::new(client) } }
    }

    write_methods!();
}

impl IntoFuture for Multi {
    type Output = Result<Vec<Value>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.write.send(Ok(Op::Multi(self.steps))).await? {
                Value::Multi(values) => Ok(values),
                _ => Err(Error::Mismatch { question: "multi" }),
            }
        })
    }
}

/// Calls a plugin's procedure. Gives what it returned.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Call {
    call: CallOp,
    write: Write,
}

impl Call {
    pub(crate) fn new(client: Client, plugin: String, procedure: String, args: Bytes) -> Self {
        Self { call: CallOp { plugin, procedure, args }, write: Write::new(client) }
    }

    write_methods!();
}

impl IntoFuture for Call {
    type Output = Result<Bytes>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.write.send(Ok(Op::Call(self.call))).await? {
                Value::Called(bytes) => Ok(bytes),
                _ => Err(Error::Mismatch { question: "call" }),
            }
        })
    }
}
