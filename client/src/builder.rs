//! What all request builders share: deadline, fence, session, and the way to the driver.

use std::time::Duration;

use conclave_protocol::{Answer, Consistency, Fence, Op, Path, PathError, Query, Refusal, Value, Zxid, codec, limits};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::session::{Ask, Body};

/// A text or a [`Path`] that names a znode. A text that is no path is refused when the request is awaited.
pub trait ToPath {
    /// The path.
    ///
    /// # Errors
    /// When the text is no path.
    fn to_path(&self) -> Result<Path, PathError>;
}

impl ToPath for str {
    fn to_path(&self) -> Result<Path, PathError> {
        Path::parse(self)
    }
}

impl ToPath for String {
    fn to_path(&self) -> Result<Path, PathError> {
        Path::parse(self)
    }
}

impl ToPath for Path {
    fn to_path(&self) -> Result<Path, PathError> {
        Ok(self.clone())
    }
}

impl<T: ToPath + ?Sized> ToPath for &T {
    fn to_path(&self) -> Result<Path, PathError> {
        (**self).to_path()
    }
}

/// The common part of a write's builder.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) client: Client,
    pub(crate) within: Option<Duration>,
    pub(crate) fence: Option<Fence>,
    pub(crate) in_session: bool,
}

impl Write {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client, within: None, fence: None, in_session: false }
    }

    pub(crate) async fn send(self, op: Result<Op, Refusal>) -> Result<Value> {
        let op = op?;
        check(&op)?;
        let ask = Ask::Write { op, fence: self.fence, in_session: self.in_session };
        match self.client.ask(ask, self.within).await?.body {
            Body::Value(value) => Ok(value),
            Body::Answer(_) | Body::Session { .. } => Err(Error::Mismatch { question: "a write" }),
        }
    }
}

/// The common part of a read's builder.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) client: Client,
    pub(crate) within: Option<Duration>,
    pub(crate) consistency: Option<Consistency>,
}

impl Read {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client, within: None, consistency: None }
    }

    pub(crate) async fn send(&self, query: Query) -> Result<(Zxid, Answer)> {
        let ask = Ask::Read { consistency: self.consistency, query };
        let done = self.client.ask(ask, self.within).await?;
        match done.body {
            Body::Answer(answer) => Ok((done.zxid, answer)),
            Body::Value(_) | Body::Session { .. } => Err(Error::Mismatch { question: "a read" }),
        }
    }
}

/// Methods of every write's builder; `$field` is its [`Write`].
macro_rules! write_methods {
    () => {
        /// The time that the request has, instead of the options' request timeout.
        pub fn within(mut self, time: std::time::Duration) -> Self {
            self.write.within = Some(time);
            self
        }

        /// Only while this fence holds; else it is refused with [`Refusal::Fenced`](crate::Refusal::Fenced).
        pub fn fenced(mut self, fence: impl Into<crate::Fence>) -> Self {
            self.write.fence = Some(fence.into());
            self
        }

        /// Through the client's session, which is opened if there is none: in order with its other writes.
        pub fn in_session(mut self) -> Self {
            self.write.in_session = true;
            self
        }
    };
}

/// Methods of every read's builder; its `read` is a [`Read`].
macro_rules! read_methods {
    () => {
        /// The time that the request has, instead of the options' request timeout.
        pub fn within(mut self, time: std::time::Duration) -> Self {
            self.read.within = Some(time);
            self
        }

        /// Sees every write that was acknowledged to anybody before this read began. The default of a client
        /// without a session.
        pub fn linearizable(mut self) -> Self {
            self.read.consistency = Some(crate::Consistency::Linearizable);
            self
        }

        /// Never older than what this client has seen, on whichever member. The default of a client with a session.
        pub fn session(mut self) -> Self {
            self.read.consistency = Some(crate::Consistency::Session);
            self
        }

        /// Whatever the member has, at once; it does not wait for writes that were sent before it.
        pub fn stale(mut self) -> Self {
            self.read.consistency = Some(crate::Consistency::Stale);
            self
        }
    };
}

pub(crate) use {read_methods, write_methods};

/// Refuses here what every member would refuse, and what would not fit a frame.
fn check(op: &Op) -> Result<(), Refusal> {
    let limit = |what: &str, actual: usize, limit: usize| {
        if actual <= limit {
            return Ok(());
        }
        Err(Refusal::Limit { what: what.to_owned(), limit: limit as u64, actual: actual as u64 })
    };
    match op {
        Op::Create(create) => limit("data bytes", create.data.len(), limits::DATA_BYTES),
        Op::Set(set) => limit("data bytes", set.data.len(), limits::DATA_BYTES),
        Op::Call(call) => limit("argument bytes", call.args.len(), limits::CALL_BYTES),
        Op::Multi(steps) => {
            limit("steps", steps.len(), limits::MULTI_STEPS)?;
            for (n, step) in steps.iter().enumerate() {
                let data = match step {
                    conclave_protocol::Step::Create(create) => create.data.len(),
                    conclave_protocol::Step::Set(set) => set.data.len(),
                    conclave_protocol::Step::Check(_) | conclave_protocol::Step::Delete(_) => 0,
                };
                let step = u32::try_from(n).unwrap_or(u32::MAX);
                limit("data bytes", data, limits::DATA_BYTES)
                    .map_err(|cause| Refusal::Step { step, cause: Box::new(cause) })?;
            }
            // Room for what stands around the op in its frame: numbers, and a fence with the longest path.
            const AROUND: usize = 32 << 10;
            limit("multi bytes", codec::encode(op).len(), limits::FRAME_BYTES - AROUND)
        }
        Op::Delete(_) | Op::Close => Ok(()),
    }
}
