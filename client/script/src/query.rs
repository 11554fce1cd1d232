//! Lines that read.

use conclave_protocol::{Detail, Query, SessionId, Zxid, limits};
use serde_json::Value;

use crate::fields::Fields;
use crate::op;
use crate::request::Wrong;

/// The query that this verb is.
pub(crate) fn take(verb: &'static str, fields: &mut Fields) -> Result<Query, Wrong> {
    Ok(match verb {
        "get" => Query::Get { path: fields.path(verb)? },
        "exists" => Query::Exists { path: fields.path(verb)? },
        "count" => Query::Count { path: fields.path(verb)? },
        "acl" => Query::Acl { path: fields.path(verb)? },
        "children" => children(fields)?,
        "many" => many(fields)?,
        "owned" => {
            let session = fields.number(verb)?.ok_or_else(|| fields.missing(verb, "a session's number"))?;
            let after = fields.number("after")?;
            Query::Owned { session: SessionId(session), after, limit: fields.limit(limits::PAGE_CHILDREN)? }
        }
        "ask" => Query::Call(op::call(verb, fields)?),
        "plugins" => match fields.take(verb) {
            Some(Value::Bool(true)) => Query::Plugins { name: None },
            Some(Value::String(name)) => Query::Plugins { name: Some(name) },
            other => return Err(fields.wrong(verb, "true, or a plugin's name,", &other.unwrap_or_default())),
        },
        "calls" => {
            let plugin = fields.text(verb)?.unwrap_or_default();
            let after = fields.number("after")?.map(Zxid);
            Query::Calls { plugin, after, limit: fields.limit(limits::PAGE_CHILDREN)? }
        }
        "sessions" => {
            only_true(verb, fields)?;
            let after = fields.number("after")?.map(SessionId);
            Query::Sessions { after, limit: fields.limit(limits::PAGE_CHILDREN)? }
        }
        _ => {
            only_true(verb, fields)?;
            Query::Status
        }
    })
}

fn children(fields: &mut Fields) -> Result<Query, Wrong> {
    const DETAILS: [(&str, Detail); 3] = [("names", Detail::Names), ("stats", Detail::Stats), ("data", Detail::Data)];
    Ok(Query::Children {
        path: fields.path("children")?,
        prefix: fields.text("prefix")?.unwrap_or_default(),
        after: fields.text("after")?,
        limit: fields.limit(limits::PAGE_CHILDREN)?,
        detail: fields.word("detail", &DETAILS)?.unwrap_or_default(),
    })
}

fn many(fields: &mut Fields) -> Result<Query, Wrong> {
    let mut paths = Vec::new();
    for path in fields.list("many")?.unwrap_or_default() {
        match path {
            Value::String(text) => paths.push(fields.parsed_path("many", &text)?),
            other => return Err(fields.wrong("many", "a list of paths", &other)),
        }
    }
    Ok(Query::Many { paths })
}

/// What has nothing to say beside its name is written `true`.
fn only_true(verb: &str, fields: &mut Fields) -> Result<(), Wrong> {
    match fields.take(verb) {
        Some(Value::Bool(true)) => Ok(()),
        Some(other) => Err(fields.wrong(verb, "true", &other)),
        None => Err(fields.missing(verb, "true")),
    }
}
