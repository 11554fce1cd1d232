//! Triggers: what plugins have to say before znodes change, and what they write after that in the same transaction.

use bytes::Bytes;
use conclave_protocol::plugin::OnFailure;
use conclave_protocol::{Change, ChangeKind, Path, Refusal, SessionId, limits};

use crate::plugin::{Ended, Seen, Verdict, What};
use crate::plugins::Bound;
use crate::row::Znode;
use crate::tree;
use crate::view::{Stop, Tx};
use crate::{Fault, ZnodeId};

/// What is about to change of a znode.
pub(crate) struct About<'a> {
    pub(crate) kind: ChangeKind,
    pub(crate) path: &'a Path,
    /// The znode, when it is there.
    pub(crate) present: Option<(ZnodeId, &'a Znode)>,
    /// The data that it is to have.
    pub(crate) data: Option<&'a Bytes>,
}

/// Asks the `before` triggers of a change, one after the other: the data to write instead, if any of them rewrote it.
pub(crate) fn before(tx: &mut Tx, about: &About<'_>) -> Result<Option<Bytes>, Stop> {
    let bound = tx.plugins.before(about.kind, about.path);
    if bound.is_empty() {
        return Ok(None);
    }
    let previous = match about.present {
        Some((id, znode)) => Some(tree::data(tx, id, &znode.stat)?),
        None => None,
    };
    let version = match (about.kind, about.present) {
        (ChangeKind::Data, Some((_, znode))) => znode.stat.version + 1,
        (_, Some((_, znode))) => znode.stat.version,
        (_, None) => 0,
    };
    let mut rewritten: Option<Bytes> = None;
    for Bound { plugin, trigger } in bound {
        let change = Change { kind: about.kind, path: about.path.clone(), version };
        let data = rewritten.as_ref().or(about.data).cloned();
        let seen = Seen { change, data, previous: previous.clone() };
        let what = What::Before { trigger: trigger.name().to_owned(), change: seen };
        let done = plugin.runs().map_err(Stop::from).and_then(|()| plugin.run(tx, &Path::root(), what));
        match done {
            Ok((Ended::Verdict(Verdict::Rewrite(data)), _)) if about.data.is_some() => {
                crate::tx::within_u64("bytes of data", tx.limits.data_bytes, data.len() as u64)?;
                rewritten = Some(data);
            }
            Ok((Ended::Verdict(Verdict::Rewrite(_)), _)) if trigger.on_failure == OnFailure::Closed => {
                let why = format!("it rewrites the data of a znode that is {}", about.kind);
                return Err(Refusal::PluginFailed { plugin: plugin.name.clone(), why }.into());
            }
            Ok(_) => {}
            Err(stop) => failed(stop, trigger.on_failure)?,
        }
    }
    Ok(rewritten)
}

/// Whether a failure goes on as if the trigger were not there: never a plugin's own "no".
fn failed(stop: Stop, on_failure: OnFailure) -> Result<(), Stop> {
    match (&stop, on_failure) {
        (Stop::Refused(Refusal::PluginFailed { .. } | Refusal::PluginDisabled { .. }), OnFailure::Open) => Ok(()),
        _ => Err(stop),
    }
}

/// Remembers the data of a change for `after` triggers, if any is for it. Right before the change is recorded, with the
/// data still as it was before.
pub(crate) fn note(tx: &mut Tx, about: &About<'_>) -> Result<(), Fault> {
    if !tx.plugins.has_after() || tx.plugins.after(about.kind, about.path).is_empty() {
        return Ok(());
    }
    let previous = match about.present {
        Some((id, znode)) => Some(tree::data(tx, id, &znode.stat)?),
        None => None,
    };
    tx.note(about.data.cloned(), previous);
    Ok(())
}

/// How binding `after` triggers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// One that fails refuses the transaction, unless it says otherwise.
    Asked,
    /// Nothing can prevent the transaction: one that fails is undone alone.
    Certain,
}

/// Runs the `after` triggers of what the transaction changed, and of what they change, and so on.
pub(crate) fn after(tx: &mut Tx, binding: Binding) -> Result<(), Stop> {
    if !tx.plugins.has_after() {
        return Ok(());
    }
    let mut from = 0;
    for _ in 0..limits::CASCADE {
        let upto = tx.changes().len();
        if from == upto {
            return Ok(());
        }
        for (number, changes) in matching(tx, from, upto) {
            let Some(Bound { plugin, trigger }) = tx.plugins.after_trigger(number).cloned() else { continue };
            let before = tx.savepoint();
            let what = What::After { trigger: trigger.name().to_owned(), changes };
            let done = plugin.runs().map_err(Stop::from).and_then(|()| plugin.run(tx, &Path::root(), what));
            match done {
                Ok(_) => {}
                Err(Stop::Refused(_)) if binding == Binding::Certain => tx.restore(before),
                Err(stop) => {
                    failed(stop, trigger.on_failure)?;
                    tx.restore(before);
                }
            }
        }
        from = upto;
    }
    if from == tx.changes().len() {
        return Ok(());
    }
    // Whose writes go on and on is told by the last of them.
    let last = tx.changes().last().map(|recorded| (recorded.change.kind, recorded.change.path.clone()));
    let bound = last.and_then(|(kind, path)| {
        let number = tx.plugins.after(kind, &path).first().copied()?;
        tx.plugins.after_trigger(number).cloned()
    });
    match bound {
        Some(bound) if binding == Binding::Asked => {
            let why = format!("its writes run triggers more than {} deep", limits::CASCADE);
            Err(Refusal::PluginLoop { plugin: bound.plugin.name.clone(), why }.into())
        }
        // What is written already stays: it can't be told which of it should not.
        _ => Ok(()),
    }
}

/// The changes between two places, for each `after` trigger that they are for, by its order.
fn matching(tx: &Tx, from: usize, upto: usize) -> std::collections::BTreeMap<usize, Vec<Seen>> {
    let mut all: std::collections::BTreeMap<usize, Vec<Seen>> = std::collections::BTreeMap::new();
    for noted in tx.noted.iter().filter(|noted| (from..upto).contains(&noted.at)) {
        let change = &tx.changes()[noted.at].change;
        for number in tx.plugins.after(change.kind, &change.path) {
            let seen = Seen { change: change.clone(), data: noted.data.clone(), previous: noted.previous.clone() };
            all.entry(number).or_default().push(seen);
        }
    }
    all
}

/// Runs the `session-end` triggers. Nothing prevents the end of a session: one that fails is undone alone.
pub(crate) fn session_end(tx: &mut Tx, session: SessionId, principal: &str, expired: bool) -> Result<(), Fault> {
    for Bound { plugin, trigger: _ } in tx.plugins.session_end().to_vec() {
        let before = tx.savepoint();
        let what = What::SessionEnd { session, principal: principal.to_owned(), expired };
        match plugin.run(tx, &Path::root(), what) {
            Ok(_) => {}
            Err(Stop::Refused(_)) => tx.restore(before),
            Err(Stop::Fault(fault)) => return Err(fault),
        }
    }
    Ok(())
}
