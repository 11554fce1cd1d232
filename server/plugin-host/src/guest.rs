//! Calling a guest: what runs of it, with what, and what came of that.

use conclave_core::plugin::{Ended, Park, Reason, Resumed, Seen, Test, Verdict, Wake, Wanted, What};
use conclave_protocol::plugin::Access;
use conclave_protocol::{ChangeKind, Refusal, limits};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::conclave::plugin::types;
use crate::bindings::exports::conclave::plugin::{after, before, procedures, queries, session_end, timer};
use crate::run::Run;
use crate::{Budgets, Exceeded};

/// Characters of a guest's error that are told: they lie in replicated state.
const MESSAGE_CHARACTERS: usize = 1_024;

/// What a component exports of the world.
#[derive(Default)]
pub(crate) struct Exports {
    pub(crate) procedures: Option<procedures::GuestIndices>,
    pub(crate) queries: Option<queries::GuestIndices>,
    pub(crate) before: Option<before::GuestIndices>,
    pub(crate) after: Option<after::GuestIndices>,
    pub(crate) session_end: Option<session_end::GuestIndices>,
    pub(crate) timer: Option<timer::GuestIndices>,
}

impl Exports {
    pub(crate) fn of(instance: &InstancePre<Run>) -> Self {
        Self {
            procedures: procedures::GuestIndices::new(instance).ok(),
            queries: queries::GuestIndices::new(instance).ok(),
            before: before::GuestIndices::new(instance).ok(),
            after: after::GuestIndices::new(instance).ok(),
            session_end: session_end::GuestIndices::new(instance).ok(),
            timer: timer::GuestIndices::new(instance).ok(),
        }
    }
}

/// What a guest said, as far as it said anything.
pub(crate) enum Said {
    /// It ended well.
    Ended(Ended),
    /// It said no, in these words.
    Refused(String),
    /// It said what it may not say.
    Wrong(String),
    /// It wants what it may not.
    Stopped(Refusal),
}

/// Calls it in a fresh instance. `parks`: its manifest says that it may park; `args`: normalised.
pub(crate) fn call(
    store: &mut Store<Run>,
    instance: &InstancePre<Run>,
    exports: &Exports,
    what: &What,
    (args, parks): (&[u8], bool),
) -> wasmtime::Result<Said> {
    let instance = instance.instantiate(&mut *store)?;
    let missing = || wasmtime::Error::msg("the component does not export what the manifest names");
    match what {
        What::Procedure { name, resumed, .. } => {
            let guest = exports.procedures.as_ref().ok_or_else(missing)?.load(&mut *store, &instance)?;
            let resumed = resumed.as_ref().map(told);
            let answer = guest.call_call(&mut *store, name, args, resumed.as_ref())?;
            answer.map_or_else(|message| Ok(refused(&message)), |answer| answered(store.data(), answer, parks))
        }
        What::Query { name, .. } => {
            let guest = exports.queries.as_ref().ok_or_else(missing)?.load(&mut *store, &instance)?;
            let answer = guest.call_query(&mut *store, name, args)?;
            answer.map_or_else(|message| Ok(refused(&message)), |bytes| done(bytes, &store.data().budgets))
        }
        What::Before { trigger, change } => {
            let guest = exports.before.as_ref().ok_or_else(missing)?.load(&mut *store, &instance)?;
            let kind = change.change.kind;
            let change = seen(store.data_mut(), change)?;
            Ok(verdict(guest.call_check(&mut *store, trigger, &change)?, kind))
        }
        What::After { trigger, changes } => {
            let guest = exports.after.as_ref().ok_or_else(missing)?.load(&mut *store, &instance)?;
            let changes =
                changes.iter().map(|change| seen(store.data_mut(), change)).collect::<wasmtime::Result<Vec<_>>>()?;
            Ok(nothing(guest.call_react(&mut *store, trigger, &changes)?))
        }
        What::SessionEnd { session, principal, expired } => {
            let guest = exports.session_end.as_ref().ok_or_else(missing)?.load(&mut *store, &instance)?;
            let session = session_end::Session { id: session.0, principal: principal.clone(), expired: *expired };
            Ok(nothing(guest.call_ended(&mut *store, &session)?))
        }
        What::Timer { trigger } => {
            let guest = exports.timer.as_ref().ok_or_else(missing)?.load(&mut *store, &instance)?;
            Ok(nothing(guest.call_tick(&mut *store, trigger)?))
        }
    }
}

fn refused(message: &str) -> Said {
    Said::Refused(message.chars().take(MESSAGE_CHARACTERS).collect())
}

fn nothing(answer: Result<(), String>) -> Said {
    answer.map_or_else(|message| refused(&message), |()| Said::Ended(Ended::Done(Default::default())))
}

fn done(bytes: Vec<u8>, budgets: &Budgets) -> wasmtime::Result<Said> {
    if bytes.len() > budgets.answer_bytes {
        return Err(Exceeded::Answer.into());
    }
    Ok(Said::Ended(Ended::Done(bytes.into())))
}

fn answered(run: &Run, answer: procedures::Answer, parks: bool) -> wasmtime::Result<Said> {
    match answer {
        procedures::Answer::Done(bytes) => done(bytes, &run.budgets),
        procedures::Answer::Park(_) if !parks => {
            Ok(Said::Wrong("it parks, and its manifest does not say parks = true".to_owned()))
        }
        procedures::Answer::Park(_) if run.tx.session().is_none() => {
            Ok(Said::Stopped(Refusal::NoSession { what: format!("{}, which may have to wait,", run.plugin) }))
        }
        procedures::Answer::Park(park) => Ok(parked(run, park)),
    }
}

/// Where a call parks, if it may.
fn parked(run: &Run, park: procedures::Park) -> Said {
    let procedures::Park { any_of, wake, until_ms, state } = park;
    if any_of.is_empty() || any_of.len() > limits::PARK_CONDITIONS {
        let (count, limit) = (any_of.len(), limits::PARK_CONDITIONS);
        return Said::Wrong(format!("it parks with {count} conditions, 1 to {limit} are allowed"));
    }
    if state.len() > limits::PARK_STATE_BYTES {
        let (bytes, limit) = (state.len(), limits::PARK_STATE_BYTES);
        return Said::Wrong(format!("it parks with a state of {bytes} bytes, {limit} are allowed"));
    }
    let mut wanted = Vec::with_capacity(any_of.len());
    for procedures::Condition { path, test } in any_of {
        // Waiting tells what is there as reading does.
        let path = match run.root.absolute(&path) {
            Ok(path) if !run.is_allowed(Access::Read, &path) => {
                return Said::Stopped(run.not_allowed(Access::Read, &path));
            }
            Ok(path) => path,
            Err(refusal) => return Said::Wrong(format!("it parks on what is no path: {refusal}")),
        };
        let test = match test {
            procedures::Test::Exists => Test::Exists,
            procedures::Test::Absent => Test::Absent,
            procedures::Test::VersionAbove(version) => Test::VersionAbove(version),
            procedures::Test::ChildrenAtLeast(children) => Test::ChildrenAtLeast(children),
            procedures::Test::ChildrenAtMost(children) => Test::ChildrenAtMost(children),
        };
        wanted.push(Wanted { path, test });
    }
    let wake = match wake {
        procedures::Wake::One => Wake::One,
        procedures::Wake::All => Wake::All,
    };
    Said::Ended(Ended::Park(Park { any_of: wanted, wake, until_ms, state: state.into() }))
}

fn verdict(verdict: before::Verdict, kind: ChangeKind) -> Said {
    match verdict {
        before::Verdict::Allow => Said::Ended(Ended::Verdict(Verdict::Allow)),
        before::Verdict::Refuse(message) => refused(&message),
        before::Verdict::Rewrite(data) if matches!(kind, ChangeKind::Created | ChangeKind::Data) => {
            Said::Ended(Ended::Verdict(Verdict::Rewrite(data.into())))
        }
        before::Verdict::Rewrite(_) => Said::Wrong(format!("it rewrites the data of a change that has none ({kind})")),
    }
}

fn told(resumed: &Resumed) -> procedures::Resumed {
    let reason = match resumed.reason {
        Reason::Change => procedures::Reason::Change,
        Reason::Deadline => procedures::Reason::Deadline,
        Reason::Cancel => procedures::Reason::Cancel,
        Reason::SessionEnd => procedures::Reason::SessionEnd,
    };
    let done = resumed.done.as_ref().map(|done| done.to_vec());
    procedures::Resumed { reason, state: resumed.state.to_vec(), done }
}

/// A change as the guest sees it; its data counts as read.
fn seen(run: &mut Run, seen: &Seen) -> wasmtime::Result<types::Change> {
    let Seen { change, data, previous } = seen;
    let path = run.root.told(&change.path).to_string();
    let length = |data: &Option<bytes::Bytes>| data.as_ref().map_or(0, |data| data.len());
    run.read(path.len() + length(data) + length(previous))?;
    Ok(types::Change {
        kind: match change.kind {
            ChangeKind::Created => types::ChangeKind::Created,
            ChangeKind::Data => types::ChangeKind::Data,
            ChangeKind::Deleted => types::ChangeKind::Deleted,
            ChangeKind::Acl => types::ChangeKind::Acl,
        },
        path,
        version: change.version,
        data: data.as_ref().map(|data| data.to_vec()),
        previous: previous.as_ref().map(|data| data.to_vec()),
    })
}
