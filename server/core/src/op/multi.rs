//! Several steps, all or none.

use bytes::Bytes;
use conclave_protocol::{Check, Condition, Fence, Path, Refusal, Stat, Step, Value};

use super::create::Made;
use crate::ZnodeId;
use crate::authority::may_look;
use crate::tree;
use crate::tx::within_u64;
use crate::view::{Stop, Tx};

pub(crate) fn multi(tx: &mut Tx, steps: &[Step]) -> Result<Value, Stop> {
    within_u64("steps of the multi", tx.limits.multi_steps, steps.len() as u64)?;
    let values = steps.iter().zip(0..).map(|(one, number)| {
        step(tx, one).map_err(|stop| match stop {
            Stop::Refused(cause) => Stop::Refused(Refusal::Step { step: number, cause: Box::new(cause) }),
            fault @ Stop::Fault(_) => fault,
        })
    });
    Ok(Value::Multi(values.collect::<Result<_, _>>()?))
}

fn step(tx: &mut Tx, step: &Step) -> Result<Value, Stop> {
    match step {
        Step::Check(wanted) => check(tx, wanted).map(|()| Value::Checked),
        Step::Create(create) => super::create::create(tx, create).map(Made::into),
        Step::Set(set) => super::set::set(tx, set).map(|stat| Value::Set { stat }),
        Step::Delete(delete) => super::delete::delete(tx, delete).map(|count| Value::Deleted { count }),
        Step::Update(update) => super::update::update(tx, update).map(edited),
        Step::Acl(set) => super::acl::set(tx, set).map(|stat| Value::Acl { stat }),
    }
}

impl From<Made> for Value {
    fn from(made: Made) -> Self {
        match made {
            Made::Created(path, stat) => Self::Created { path, stat },
            Made::Set(_, stat) => Self::Set { stat },
        }
    }
}

/// What an update gives.
pub(crate) fn edited((stat, number): (Stat, Option<i64>)) -> Value {
    match number {
        Some(number) => Value::Number { number, stat },
        None => Value::Set { stat },
    }
}

/// Refuses unless it is so.
fn check(tx: &mut Tx, check: &Check) -> Result<(), Stop> {
    let Check { path, condition } = check;
    let found = match condition {
        // As a fence: needs no right to read.
        Condition::Created(zxid) => {
            return super::fence::holds(tx, &Fence { path: path.clone(), zxid: *zxid });
        }
        Condition::Absent => {
            return match may_look(tx, tx.actor(), path)? {
                Some(_) => Err(Refusal::ZnodeExists { path: path.clone() }.into()),
                None => Ok(()),
            };
        }
        _ => may_look(tx, tx.actor(), path)?,
    };
    let Some((id, znode)) = found else {
        return Err(Refusal::NoZnode { path: path.clone() }.into());
    };
    match failed(tx, path, id, &znode.stat, condition)? {
        Some(refusal) => Err(refusal.into()),
        None => Ok(()),
    }
}

/// Why a condition does not hold for a znode that is there.
fn failed(tx: &mut Tx, path: &Path, id: ZnodeId, stat: &Stat, condition: &Condition) -> Result<Option<Refusal>, Stop> {
    let other = |actual: String, expected: String| Some(Refusal::CheckFailed { path: path.clone(), actual, expected });
    Ok(match condition {
        Condition::Version(expected) if *expected != stat.version => {
            Some(Refusal::BadVersion { path: path.clone(), actual: stat.version, expected: *expected })
        }
        Condition::Owner(session) if stat.owner != Some(*session) => {
            let actual = stat.owner.map_or_else(|| "no owner".to_owned(), |owner| format!("session {owner} for owner"));
            other(actual, format!("session {session}"))
        }
        Condition::Children { least, most } if !(least..=most).contains(&&stat.children) => {
            let expected = if least == most { format!("{least}") } else { format!("{least} to {most}") };
            other(format!("{} children", stat.children), expected)
        }
        Condition::Data(expected) => {
            same_length(path, stat.data_bytes, expected)?;
            tx.edit(stat.data_bytes)?;
            let actual = tree::data(tx, id, stat)?;
            (actual != *expected).then(|| other_data(path, &actual, expected))
        }
        _ => None,
    })
}

/// Refuses data that can't be what is expected, without reading it, when it is too long to be shown.
pub(crate) fn same_length(path: &Path, bytes: u64, expected: &Bytes) -> Result<(), Refusal> {
    if bytes == expected.len() as u64 || bytes <= SHOWN as u64 {
        return Ok(());
    }
    let actual = format!("{bytes} bytes of data");
    Err(Refusal::CheckFailed { path: path.clone(), actual, expected: words(expected) })
}

/// The data is not what was expected.
pub(crate) fn other_data(path: &Path, actual: &Bytes, expected: &Bytes) -> Refusal {
    Refusal::CheckFailed { path: path.clone(), actual: words(actual), expected: words(expected) }
}

fn words(data: &Bytes) -> String {
    match std::str::from_utf8(data) {
        Ok(text) if text.len() <= SHOWN => format!("the data {text:?}"),
        _ => format!("{} bytes of data with the hash {:016x}", data.len(), xxhash_rust::xxh3::xxh3_64(data)),
    }
}

/// Data up to so many bytes are shown in a refusal.
const SHOWN: usize = 64;
