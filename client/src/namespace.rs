//! Namespaces: a client's view of one subtree as if it were the whole tree. One door in, one door out.
//!
//! Everything that a client sends goes through [`Namespace::ask`], [`Namespace::watch`] or [`Namespace::enter`]; all that
//! comes back through [`Namespace::done`], [`Namespace::error`], [`Namespace::changes`] or [`Namespace::leave`]. The
//! matches are exhaustive, so that a new operation, answer or refusal can't slip through unmapped.

use conclave_protocol::plugin::{Awaited, ParkedCall};
use conclave_protocol::{
    Answer, Call, Change, Check, Create, Delete, Fence, Op, Path, PathError, Present, Prune, Query, Refusal, Set,
    SetAcl, Step, TreeEntry, Update, Value, WatchRequest,
};

use crate::error::Error;
use crate::session::{Ask, Body, Done};

/// Where a client is rooted: the whole tree, or everything from one znode down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespace(Option<Path>);

impl Namespace {
    /// The namespace at a path of this one.
    pub(crate) fn nested(&self, path: &Path) -> Result<Self, PathError> {
        let root = self.enter(path)?;
        Ok(Self(Some(root).filter(|root| !root.is_root())))
    }

    /// Where it begins, as the members know it.
    pub(crate) fn root(&self) -> Path {
        self.0.clone().unwrap_or_default()
    }

    /// A path of ours as the members know it.
    pub(crate) fn enter(&self, path: &Path) -> Result<Path, PathError> {
        match &self.0 {
            None => Ok(path.clone()),
            Some(root) if path.is_root() => Ok(root.clone()),
            Some(root) => Path::parse(&format!("{root}{path}")),
        }
    }

    /// A member's path as ours; none when it lies outside.
    pub(crate) fn leave(&self, path: &Path) -> Option<Path> {
        let Some(root) = &self.0 else { return Some(path.clone()) };
        if !path.is_within(root) {
            return None;
        }
        let rest = &path.as_str()[root.as_str().len()..];
        // Below a path there are only paths.
        if rest.is_empty() { Some(Path::root()) } else { Path::parse(rest).ok() }
    }

    /// A member's path as ours. One that lies outside can only be above: that of a missing or forbidden parent of our
    /// root. Nothing of it is shown but that something is wrong with our root.
    fn shown(&self, path: &Path) -> Path {
        self.leave(path).unwrap_or_default()
    }

    pub(crate) fn fence(&self, fence: Fence) -> Result<Fence, PathError> {
        Ok(Fence { path: self.enter(&fence.path)?, zxid: fence.zxid })
    }

    /// On the way out.
    pub(crate) fn ask(&self, ask: Ask) -> Result<Ask, Refusal> {
        if self.0.is_none() {
            return Ok(ask);
        }
        Ok(match ask {
            Ask::Write { op, fence, in_session } => {
                Ask::Write { op: self.op(op)?, fence: fence.map(|fence| self.fence(fence)).transpose()?, in_session }
            }
            Ask::Read { consistency, query } => Ask::Read { consistency, query: self.query(query)? },
            Ask::Call { call, fence, in_session, bounded } => {
                let fence = fence.map(|fence| self.fence(fence)).transpose()?;
                Ask::Call { call: self.call(call)?, fence, in_session, bounded }
            }
            Ask::Session => Ask::Session,
            Ask::Close => Ask::Close,
        })
    }

    /// On the way out.
    pub(crate) fn watch(&self, request: WatchRequest) -> Result<WatchRequest, PathError> {
        Ok(WatchRequest { path: self.enter(&request.path)?, ..request })
    }

    /// On the way back.
    ///
    /// # Errors
    /// When something was created outside: that is no answer to what was asked.
    pub(crate) fn done(&self, done: Done) -> Result<Done, Error> {
        if self.0.is_none() {
            return Ok(done);
        }
        let body = match done.body {
            Body::Value(value) => Body::Value(self.value(value)?),
            Body::Answer(answer) => Body::Answer(self.answer(answer)),
            Body::Session { session, timeout } => Body::Session { session, timeout },
        };
        Ok(Done { zxid: done.zxid, body })
    }

    /// On the way back.
    pub(crate) fn error(&self, error: Error) -> Error {
        match error {
            Error::Refused(refusal) if self.0.is_some() => Error::Refused(refusal.map_paths(&|path| self.shown(path))),
            other => other,
        }
    }

    /// On the way back: what lies outside is left out, with its data.
    pub(crate) fn changes(
        &self,
        changes: Vec<Change>,
        present: Vec<Option<Present>>,
    ) -> (Vec<Change>, Vec<Option<Present>>) {
        if self.0.is_none() {
            return (changes, present);
        }
        let ours = |change: Change| self.leave(&change.path).map(|path| Change { path, ..change });
        if present.is_empty() {
            return (changes.into_iter().filter_map(ours).collect(), present);
        }
        changes.into_iter().zip(present).filter_map(|(change, present)| Some((ours(change)?, present))).unzip()
    }

    /// On the way back; none when it lies outside.
    pub(crate) fn entry(&self, entry: TreeEntry) -> Option<TreeEntry> {
        Some(TreeEntry { path: self.leave(&entry.path)?, ..entry })
    }

    fn op(&self, op: Op) -> Result<Op, Refusal> {
        Ok(match op {
            Op::Create(create) => Op::Create(self.create(create)?),
            Op::Set(set) => Op::Set(self.set(set)?),
            Op::Delete(delete) => Op::Delete(self.delete(delete)?),
            Op::Multi(steps) => Op::Multi(self.steps(steps)?),
            Op::Update(update) => Op::Update(self.update(update)?),
            Op::Prune(prune) => Op::Prune(Prune { path: self.enter(&prune.path)?, ..prune }),
            Op::Acl(set) => Op::Acl(self.set_acl(set)?),
            Op::Call(call) => Op::Call(self.call(call)?),
            // These are not about paths. (What a plugin is allowed is that of the whole tree.)
            Op::Cancel { .. } | Op::Upload(_) | Op::Install(_) | Op::Manage(_) | Op::End(_) | Op::Close => op,
        })
    }

    /// The procedure runs with our root as the root: its arguments are as we wrote them, and so are the paths in what it
    /// says.
    fn call(&self, call: Call) -> Result<Call, PathError> {
        Ok(Call { root: self.enter(&call.root)?, ..call })
    }

    fn steps(&self, steps: Vec<Step>) -> Result<Vec<Step>, Refusal> {
        let mapped = steps.into_iter().enumerate().map(|(n, step)| {
            let step = match step {
                Step::Check(check) => {
                    let path = self.enter(&check.path);
                    path.map(|path| Step::Check(Check { path, condition: check.condition })).map_err(Refusal::from)
                }
                Step::Create(create) => self.create(create).map(Step::Create),
                Step::Set(set) => self.set(set).map(Step::Set).map_err(Refusal::from),
                Step::Delete(delete) => self.delete(delete).map(Step::Delete).map_err(Refusal::from),
                Step::Update(update) => self.update(update).map(Step::Update).map_err(Refusal::from),
                Step::Acl(set) => self.set_acl(set).map(Step::Acl).map_err(Refusal::from),
            };
            step.map_err(|refusal| refused_step(n, refusal))
        });
        mapped.collect()
    }

    fn create(&self, create: Create) -> Result<Create, Refusal> {
        if create.kind.sequential && create.path.is_root() {
            // As in the whole tree. The number would go behind the last name of our root: a znode beside it.
            return Err(Refusal::ZnodeExists { path: create.path });
        }
        Ok(Create { path: self.enter(&create.path)?, ..create })
    }

    fn set(&self, set: Set) -> Result<Set, PathError> {
        Ok(Set { path: self.enter(&set.path)?, ..set })
    }

    fn delete(&self, delete: Delete) -> Result<Delete, PathError> {
        Ok(Delete { path: self.enter(&delete.path)?, ..delete })
    }

    fn update(&self, update: Update) -> Result<Update, PathError> {
        Ok(Update { path: self.enter(&update.path)?, ..update })
    }

    fn set_acl(&self, set: SetAcl) -> Result<SetAcl, PathError> {
        Ok(SetAcl { path: self.enter(&set.path)?, ..set })
    }

    fn query(&self, query: Query) -> Result<Query, PathError> {
        Ok(match query {
            Query::Get { path } => Query::Get { path: self.enter(&path)? },
            Query::Exists { path } => Query::Exists { path: self.enter(&path)? },
            Query::Children { path, prefix, after, limit, detail } => {
                Query::Children { path: self.enter(&path)?, prefix, after, limit, detail }
            }
            Query::Many { paths } => {
                Query::Many { paths: paths.iter().map(|path| self.enter(path)).collect::<Result<_, _>>()? }
            }
            Query::Count { path } => Query::Count { path: self.enter(&path)? },
            Query::Acl { path } => Query::Acl { path: self.enter(&path)? },
            Query::Call(call) => Query::Call(self.call(call)?),
            // These are not about paths.
            Query::Owned { .. }
            | Query::Sessions { .. }
            | Query::Plugins { .. }
            | Query::Calls { .. }
            | Query::Status => query,
        })
    }

    fn value(&self, value: Value) -> Result<Value, Error> {
        Ok(match value {
            Value::Created { path, stat } => {
                let path = self.leave(&path).ok_or(Error::Mismatch { question: "a create in a namespace" })?;
                Value::Created { path, stat }
            }
            Value::Multi(values) => {
                Value::Multi(values.into_iter().map(|value| self.value(value)).collect::<Result<_, _>>()?)
            }
            Value::Set { .. }
            | Value::Number { .. }
            | Value::Deleted { .. }
            | Value::Pruned { .. }
            | Value::Acl { .. }
            | Value::Checked
            | Value::Called(_)
            | Value::Parked
            | Value::Cancelled
            | Value::Uploaded
            | Value::Managed(_)
            | Value::Removed
            | Value::Opened { .. }
            | Value::Closed
            | Value::Ended => value,
        })
    }

    fn answer(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Owned { paths, next } => {
                Answer::Owned { paths: paths.iter().filter_map(|path| self.leave(path)).collect(), next }
            }
            // Where it waits for something outside, it is not said for what.
            Answer::Calls { calls, more } => {
                let ours = |awaited: Awaited| self.leave(&awaited.path).map(|path| Awaited { path, ..awaited });
                let call = |call: ParkedCall| {
                    let waits_for = call.waits_for.into_iter().filter_map(ours).collect();
                    ParkedCall { waits_for, ..call }
                };
                Answer::Calls { calls: calls.into_iter().map(call).collect(), more }
            }
            Answer::Znode { .. }
            | Answer::Exists(_)
            | Answer::Page(_)
            | Answer::Many(_)
            | Answer::Count(_)
            | Answer::Acl { .. }
            | Answer::Sessions { .. }
            | Answer::Called(_)
            | Answer::Plugins(_)
            | Answer::Status(_)
            | Answer::Watching
            | Answer::Unwatched
            | Answer::Alive => answer,
        }
    }
}

/// The refusal of a multi because of its step `n`.
pub(crate) fn refused_step(n: usize, cause: Refusal) -> Refusal {
    Refusal::Step { step: u32::try_from(n).unwrap_or(u32::MAX), cause: Box::new(cause) }
}

#[cfg(test)]
mod tests;
