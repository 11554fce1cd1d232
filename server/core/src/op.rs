//! What each operation writes; one file each. [`perform`] is the only door.

pub(crate) mod acl;
pub(crate) mod call;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod fence;
pub(crate) mod genesis;
pub(crate) mod growth;
pub(crate) mod install;
pub(crate) mod multi;
pub(crate) mod park;
pub(crate) mod session;
pub(crate) mod set;
pub(crate) mod sweep;
pub(crate) mod trigger;
pub(crate) mod update;

use conclave_protocol::{Op, Path, Refusal, SessionId, Value};

use crate::authority::administers;
use crate::op::trigger::Binding;
use crate::query;
use crate::view::{Stop, Tx};

/// Carries an operation out, with the triggers that it runs.
pub(crate) fn perform(tx: &mut Tx, op: &Op) -> Result<Value, Stop> {
    let done = match op {
        Op::Create(create) => create::create(tx, create).map(Value::from),
        Op::Set(set) => set::set(tx, set).map(|stat| Value::Set { stat }),
        Op::Delete(delete) => delete::delete(tx, delete).map(|count| Value::Deleted { count }),
        Op::Update(update) => update::update(tx, update).map(multi::edited),
        Op::Prune(prune) => delete::prune(tx, prune).map(|(count, more)| Value::Pruned { count, more }),
        Op::Acl(set) => acl::set(tx, set).map(|stat| Value::Acl { stat }),
        Op::Multi(steps) => multi::multi(tx, steps),
        Op::Call(call) => call::call(tx, call),
        Op::Cancel { sequence } => call::cancel(tx, *sequence),
        Op::Upload(upload) => install::upload(tx, upload),
        Op::Install(install) => install::install(tx, install),
        Op::Manage(manage) => install::manage(tx, manage),
        Op::End(session) => end(tx, *session),
        Op::Close => close(tx),
    }?;
    // A session can always end.
    let binding = if matches!(op, Op::End(_) | Op::Close) { Binding::Certain } else { Binding::Asked };
    trigger::after(tx, binding)?;
    Ok(done)
}

fn close(tx: &mut Tx) -> Result<Value, Stop> {
    let session = tx.session().ok_or_else(|| Refusal::NoSession { what: "closing a session".to_owned() })?;
    session::end(tx, session, false)?;
    Ok(Value::Closed)
}

/// Ends another session: one of the same principal, or any for whoever administers the cluster.
fn end(tx: &mut Tx, session: SessionId) -> Result<Value, Stop> {
    let row = query::session(tx, session)?.ok_or(Refusal::SessionOver { session })?;
    if row.principal != tx.principal() && !administers(tx, tx.principal())? {
        // Whose it is, is not told.
        let action = format!("end session {session} of another principal without administering");
        let principal = tx.principal().to_owned();
        return Err(Refusal::NotAllowed { principal, action, path: Path::root() }.into());
    }
    session::end(tx, session, false)?;
    Ok(Value::Ended)
}
