//! Lines that write, and the steps of a multi.

use conclave_protocol::{
    Call, Check, Condition, Create, Delete, Edit, Kind, Op, Path, Prune, SessionId, Set, SetAcl, Step, Update, Zxid,
    codec, limits,
};
use serde_json::Value;

use crate::access::Dialect;
use crate::fields::Fields;
use crate::request::{Wrong, verb};

/// The operation that this verb is; none when it is no write.
pub(crate) fn take(dialect: &Dialect, verb: &str, fields: &mut Fields) -> Result<Option<Op>, Wrong> {
    Ok(Some(match verb {
        "multi" => Op::Multi(steps(dialect, fields)?),
        "prune" => {
            let path = fields.path("prune")?;
            Op::Prune(Prune { path, limit: fields.limit(most(limits::PRUNE_ZNODES))? })
        }
        "call" => Op::Call(call("call", fields)?),
        // For scenarios, which know the numbers.
        "cancel_call" => {
            let sequence = fields.number("cancel_call")?;
            Op::Cancel { sequence: sequence.ok_or_else(|| fields.missing("cancel_call", "a sequence"))? }
        }
        _ => match step(dialect, verb, fields)? {
            Some(Step::Create(create)) => Op::Create(create),
            Some(Step::Set(set)) => Op::Set(set),
            Some(Step::Delete(delete)) => Op::Delete(delete),
            Some(Step::Update(update)) => Op::Update(update),
            Some(Step::Acl(acl)) => Op::Acl(acl),
            Some(check @ Step::Check(_)) => Op::Multi(vec![check]),
            None => return Ok(None),
        },
    }))
}

/// A limit of ours as a number of a request.
fn most(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// The step that this verb is; none when it cannot be one.
pub(crate) fn step(dialect: &Dialect, verb: &str, fields: &mut Fields) -> Result<Option<Step>, Wrong> {
    Ok(Some(match verb {
        "create" => Step::Create(create(dialect, fields)?),
        "set" => {
            let path = fields.path("set")?;
            Step::Set(Set { path, data: fields.needed_data("data")?, if_version: fields.number("if_version")? })
        }
        "delete" => {
            let path = fields.path("delete")?;
            let if_version = fields.number("if_version")?;
            Step::Delete(Delete { path, if_version, recursive: fields.flag("recursive")? })
        }
        "update" => Step::Update(update(fields)?),
        "set_acl" => {
            let path = fields.path("set_acl")?;
            let acl = dialect.take_acl(fields)?.ok_or_else(|| fields.missing("acl", "a list of grants"))?;
            Step::Acl(SetAcl { path, acl, if_acl_version: fields.number("if_acl_version")? })
        }
        "check" => {
            let path = fields.path("check")?;
            Step::Check(Check { path, condition: condition(fields)? })
        }
        _ => return Ok(None),
    }))
}

/// The step that a whole object is.
pub(crate) fn whole_step(dialect: &Dialect, mut fields: Fields) -> Result<Step, Wrong> {
    let verb = verb(&fields)?;
    let Some(step) = step(dialect, verb, &mut fields)? else {
        let steps = "create, set, delete, update, check and set_acl are";
        return Err(fields.bad(verb, &format!("it is no step of a transaction; {steps}")));
    };
    for key in ["id", "fence", "consistency", "within_ms"] {
        if fields.has(key) {
            return Err(fields.bad(key, "it belongs to the whole transaction, not to a step"));
        }
    }
    fields.end(verb)?;
    Ok(step)
}

fn steps(dialect: &Dialect, fields: &mut Fields) -> Result<Vec<Step>, Wrong> {
    let list = fields.list("multi")?.unwrap_or_default();
    let step = |(n, step): (usize, Value)| whole_step(dialect, Fields::of(format!("step {n}"), step)?);
    list.into_iter().enumerate().map(step).collect()
}

fn create(dialect: &Dialect, fields: &mut Fields) -> Result<Create, Wrong> {
    Ok(Create {
        path: fields.path("create")?,
        data: fields.data("data")?.unwrap_or_default(),
        kind: Kind {
            ephemeral: fields.flag("ephemeral")?,
            sequential: fields.flag("sequential")?,
            container: fields.flag("container")?,
            ttl_ms: fields.number("ttl_ms")?,
        },
        parents: fields.flag("parents")?,
        or_set: fields.flag("or_set")?,
        acl: dialect.take_acl(fields)?,
    })
}

fn update(fields: &mut Fields) -> Result<Update, Wrong> {
    let path = fields.path("update")?;
    let mut edits = Vec::new();
    for (key, edit) in [("add", Edit::Add as fn(i64) -> Edit), ("min", Edit::Min), ("max", Edit::Max)] {
        edits.extend(fields.integer(key)?.map(edit));
    }
    edits.extend(fields.data("append")?.map(Edit::Append));
    if let Some(swap) = fields.take("swap") {
        let at = if fields.at().is_empty() { "\"swap\"".to_owned() } else { format!("{}, \"swap\"", fields.at()) };
        let mut swap = Fields::of(at, swap)?;
        edits.push(Edit::Swap { expected: swap.needed_data("expected")?, data: swap.needed_data("data")? });
        swap.end("a swap")?;
    }
    let edit = one(fields, "update", edits, "add, min, max, append or swap")?;
    Ok(Update { path, edit, if_version: fields.number("if_version")?, or_create: fields.flag("or_create")? })
}

fn condition(fields: &mut Fields) -> Result<Condition, Wrong> {
    let mut all = Vec::new();
    for (key, condition) in [("exists", Condition::Exists), ("absent", Condition::Absent)] {
        if fields.has(key) {
            if !fields.flag(key)? {
                return Err(fields.bad(key, "it is true, or left out; there is exists, and there is absent"));
            }
            all.push(condition);
        } else {
            // Known, for whoever mistypes it.
            fields.take(key);
        }
    }
    all.extend(fields.number("version")?.map(Condition::Version));
    all.extend(fields.number("owner")?.map(|session| Condition::Owner(SessionId(session))));
    all.extend(fields.number("created")?.map(|zxid| Condition::Created(Zxid(zxid))));
    all.extend(fields.data("data")?.map(Condition::Data));
    match fields.take("children") {
        None => {}
        Some(Value::Object(map)) => {
            let mut range = Fields::new(format!("{}\"children\"", prefix(fields)), map);
            let least = range.number("least")?.unwrap_or(0);
            let most = range.number("most")?.unwrap_or(u64::MAX);
            range.end("children")?;
            all.push(Condition::Children { least, most });
        }
        Some(value) => match value.as_u64() {
            Some(count) => all.push(Condition::Children { least: count, most: count }),
            None => {
                let what = "a number, or {\"least\": N, \"most\": N},";
                return Err(fields.wrong("children", what, &value));
            }
        },
    }
    one(fields, "check", all, "exists, absent, version, owner, children, data or created")
}

fn prefix(fields: &Fields) -> String {
    if fields.at().is_empty() { String::new() } else { format!("{}, ", fields.at()) }
}

/// The only one of these.
fn one<T>(fields: &Fields, verb: &str, mut all: Vec<T>, known: &str) -> Result<T, Wrong> {
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(fields.bad(verb, &format!("one of {known} is expected, and there are more"))),
        (None, _) => Err(fields.bad(verb, &format!("one of {known} is expected beside it"))),
    }
}

/// `plugin.procedure`, with arguments as JSON, or bytes as they are.
pub(crate) fn call(verb: &str, fields: &mut Fields) -> Result<Call, Wrong> {
    let name = fields.text(verb)?.unwrap_or_default();
    let Some((plugin, procedure)) =
        name.rsplit_once('.').filter(|(plugin, name)| !plugin.is_empty() && !name.is_empty())
    else {
        return Err(fields.bad(verb, &format!("PLUGIN.PROCEDURE is expected, and it is {name:?}")));
    };
    let args = match fields.take("args") {
        Some(args @ (Value::Array(_) | Value::Object(_))) => {
            if fields.has("args_base64") {
                return Err(fields.bad("args", "there is \"args_base64\" too; one of them"));
            }
            codec::encode(&args).into()
        }
        Some(other) => return Err(fields.wrong("args", "a list, or an object of names and values,", &other)),
        None => fields.data("args")?.unwrap_or_default(),
    };
    let root = match fields.text("root")? {
        Some(text) => fields.parsed_path("root", &text)?,
        None => Path::root(),
    };
    Ok(Call { plugin: plugin.to_owned(), procedure: procedure.to_owned(), args, root })
}
