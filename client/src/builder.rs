//! What all request builders share: deadline, fence, session, and the way to the driver.

use std::time::Duration;

use bytes::Bytes;
use conclave_protocol::plugin::{Action, Need};
use conclave_protocol::{
    AccessList, Answer, Call, Condition, Consistency, Edit, Fence, Op, Path, PathError, Query, Refusal, Step, Value,
    Who, Zxid, codec, limits,
};

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
    /// It could not be put together.
    pub(crate) failed: Option<Error>,
}

impl Write {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client, within: None, fence: None, in_session: false, failed: None }
    }

    pub(crate) async fn send(self, op: Result<Op, Refusal>) -> Result<Value> {
        self.send_for_zxid(op).await.map(|(_, value)| value)
    }

    /// The same, with the zxid of the transaction.
    pub(crate) async fn send_for_zxid(self, op: Result<Op, Refusal>) -> Result<(Zxid, Value)> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let op = op?;
        check(&op)?;
        let in_session = self.in_session || needs_session(&op);
        let ask = match op {
            Op::Call(call) => Ask::Call { call, fence: self.fence, in_session, bounded: self.within.is_some() },
            op => Ask::Write { op, fence: self.fence, in_session },
        };
        let done = self.client.request(ask, self.within).await?;
        match done.body {
            Body::Value(value) => Ok((done.zxid, value)),
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
        check_query(&query)?;
        let ask = Ask::Read { consistency: self.consistency, query };
        let done = self.client.request(ask, self.within).await?;
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

        /// Sees every write that was acknowledged to anybody so long before this read began; it does not wait for
        /// writes that were sent before it. Milliseconds count; less is rounded up.
        pub fn stale_within(mut self, time: std::time::Duration) -> Self {
            self.read.consistency = Some(crate::builder::stale_within(time));
            self
        }
    };
}

pub(crate) use {read_methods, write_methods};

/// Staleness in whole milliseconds: never fresher than none, never staler than was said, unless that is below one.
pub(crate) fn stale_within(time: Duration) -> Consistency {
    Consistency::Within(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// Whether only a session can do it: ephemeral znodes are a session's own.
fn needs_session(op: &Op) -> bool {
    match op {
        Op::Create(create) => create.kind.ephemeral,
        Op::Cancel { .. } => true,
        Op::Multi(steps) => steps.iter().any(|step| matches!(step, Step::Create(create) if create.kind.ephemeral)),
        _ => false,
    }
}

/// Room for what stands around an operation in its frame: numbers, and a fence with the longest path.
const AROUND: usize = 32 << 10;
/// What an operation, or a step of one, takes besides its data and its paths, at most.
const STEP: usize = 256;

/// Refuses here what does not fit a frame, and so can't be sent. Every other limit is the cluster's to say.
fn check(op: &Op) -> Result<(), Refusal> {
    let rough = match op {
        Op::Create(create) => STEP + create_bytes(create),
        Op::Set(set) => STEP + path_bytes(&set.path) + set.data.len(),
        Op::Update(update) => STEP + path_bytes(&update.path) + edit_bytes(&update.edit),
        Op::Acl(set) => STEP + path_bytes(&set.path) + acl_bytes(Some(&set.acl)),
        Op::Multi(steps) => steps.iter().map(step_bytes).sum(),
        Op::Call(call) => call_bytes(call),
        Op::Upload(upload) => STEP + upload.bytes.len(),
        Op::Install(install) => {
            let settings = install.settings.as_ref().map_or(0, Bytes::len);
            STEP + install.name.len() + settings + install.allowed.iter().map(need_bytes).sum::<usize>()
        }
        Op::Manage(manage) => match &manage.what {
            Action::Settings(settings) => STEP + manage.name.len() + settings.len(),
            _ => STEP + manage.name.len(),
        },
        Op::Delete(_) | Op::Prune(_) | Op::Cancel { .. } | Op::End(_) | Op::Close => 0,
    };
    fits(rough, || codec::encode(op).len())
}

/// As [`check`], of a read.
fn check_query(query: &Query) -> Result<(), Refusal> {
    match query {
        Query::Many { paths } => fits(paths.iter().map(path_bytes).sum(), || codec::encode(query).len()),
        Query::Call(call) => fits(call_bytes(call), || codec::encode(query).len()),
        _ => Ok(()),
    }
}

/// Whether it can be sent; encodes it only if the rough figure, which is never too low, leaves that open.
fn fits(rough: usize, exact: impl FnOnce() -> usize) -> Result<(), Refusal> {
    const LIMIT: usize = limits::FRAME_BYTES - AROUND;
    if rough <= LIMIT {
        return Ok(());
    }
    let actual = exact();
    if actual <= LIMIT {
        return Ok(());
    }
    Err(Refusal::Limit { what: "bytes of one request".to_owned(), limit: LIMIT as u64, actual: actual as u64 })
}

fn step_bytes(step: &Step) -> usize {
    STEP + match step {
        Step::Check(check) => {
            path_bytes(&check.path) + if let Condition::Data(data) = &check.condition { data.len() } else { 0 }
        }
        Step::Create(create) => create_bytes(create),
        Step::Set(set) => path_bytes(&set.path) + set.data.len(),
        Step::Delete(delete) => path_bytes(&delete.path),
        Step::Update(update) => path_bytes(&update.path) + edit_bytes(&update.edit),
        Step::Acl(set) => path_bytes(&set.path) + acl_bytes(Some(&set.acl)),
    }
}

fn create_bytes(create: &conclave_protocol::Create) -> usize {
    path_bytes(&create.path) + create.data.len() + acl_bytes(create.acl.as_ref())
}

fn edit_bytes(edit: &Edit) -> usize {
    match edit {
        Edit::Add(_) | Edit::Min(_) | Edit::Max(_) => 0,
        Edit::Append(data) => data.len(),
        Edit::Swap { expected, data } => expected.len() + data.len(),
    }
}

fn acl_bytes(acl: Option<&AccessList>) -> usize {
    let who = |who: &Who| if let Who::Principal(principal) = who { principal.len() } else { 0 };
    acl.map_or(0, |acl| acl.0.iter().map(|grant| STEP + who(&grant.who)).sum())
}

fn call_bytes(call: &Call) -> usize {
    STEP + call.plugin.len() + call.procedure.len() + call.args.len() + path_bytes(&call.root)
}

fn need_bytes(need: &Need) -> usize {
    STEP + need.paths.iter().map(|path| path.as_str().len() + 5).sum::<usize>() + 8 * need.ops.len()
}

/// A path's bytes, and what its length takes.
fn path_bytes(path: &Path) -> usize {
    path.as_str().len() + 5
}

#[cfg(test)]
mod tests {
    use conclave_protocol::{Check, Create, Grant, Kind, Permissions, Set, SetAcl, Update};

    use super::*;

    #[test]
    fn the_rough_size_of_a_request_is_never_below_its_size() {
        let path = Path::parse("/a").unwrap();
        let acl = AccessList(vec![Grant { who: Who::Principal("p".into()), may: Permissions::ALL }; 300]);
        let kind = Kind { ephemeral: true, sequential: true, container: true, ttl_ms: Some(u64::MAX) };
        let create = Create { kind, acl: Some(acl.clone()), ..Create::new(path.clone(), vec![1; 500]) };
        let swap = Edit::Swap { expected: Bytes::from(vec![1; 70_000]), data: Bytes::from(vec![1; 300]) };
        let update = Update { path: path.clone(), edit: swap, if_version: Some(u64::MAX), or_create: true };
        let steps = vec![
            Step::Create(create),
            Step::Set(Set { path: path.clone(), data: Bytes::new(), if_version: Some(u64::MAX) }),
            Step::Update(update),
            Step::Acl(SetAcl { path: path.clone(), acl, if_acl_version: Some(u64::MAX) }),
            Step::Check(Check { path: path.clone(), condition: Condition::Data(vec![1; 80].into()) }),
            Step::Check(Check { path, condition: Condition::Children { least: u64::MAX, most: u64::MAX } }),
        ];
        for step in &steps {
            assert!(step_bytes(step) >= codec::encode(step).len(), "{step:?}");
        }
    }

    #[test]
    fn what_fits_a_frame_is_sent_and_what_does_not_is_refused() {
        let set = |bytes: usize| Op::Set(Set { path: Path::root(), data: vec![0; bytes].into(), if_version: None });
        let most = limits::FRAME_BYTES - AROUND - (codec::encode(&set(1 << 20)).len() - (1 << 20));
        assert_eq!(check(&set(most)), Ok(()));
        let Err(Refusal::Limit { limit, actual, .. }) = check(&set(most + 1)) else { panic!("sent") };
        assert_eq!(actual, limit + 1);
        let paths = |count: usize| Query::Many { paths: vec![Path::parse(&"/abcdefgh".repeat(64)).unwrap(); count] };
        assert_eq!(check_query(&paths(1_000)), Ok(()));
        assert!(check_query(&paths(10_000)).is_err());
    }
}
