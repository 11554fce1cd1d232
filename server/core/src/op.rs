//! What each operation writes; one file each. [`perform`] is the only door.

pub(crate) mod call;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod fence;
pub(crate) mod forget;
pub(crate) mod genesis;
pub(crate) mod growth;
pub(crate) mod multi;
pub(crate) mod session;
pub(crate) mod set;

use conclave_protocol::{Op, Refusal, Value};

use crate::op::call::Plugins;
use crate::view::{Stop, Tx};

/// Carries an operation out. The transaction is handed in and comes back, because a plugin's store owns it for a while.
pub(crate) fn perform(mut tx: Tx, op: &Op, plugins: &mut Plugins) -> (Tx, Result<Value, Stop>) {
    let done = match op {
        Op::Create(create) => create::create(&mut tx, create).map(|(path, stat)| Value::Created { path, stat }),
        Op::Set(set) => set::set(&mut tx, set).map(|stat| Value::Set { stat }),
        Op::Delete(delete) => delete::delete(&mut tx, delete).map(|count| Value::Deleted { count }),
        Op::Multi(steps) => multi::multi(&mut tx, steps),
        Op::Call(call) => return call::call(tx, call, plugins),
        Op::Close => close(&mut tx),
    };
    (tx, done)
}

fn close(tx: &mut Tx) -> Result<Value, Stop> {
    let session = tx.session().ok_or_else(|| Refusal::NoSession { what: "closing a session".to_owned() })?;
    session::end(tx, session)?;
    Ok(Value::Closed)
}
