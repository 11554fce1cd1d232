//! What answers a line: `ok`, `refused`, `unknown` or `failed`, each under names that stay.

use conclave_protocol::plugin::ParkedCall;
use conclave_protocol::{
    Answer, Entry, Fence, Outcome, Present, Refusal, SessionInfo, Stat, TreeEntry, Value as Given, Zxid,
};
use serde_json::{Map, Value, json};

use crate::access::Dialect;
use crate::{base64, cbor, plugins};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// It was carried out; what it gave.
    Ok(Value),
    /// It was answered with no: nothing was changed. See [`Dialect::refusal`].
    Refused(Value),
    /// It may have happened, or may still happen; why that is not known.
    Unknown {
        /// Why it is not known.
        message: String,
    },
    /// It did not happen, for lack of an answer.
    Failed {
        /// Such as `timed-out`, `no-connection`, `session-over`.
        code: String,
        /// What happened, in words.
        message: String,
    },
}

/// The line that answers a request.
#[must_use]
pub fn line(id: Option<&Value>, zxid: Option<Zxid>, body: Body) -> Value {
    let mut line = head(id, zxid);
    let (key, value) = match body {
        Body::Ok(value) => ("ok", value),
        Body::Refused(value) => ("refused", value),
        Body::Unknown { message } => ("unknown", json!({ "message": message })),
        Body::Failed { code, message } => ("failed", json!({ "code": code, "message": message })),
    };
    line.insert(key.to_owned(), value);
    line.into()
}

/// The line that holds a part of a subtree; the reply follows when all parts have been told.
#[must_use]
pub fn part(id: Option<&Value>, zxid: Zxid, znodes: &[TreeEntry]) -> Value {
    let mut line = head(id, Some(zxid));
    line.insert("part".to_owned(), list(znodes));
    line.into()
}

/// What a subtree gave as one value: for scenarios.
#[must_use]
pub fn subtree(znodes: &[TreeEntry]) -> Value {
    json!({ "count": znodes.len(), "znodes": list(znodes) })
}

fn list(znodes: &[TreeEntry]) -> Value {
    let znode = |znode: &TreeEntry| {
        let mut object = Map::new();
        object.insert("path".to_owned(), json!(znode.path));
        object.insert("stat".to_owned(), stat(&znode.stat));
        if let Some(bytes) = &znode.data {
            data(&mut object, "data", bytes);
        }
        Value::Object(object)
    };
    znodes.iter().map(znode).collect()
}

fn head(id: Option<&Value>, zxid: Option<Zxid>) -> Map<String, Value> {
    let mut line = Map::new();
    if let Some(id) = id {
        line.insert("id".to_owned(), id.clone());
    }
    if let Some(zxid) = zxid {
        line.insert("zxid".to_owned(), json!(zxid));
    }
    line
}

/// Adds bytes: under the key when they are UTF-8, else as base64 under the key with `_base64` behind it.
pub fn data(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(key.to_owned(), text.into()),
        Err(_) => object.insert(format!("{key}_base64"), base64::encode(bytes).into()),
    };
}

impl Dialect {
    /// The line that answers a write.
    #[must_use]
    pub fn written(&self, id: Option<&Value>, zxid: Option<Zxid>, outcome: &Outcome) -> Value {
        line(id, zxid, self.body(outcome, Self::value))
    }

    /// The line that answers a read.
    #[must_use]
    pub fn answered(&self, id: Option<&Value>, zxid: Option<Zxid>, answer: &Result<Answer, Refusal>) -> Value {
        line(id, zxid, self.body(answer, Self::answer))
    }

    /// The line that tells of the end of a call that parked.
    #[must_use]
    pub fn completed(&self, sequence: u64, zxid: Zxid, outcome: &Outcome) -> Value {
        let mut line = line(None, Some(zxid), self.body(outcome, Self::value));
        line["completed"] = sequence.into();
        line
    }

    fn body<T>(&self, result: &Result<T, Refusal>, ok: impl FnOnce(&Self, &T) -> Value) -> Body {
        match result {
            Ok(given) => Body::Ok(ok(self, given)),
            Err(refusal) => Body::Refused(self.refusal(refusal)),
        }
    }

    /// What a write gave.
    #[must_use]
    pub fn value(&self, value: &Given) -> Value {
        match value {
            Given::Created { path, stat } => json!({ "path": path, "stat": self::stat(stat) }),
            Given::Set { stat } | Given::Acl { stat } => json!({ "stat": self::stat(stat) }),
            Given::Number { number, stat } => json!({ "number": number, "stat": self::stat(stat) }),
            Given::Deleted { count } => json!({ "deleted": count }),
            Given::Pruned { count, more } => json!({ "deleted": count, "more": more }),
            Given::Checked => json!({ "checked": true }),
            Given::Multi(values) => {
                let steps: Vec<Value> = values.iter().map(|value| self.value(value)).collect();
                json!({ "steps": steps })
            }
            Given::Called(bytes) => cbor::result(bytes),
            Given::Parked => json!({ "parked": true }),
            Given::Cancelled => json!({ "cancelled": true }),
            Given::Uploaded => json!({ "uploaded": true }),
            Given::Managed(info) => json!({ "plugin": plugins::info(info) }),
            Given::Removed => json!({ "removed": true }),
            Given::Opened { session, timeout_ms } => json!({ "session": session, "timeout_ms": timeout_ms }),
            Given::Closed => json!({ "closed": true }),
            Given::Ended => json!({ "ended": true }),
        }
    }

    /// What a read gave.
    #[must_use]
    pub fn answer(&self, answer: &Answer) -> Value {
        match answer {
            Answer::Znode { data, stat } => present(data, stat),
            Answer::Exists(found) => json!({ "exists": found.is_some(), "stat": found.as_ref().map(stat) }),
            Answer::Page(page) => {
                let children: Vec<Value> = page.children.iter().map(child).collect();
                json!({ "children": children, "more": page.more })
            }
            Answer::Many(znodes) => {
                let znode = |one: &Option<Present>| one.as_ref().map(|one| present(&one.data, &one.stat));
                json!({ "znodes": znodes.iter().map(znode).collect::<Vec<_>>() })
            }
            Answer::Count(count) => json!({ "count": count }),
            Answer::Acl { acl, stat } => json!({ "acl": self.acl(acl), "stat": self::stat(stat) }),
            Answer::Owned { paths, next } => json!({ "paths": paths, "next": next }),
            Answer::Sessions { sessions, more } => {
                let sessions: Vec<Value> = sessions.iter().map(|one| self.session(one)).collect();
                json!({ "sessions": sessions, "more": more })
            }
            Answer::Called(bytes) => cbor::result(bytes),
            Answer::Plugins(all) => json!({ "plugins": all.iter().map(plugins::info).collect::<Vec<_>>() }),
            Answer::Calls { calls, more } => {
                let call = |call: &ParkedCall| {
                    let mut object = plugins::call(call);
                    object["principal"] = self.short(&call.principal).into();
                    object
                };
                json!({ "calls": calls.iter().map(call).collect::<Vec<_>>(), "more": more })
            }
            Answer::Status(status) => json!(status),
            Answer::Watching => json!({ "watching": true }),
            Answer::Unwatched => json!({ "unwatched": true }),
            Answer::Alive => json!({ "alive": true }),
        }
    }

    /// A session.
    #[must_use]
    pub fn session(&self, info: &SessionInfo) -> Value {
        let mut object = json!(info);
        object["principal"] = self.short(&info.principal).into();
        object
    }

    /// A refusal: its stable `code`, its `message` for people, and what it knows (`path`, `actual`, `expected`, ...; for
    /// a multi the `step`).
    #[must_use]
    pub fn refusal(&self, refusal: &Refusal) -> Value {
        let mut object = match refusal {
            Refusal::Step { step, cause } => {
                let mut object = Map::new();
                object.insert("step".to_owned(), json!(step));
                if let Value::Object(inner) = self.refusal(cause) {
                    object.extend(inner);
                }
                object
            }
            Refusal::PluginRefused { plugin, message } => {
                Map::from_iter([("plugin".to_owned(), json!(plugin)), ("said".to_owned(), json!(message))])
            }
            Refusal::Fenced { fence, actual } => {
                Map::from_iter([("fence".to_owned(), text(fence)), ("actual".to_owned(), json!(actual))])
            }
            Refusal::NotAllowed { principal, action, path } => Map::from_iter([
                ("principal".to_owned(), json!(self.short(principal))),
                ("action".to_owned(), json!(action)),
                ("path".to_owned(), json!(path)),
            ]),
            // Its fields, without its name: that is the code.
            other => match json!(other) {
                Value::Object(named) => match named.into_iter().next() {
                    Some((_, Value::Object(fields))) => fields,
                    _ => Map::new(),
                },
                _ => Map::new(),
            },
        };
        object.insert("code".to_owned(), refusal.code().into());
        object.insert("message".to_owned(), refusal.to_string().into());
        object.into()
    }
}

fn text(fence: &Fence) -> Value {
    fence.to_string().into()
}

/// A znode's data and stat.
pub(crate) fn present(bytes: &[u8], stat: &Stat) -> Value {
    let mut object = Map::new();
    data(&mut object, "data", bytes);
    object.insert("stat".to_owned(), self::stat(stat));
    object.into()
}

fn child(entry: &Entry) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(entry.name));
    if let Some(found) = &entry.stat {
        object.insert("stat".to_owned(), stat(found));
    }
    if let Some(bytes) = &entry.data {
        data(&mut object, "data", bytes);
    }
    object.into()
}

/// A stat: all its fields by their names, always; those that it has not are `null`. (On the wire it has no names.)
#[must_use]
pub fn stat(stat: &Stat) -> Value {
    let Stat { created, modified, children_modified, version, children_version, created_ms, modified_ms, .. } = stat;
    let Stat { children_modified_ms, owner, data_bytes, children, acl_version, container, ttl_ms, .. } = stat;
    json!({
        "created": created,
        "modified": modified,
        "children_modified": children_modified,
        "version": version,
        "children_version": children_version,
        "created_ms": created_ms,
        "modified_ms": modified_ms,
        "children_modified_ms": children_modified_ms,
        "owner": owner,
        "data_bytes": data_bytes,
        "children": children,
        "acl_version": acl_version,
        "container": container,
        "ttl_ms": ttl_ms,
    })
}

#[cfg(test)]
mod tests;
