//! Several steps as one transaction.

use std::future::IntoFuture;
use std::ops::RangeBounds;

use bytes::Bytes;
use conclave_protocol::{
    AccessList, Check, Condition, Create, Delete, Edit, Fence, Kind, Op, Path, PathError, Refusal, SessionId, Set,
    SetAcl, Step, Update, Value, Zxid,
};
use futures::future::BoxFuture;

use crate::builder::{ToPath, Write, write_methods};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::namespace::refused_step;

/// All steps or none, as one transaction; made by [`Client::transaction`] or [`Client::multi`]. Gives one [`Value`] for
/// each step, in their order; a refused step refuses all, with [`Refusal::Step`], which says which one and why.
///
/// Each step sees what those before it did. A text that is no path is refused as its step when the whole is sent.
///
/// ```
/// # async fn example(client: conclave_client::Client) -> conclave_client::Result<()> {
/// use conclave_client::{Error, Refusal};
///
/// let session = client.session().await?;
/// let claimed = client
///     .transaction()
///     .check_absent("/jobs/7/done")
///     .check_children("/workers", 1..)
///     .create_ephemeral("/jobs/7/owner", "me")
///     .add("/jobs/claimed", 1)
///     .check_owner("/jobs/7/owner", session.id())
///     .commit()
///     .await;
/// match claimed {
///     Ok(_) => println!("mine"),
///     Err(Error::Refused(Refusal::Step { step, cause })) => println!("step {step}: {cause}"),
///     Err(error) => return Err(error),
/// }
/// assert_eq!(client.at("/jobs/claimed").get().await?.data, "1");
/// # Ok(()) }
/// # #[tokio::main]
/// # async fn main() -> Result<(), conclave_testing::Error> {
/// # let cluster = conclave_testing::Cluster::start(1).await?;
/// # let client = cluster.client("me").await?;
/// # client.at("/jobs/7").create("").parents().await?;
/// # client.at("/jobs/claimed").create("0").await?;
/// # client.at("/workers/1").create("").parents().await?;
/// # example(client.clone()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Multi {
    steps: Vec<Step>,
    /// The first step that is none, and why.
    bad: Option<Refusal>,
    write: Write,
}

impl Multi {
    pub(crate) fn new(client: Client, steps: Vec<Step>) -> Self {
        Self { steps, bad: None, write: Write::new(client) }
    }

    write_methods!();

    /// Sends it; the same as awaiting it.
    ///
    /// # Errors
    /// As every write.
    pub async fn commit(self) -> Result<Vec<Value>> {
        self.into_future().await
    }

    /// Any step: a [`Step`], or one of the operations that it can be.
    pub fn step(mut self, step: impl Into<Step>) -> Self {
        self.steps.push(step.into());
        self
    }

    /// The znode exists.
    pub fn check_exists(self, path: impl ToPath) -> Self {
        self.check(path, Condition::Exists)
    }

    /// The znode does not exist.
    pub fn check_absent(self, path: impl ToPath) -> Self {
        self.check(path, Condition::Absent)
    }

    /// The znode's data has this version.
    pub fn check_version(self, path: impl ToPath, version: u64) -> Self {
        self.check(path, Condition::Version(version))
    }

    /// The znode is ephemeral and belongs to this session.
    pub fn check_owner(self, path: impl ToPath, session: SessionId) -> Self {
        self.check(path, Condition::Owner(session))
    }

    /// The znode has so many children: `0..=0` none, `1..` some.
    pub fn check_children(self, path: impl ToPath, count: impl RangeBounds<u64>) -> Self {
        let (least, most) = bounds(&count);
        self.check(path, Condition::Children { least, most })
    }

    /// The znode's data is this.
    pub fn check_data(self, path: impl ToPath, data: impl Into<Bytes>) -> Self {
        self.check(path, Condition::Data(data.into()))
    }

    /// The znode was created by this transaction: it is the one that it was, and none of the same name.
    pub fn check_created(self, path: impl ToPath, zxid: Zxid) -> Self {
        self.check(path, Condition::Created(zxid))
    }

    /// This fence holds. ([`Multi::fenced`] asks for one fence more, and gives a refusal of its own.)
    pub fn check_fence(self, fence: impl Into<Fence>) -> Self {
        let Fence { path, zxid } = fence.into();
        self.check(path, Condition::Created(zxid))
    }

    /// A condition of a znode.
    pub fn check(self, path: impl ToPath, condition: Condition) -> Self {
        self.at(path, |path| Step::Check(Check { path, condition }))
    }

    /// Creates a persistent znode.
    pub fn create(self, path: impl ToPath, data: impl Into<Bytes>) -> Self {
        self.create_as(path, data, Kind::default())
    }

    /// Creates a znode that goes with the client's session, which is opened if there is none.
    pub fn create_ephemeral(self, path: impl ToPath, data: impl Into<Bytes>) -> Self {
        self.create_as(path, data, Kind { ephemeral: true, ..Kind::default() })
    }

    /// Creates a znode whose name is completed by its parent's next number.
    pub fn create_sequential(self, path: impl ToPath, data: impl Into<Bytes>) -> Self {
        self.create_as(path, data, Kind { sequential: true, ..Kind::default() })
    }

    /// Creates a znode of any kind. (What else a create can do: [`Multi::step`] with a
    /// [`CreateStep`](crate::CreateStep).)
    pub fn create_as(self, path: impl ToPath, data: impl Into<Bytes>, kind: Kind) -> Self {
        self.at(path, |path| Step::Create(Create { kind, ..Create::new(path, data) }))
    }

    /// Replaces a znode's data.
    pub fn set(self, path: impl ToPath, data: impl Into<Bytes>) -> Self {
        self.at(path, |path| Step::Set(Set { path, data: data.into(), if_version: None }))
    }

    /// Replaces a znode's data, only when it has this version.
    pub fn set_if_version(self, path: impl ToPath, data: impl Into<Bytes>, version: u64) -> Self {
        self.at(path, |path| Step::Set(Set { path, data: data.into(), if_version: Some(version) }))
    }

    /// Deletes a znode.
    pub fn delete(self, path: impl ToPath) -> Self {
        self.at(path, |path| Step::Delete(Delete { path, ..Delete::default() }))
    }

    /// Deletes a znode, only when its data has this version.
    pub fn delete_if_version(self, path: impl ToPath, version: u64) -> Self {
        self.at(path, |path| Step::Delete(Delete { path, if_version: Some(version), ..Delete::default() }))
    }

    /// Deletes a znode with everything below it.
    pub fn delete_recursive(self, path: impl ToPath) -> Self {
        self.at(path, |path| Step::Delete(Delete { path, recursive: true, ..Delete::default() }))
    }

    /// Adds to the number that a znode's data is.
    pub fn add(self, path: impl ToPath, number: i64) -> Self {
        self.edit(path, Edit::Add(number))
    }

    /// Puts bytes behind a znode's data.
    pub fn append(self, path: impl ToPath, data: impl Into<Bytes>) -> Self {
        self.edit(path, Edit::Append(data.into()))
    }

    /// Changes a znode's data by what it is.
    pub fn edit(self, path: impl ToPath, edit: Edit) -> Self {
        self.at(path, |path| Step::Update(Update { path, edit, if_version: None, or_create: false }))
    }

    /// Replaces a znode's access list.
    pub fn set_acl(self, path: impl ToPath, acl: AccessList) -> Self {
        self.at(path, |path| Step::Acl(SetAcl { path, acl, if_acl_version: None }))
    }

    /// Adds the step, or remembers why it is none.
    fn at(mut self, path: impl ToPath, step: impl FnOnce(Path) -> Step) -> Self {
        match path.to_path() {
            Ok(path) => self.steps.push(step(path)),
            Err(error) => return self.refuse(error),
        }
        self
    }

    fn refuse(mut self, error: PathError) -> Self {
        let n = self.steps.len();
        self.bad.get_or_insert_with(|| refused_step(n, error.into()));
        self
    }
}

/// The least and the most that lie in a range.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    use std::ops::Bound;
    let least = match range.start_bound() {
        Bound::Included(least) => *least,
        Bound::Excluded(below) => below.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(most) => (least, *most),
        // Nothing lies below 0: a range that nothing is in.
        Bound::Excluded(0) => (1, 0),
        Bound::Excluded(above) => (least, above - 1),
        Bound::Unbounded => (least, u64::MAX),
    }
}

impl IntoFuture for Multi {
    type Output = Result<Vec<Value>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { steps, bad, write } = self;
        let count = steps.len();
        let op = bad.map_or(Ok(Op::Multi(steps)), Err);
        Box::pin(async move {
            match write.send(op).await? {
                Value::Multi(values) if values.len() == count => Ok(values),
                _ => Err(Error::Mismatch { question: "multi" }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_children_is_its_least_and_its_most() {
        assert_eq!(bounds(&(1..)), (1, u64::MAX));
        assert_eq!(bounds(&..), (0, u64::MAX));
        assert_eq!(bounds(&(2..5)), (2, 4));
        assert_eq!(bounds(&(0..=0)), (0, 0));
        let (least, most) = bounds(&(0..0));
        assert!(least > most, "nothing is in it");
    }
}
