//! Plays a scenario: says what to do next, is told what came of it, and finds what is otherwise than expected.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::access::Dialect;
use crate::expect::{Bindings, Expected};
use crate::request::Request;
use crate::scenario::{Moment, Scenario, What};

/// A scenario that is being played. It does nothing itself: whoever runs it does what [`Play::act`] says, and tells it
/// what came with [`Play::told`].
#[derive(Debug)]
pub struct Play {
    moments: std::vec::IntoIter<Moment>,
    domain: String,
    client: String,
    dialects: BTreeMap<String, Dialect>,
    bindings: Bindings,
    awaited: Option<(usize, String, Option<Expected>)>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Have this client ask, and tell [`Play::told`] the line that answers.
    Ask {
        /// The client's name.
        client: String,
        /// What it asks.
        request: Box<Request>,
    },
    /// Wait for this client's next event, and tell [`Play::told`] its line.
    Event {
        /// The client's name.
        client: String,
    },
    /// Let so much time pass.
    Advance(Duration),
}

/// What is otherwise than the scenario says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}\n{difference}")]
pub struct Mismatch {
    /// The scenario's line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
    /// What is different.
    pub difference: String,
}

impl Play {
    /// Begins a scenario. Client `alice` of it has the principal `spiffe://<domain>/client/alice`.
    #[must_use]
    pub fn new(scenario: Scenario, domain: &str) -> Self {
        Self {
            moments: scenario.moments.into_iter(),
            domain: domain.to_owned(),
            client: "one".to_owned(),
            dialects: BTreeMap::new(),
            bindings: Bindings::default(),
            awaited: None,
        }
    }

    /// A client's principal.
    #[must_use]
    pub fn principal(&self, client: &str) -> String {
        format!("spiffe://{}/client/{client}", self.domain)
    }

    /// How that client's lines are read and written.
    pub fn dialect(&mut self, client: &str) -> &Dialect {
        let principal = self.principal(client);
        self.dialects.entry(client.to_owned()).or_insert_with(|| Dialect::of(&principal))
    }

    /// What to do next; none at the end.
    ///
    /// # Errors
    /// A line that is no request, and was not expected to be refused for that; a line that makes no sense.
    pub fn act(&mut self) -> Result<Option<Act>, Mismatch> {
        while let Some(Moment { line, what }) = self.moments.next() {
            let client = self.client.clone();
            match what {
                What::Client(name) => self.client = name,
                What::Advance(time) => return Ok(Some(Act::Advance(time))),
                What::Event(expected) => {
                    let expected = self.expected(line, &expected)?;
                    self.awaited = Some((line, "an event".to_owned(), Some(expected)));
                    return Ok(Some(Act::Event { client }));
                }
                What::Request { text, expected } => {
                    let wrong = |difference| Mismatch { line, text: text.clone(), difference };
                    let filled = self.bindings.fill(&text).map_err(wrong)?;
                    let expected = expected.map(|expected| self.expected(line, &expected)).transpose()?;
                    self.awaited = Some((line, filled.clone(), expected));
                    match self.dialect(&client).request(&filled) {
                        Ok(request) => return Ok(Some(Act::Ask { client, request: Box::new(request) })),
                        Err(error) => self.told(&error.reply())?,
                    }
                }
            }
        }
        Ok(None)
    }

    /// What answered the request, or which event came.
    ///
    /// # Errors
    /// How it differs from what the scenario says.
    pub fn told(&mut self, actual: &Value) -> Result<(), Mismatch> {
        let Some((line, text, expected)) = self.awaited.take() else {
            return Ok(());
        };
        let compared = match expected {
            Some(expected) => expected.matches(actual, &mut self.bindings),
            None if actual.get("ok").is_some() => Ok(()),
            None => Err(format!("it must be ok, and is {actual}")),
        };
        compared.map_err(|difference| Mismatch { line, text, difference: format!("{difference}\nit was {actual}") })
    }

    fn expected(&self, line: usize, text: &str) -> Result<Expected, Mismatch> {
        let filled = self.fill_strings(text);
        Expected::parse(&filled).map_err(|difference| Mismatch { line, text: text.to_owned(), difference })
    }

    /// Names within strings are replaced where they have a value; bare ones are met or compared later.
    fn fill_strings(&self, text: &str) -> String {
        let parts = text.split('"').enumerate();
        let fill = |(n, part): (usize, &str)| match n % 2 {
            1 => self.bindings.fill(part).unwrap_or_else(|_| part.to_owned()),
            _ => part.to_owned(),
        };
        parts.map(fill).collect::<Vec<_>>().join("\"")
    }
}

#[cfg(test)]
mod tests {
    use conclave_protocol::Op;
    use serde_json::json;

    use super::*;
    use crate::request::Ask;

    fn play(text: &str) -> Play {
        Play::new(Scenario::parse(text).unwrap(), "example")
    }

    #[test]
    fn a_scenario_says_what_to_do_and_remembers_what_it_met() {
        let mut play = play(
            r#"
            {"create": "/a", "sequential": true}
            = {"ok": {"path": $p, "stat": {"created": $z, ...}}}
            @bob
            {"set": "$p", "data": "x", "fence": "$p@$z"}
            > 5s
            < {"watch": 1, "path": "$p!"}
            "#
            .replace("\n            ", "\n")
            .as_str(),
        );
        let Some(Act::Ask { client, request }) = play.act().unwrap() else { panic!("a request") };
        assert_eq!(client, "one");
        assert!(matches!(request.ask, Ask::Write(Op::Create(_))));
        play.told(&json!({ "zxid": 7, "ok": { "path": "/a0", "stat": { "created": 7, "version": 0 } } })).unwrap();
        let Some(Act::Ask { client, request }) = play.act().unwrap() else { panic!("a request") };
        assert_eq!(client, "bob");
        assert_eq!(request.fence.unwrap().to_string(), "/a0@7");
        play.told(&json!({ "ok": { "anything": true } })).unwrap();
        assert_eq!(play.act().unwrap(), Some(Act::Advance(Duration::from_secs(5))));
        assert_eq!(play.act().unwrap(), Some(Act::Event { client: "bob".into() }));
        play.told(&json!({ "watch": 1, "path": "/a0!" })).unwrap();
        assert_eq!(play.act().unwrap(), None);
    }

    #[test]
    fn what_is_otherwise_is_told_with_its_line() {
        let mut one = play("{\"get\": \"/a\"}\n= {\"ok\": {\"data\": \"x\", ...}}");
        assert!(one.act().unwrap().is_some());
        let mismatch = one.told(&json!({ "ok": { "data": "y" } })).unwrap_err();
        assert_eq!(mismatch.line, 1);
        assert!(mismatch.to_string().contains("ok.data: expected \"x\", is \"y\""), "{mismatch}");
        let mut one = play("{\"get\": \"/a\"}");
        assert!(one.act().unwrap().is_some());
        let refused = json!({ "refused": { "code": "no-znode" } });
        assert!(one.told(&refused).unwrap_err().to_string().contains("it must be ok"));
        assert!(play("{\"get\": \"/$q\"}").act().unwrap_err().to_string().contains("$q has no value"));
    }

    #[test]
    fn a_line_that_is_no_request_may_be_what_is_expected() {
        let mut one = play("{\"get\": \"a\"}\n= {\"refused\": {\"code\": \"bad-path\", ...}}");
        assert_eq!(one.act().unwrap(), None);
        assert!(play("{\"get\": \"a\"}").act().unwrap_err().to_string().contains("does not begin with /"));
    }
}
