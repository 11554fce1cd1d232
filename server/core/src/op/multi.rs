//! Several steps, all or none.

use conclave_protocol::{Check, Refusal, Step, Value, limits};

use crate::authority::{Action, authorize};
use crate::tx::within;
use crate::view::{Stop, Tx};

pub(crate) fn multi(tx: &mut Tx, steps: &[Step]) -> Result<Value, Stop> {
    within("steps of the multi", limits::MULTI_STEPS, steps.len())?;
    let values = steps.iter().zip(0..).map(|(one, number)| {
        step(tx, one).map_err(|stop| match stop {
            Stop::Refused(cause) => Stop::Refused(Refusal::Step { step: number, cause: Box::new(cause) }),
            fault @ Stop::Fault(_) => fault,
        })
    });
    Ok(Value::Multi(values.collect::<Result<_, _>>()?))
}

fn step(tx: &mut Tx, step: &Step) -> Result<Value, Stop> {
    Ok(match step {
        Step::Check(wanted) => check(tx, wanted)?,
        Step::Create(create) => {
            let (path, stat) = super::create::create(tx, create)?;
            Value::Created { path, stat }
        }
        Step::Set(set) => Value::Set { stat: super::set::set(tx, set)? },
        Step::Delete(delete) => Value::Deleted { count: super::delete::delete(tx, delete)? },
    })
}

fn check(tx: &Tx, check: &Check) -> Result<Value, Stop> {
    authorize(tx.principal(), Action::Read, &check.path)?;
    super::set::at_version(tx, &check.path, check.if_version)?;
    Ok(Value::Checked)
}
