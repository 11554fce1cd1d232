//! One line that asks: which verb it has, what else it says, and what is wrong with it.

use conclave_protocol::{Consistency, Fence, Kinds, Op, Path, Pattern, Query, Scope, WatchId, Zxid};
use serde_json::{Value, json};

use crate::access::Dialect;
use crate::fields::{Fields, expected};
use crate::nearest::nearest;
use crate::{op, query, strict};

/// What a line asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back with everything that answers it: any JSON value.
    pub id: Option<Value>,
    /// Of a write: only while this holds.
    pub fence: Option<Fence>,
    /// Of a read: how fresh.
    pub consistency: Option<Consistency>,
    /// The time that it may take, milliseconds.
    pub within_ms: Option<u64>,
    /// What.
    pub ask: Ask,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ask {
    /// A write. A check alone is a multi of one step. Closing the session is one too.
    Write(Op),
    /// A read.
    Read(Query),
    /// A znode and all below it, as of one zxid.
    Subtree {
        /// The top.
        path: Path,
        /// With data.
        data: bool,
    },
    /// To be told of changes.
    Watch(Watch),
    /// Not to be told of them any more.
    Unwatch(WatchId),
    /// To give back the call that was asked under this id, and is on its way.
    Cancel(Value),
    /// To have a session, with this timeout in milliseconds.
    Open {
        /// None: the default.
        timeout_ms: Option<u64>,
    },
}

/// A watch that is asked for. Its number comes back: a client's watches count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Where.
    pub path: Path,
    /// What there.
    pub scope: Scope,
    /// Only changes of these kinds.
    pub kinds: Option<Kinds>,
    /// Only of znodes whose last name matches.
    pub names: Option<Pattern>,
    /// With data.
    pub data: bool,
    /// Ends with its first event.
    pub once: bool,
    /// Every change after this zxid.
    pub since: Option<Zxid>,
    /// The present state first, then every change.
    pub snapshot: bool,
}

/// Why a line asks nothing. It was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct LineError {
    /// The line's `id`, if it could be read.
    pub id: Option<Value>,
    /// `bad-line`, or `bad-path`.
    pub code: &'static str,
    /// What is wrong, where, and what is expected.
    pub message: String,
}

impl LineError {
    /// The line that answers it.
    #[must_use]
    pub fn reply(&self) -> Value {
        let mut reply = json!({ "refused": { "code": self.code, "message": self.message } });
        if let Some(id) = &self.id {
            reply["id"] = id.clone();
        }
        reply
    }
}

/// What is wrong with a part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Wrong {
    pub(crate) const fn line(message: String) -> Self {
        Self { code: "bad-line", message }
    }

    pub(crate) const fn path(message: String) -> Self {
        Self { code: "bad-path", message }
    }
}

/// What a line can begin with, and which of these words may stand beside it as something else.
const VERBS: [(&str, &[&str]); 27] = [
    ("create", &["acl"]),
    ("set", &[]),
    ("delete", &[]),
    ("prune", &[]),
    ("update", &[]),
    ("multi", &[]),
    ("check", &["exists", "children"]),
    ("set_acl", &["acl"]),
    ("call", &[]),
    ("ask", &[]),
    ("cancel", &[]),
    ("cancel_call", &[]),
    ("plugins", &[]),
    ("calls", &[]),
    ("get", &[]),
    ("exists", &[]),
    ("children", &[]),
    ("many", &[]),
    ("count", &[]),
    ("subtree", &[]),
    ("acl", &[]),
    ("owned", &[]),
    ("sessions", &[]),
    ("status", &[]),
    ("watch", &[]),
    ("unwatch", &[]),
    ("session", &[]),
];

impl Dialect {
    /// What a line asks.
    ///
    /// # Errors
    /// What is wrong with it, with the line's id.
    pub fn request(&self, line: &str) -> Result<Request, LineError> {
        let bad = |id, wrong: Wrong| LineError { id, code: wrong.code, message: wrong.message };
        let value = strict::parse(line).map_err(|why| bad(None, Wrong::line(format!("this is no JSON: {why}"))))?;
        let Value::Object(map) = value else {
            return Err(bad(None, Wrong::line(format!("the line: {}", expected("an object", &value)))));
        };
        let id = map.get("id").filter(|id| !id.is_null()).cloned();
        self.read(Fields::new("", map)).map_err(|wrong| bad(id, wrong))
    }

    fn read(&self, mut fields: Fields) -> Result<Request, Wrong> {
        let id = fields.take("id");
        let within_ms = fields.number("within_ms")?;
        let fence = take_fence(&mut fields)?;
        let consistency = take_consistency(&mut fields)?;
        let verb = verb(&fields)?;
        let ask = self.ask(verb, fields)?;
        match (&ask, &fence, consistency) {
            (Ask::Write(_), _, Some(_)) => {
                Err(Wrong::line(format!("\"consistency\": it is for reads, and {verb} is none")))
            }
            (
                Ask::Read(_)
                | Ask::Subtree { .. }
                | Ask::Watch(_)
                | Ask::Unwatch(_)
                | Ask::Cancel(_)
                | Ask::Open { .. },
                Some(_),
                _,
            ) => Err(Wrong::line(format!("\"fence\": it is for writes, and {verb} is none"))),
            (Ask::Watch(_) | Ask::Unwatch(_) | Ask::Cancel(_) | Ask::Open { .. }, _, Some(_)) => {
                Err(Wrong::line(format!("\"consistency\": it is for reads, and {verb} is none")))
            }
            _ => Ok(Request { id, fence, consistency, within_ms, ask }),
        }
    }

    fn ask(&self, verb: &'static str, mut fields: Fields) -> Result<Ask, Wrong> {
        let ask = match verb {
            "subtree" => Ask::Subtree { path: fields.path("subtree")?, data: fields.flag("data")? },
            "watch" => Ask::Watch(take_watch(&mut fields)?),
            "unwatch" => {
                let watch = fields.number("unwatch")?;
                Ask::Unwatch(WatchId(watch.ok_or_else(|| fields.missing("unwatch", "a watch's number"))?))
            }
            "cancel" => {
                let id = fields.take("cancel").filter(|id| !id.is_null());
                Ask::Cancel(id.ok_or_else(|| fields.missing("cancel", "the id of a call that is on its way"))?)
            }
            "session" => take_session(&mut fields)?,
            _ => match op::take(self, verb, &mut fields)? {
                Some(op) => Ask::Write(op),
                None => Ask::Read(query::take(verb, &mut fields)?),
            },
        };
        fields.end(verb)?;
        Ok(ask)
    }
}

/// The one word that says what to do.
pub(crate) fn verb(fields: &Fields) -> Result<&'static str, Wrong> {
    let here = |text: String| if fields.at().is_empty() { text } else { format!("{}: {text}", fields.at()) };
    let present: Vec<(&'static str, &[&str])> = VERBS.into_iter().filter(|(verb, _)| fields.has(verb)).collect();
    let fits =
        |(verb, beside): &(&str, &[&str])| present.iter().all(|(other, _)| other == verb || beside.contains(other));
    if let Some((verb, _)) = present.iter().copied().find(fits) {
        return Ok(verb);
    }
    if let [(one, _), (other, _), ..] = present[..] {
        return Err(Wrong::line(here(format!("{one:?} and {other:?} cannot be asked for in one line"))));
    }
    let meant = fields.keys().find_map(|key| Some((key, nearest(key, VERBS.map(|(verb, _)| verb))?)));
    let hint = match meant {
        Some((key, verb)) => format!("{key:?} is no request; did you mean {verb:?}?"),
        None => {
            let verbs = VERBS.map(|(verb, _)| verb).join(", ");
            format!("it says nothing to do; one of {verbs} is expected")
        }
    };
    Err(Wrong::line(here(hint)))
}

fn take_fence(fields: &mut Fields) -> Result<Option<Fence>, Wrong> {
    let Some(text) = fields.text("fence")? else { return Ok(None) };
    text.parse().map(Some).map_err(|error: conclave_protocol::ParseFenceError| fields.bad("fence", &error.to_string()))
}

fn take_consistency(fields: &mut Fields) -> Result<Option<Consistency>, Wrong> {
    const WORDS: [(&str, Consistency); 3] =
        [("session", Consistency::Session), ("linearizable", Consistency::Linearizable), ("stale", Consistency::Stale)];
    let Some(value) = fields.take("consistency") else { return Ok(None) };
    if let Value::Object(map) = value {
        let mut within = Fields::new("\"consistency\"", map);
        let ms = within.number("within_ms")?.ok_or_else(|| within.missing("within_ms", "a number of milliseconds"))?;
        within.end("it")?;
        return Ok(Some(Consistency::Within(ms)));
    }
    let word = WORDS.iter().find(|(word, _)| value.as_str() == Some(word));
    match word {
        Some((_, consistency)) => Ok(Some(*consistency)),
        None => {
            let what = "one of session, linearizable, stale, {\"within_ms\": N}";
            Err(fields.wrong("consistency", what, &value))
        }
    }
}

fn take_watch(fields: &mut Fields) -> Result<Watch, Wrong> {
    const SCOPES: [(&str, Scope); 4] = [
        ("data", Scope::Data),
        ("existence", Scope::Existence),
        ("children", Scope::Children),
        ("subtree", Scope::Subtree),
    ];
    let watch = Watch {
        path: fields.path("watch")?,
        scope: fields.word("scope", &SCOPES)?.unwrap_or(Scope::Data),
        kinds: take_kinds(fields)?,
        names: match fields.text("names")? {
            None => None,
            Some(text) => Some(text.parse::<Pattern>().map_err(|error| fields.bad("names", &error.to_string()))?),
        },
        data: fields.flag("data")?,
        once: fields.flag("once")?,
        since: fields.number("since")?.map(Zxid),
        snapshot: fields.flag("snapshot")?,
    };
    if watch.snapshot && watch.since.is_some() {
        return Err(fields.bad("since", "a watch begins with a snapshot or after a zxid, not both"));
    }
    Ok(watch)
}

fn take_kinds(fields: &mut Fields) -> Result<Option<Kinds>, Wrong> {
    use conclave_protocol::ChangeKind::{Acl, Created, Data, Deleted};
    const KINDS: [(&str, conclave_protocol::ChangeKind); 4] =
        [("created", Created), ("data", Data), ("deleted", Deleted), ("acl", Acl)];
    let Some(list) = fields.list("kinds")? else { return Ok(None) };
    let kinds: Vec<_> = list.iter().map(|kind| fields.one_of("kinds", kind, &KINDS)).collect::<Result<_, _>>()?;
    if kinds.is_empty() {
        return Err(fields.bad("kinds", "the list is empty: nothing would be told"));
    }
    Ok(Some(Kinds::of(&kinds)))
}

fn take_session(fields: &mut Fields) -> Result<Ask, Wrong> {
    const ACTS: [(&str, &str); 3] = [("open", "open"), ("close", "close"), ("kill", "kill")];
    Ok(match fields.word("session", &ACTS)? {
        Some("open") => Ask::Open { timeout_ms: fields.number("timeout_ms")? },
        Some("close") => Ask::Write(Op::Close),
        _ => {
            let number = fields.number("number")?;
            let number = number.ok_or_else(|| fields.missing("number", "the number of the session to kill"))?;
            Ask::Write(Op::End(conclave_protocol::SessionId(number)))
        }
    })
}

#[cfg(test)]
mod tests;
