//! Many steps from a text, one a line: what `conclave txn` carries out as one transaction.

use conclave_protocol::Step;

use crate::access::Dialect;
use crate::fields::{Fields, expected};
use crate::op;
use crate::strict;

/// The steps of a script, each with the number of its line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// In order.
    pub steps: Vec<Step>,
    /// Of each step, its line, from 1.
    pub lines: Vec<usize>,
}

/// A line of a script that is no step. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Dialect {
    /// Reads a script. Empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// The first line that is no step, and why.
    pub fn script(&self, text: &str) -> Result<Script, ScriptError> {
        let mut script = Script::default();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let step = self.step(line).map_err(|message| ScriptError { line: n + 1, message })?;
            script.steps.push(step);
            script.lines.push(n + 1);
        }
        Ok(script)
    }

    fn step(&self, line: &str) -> Result<Step, String> {
        let value = strict::parse(line).map_err(|why| format!("this is no JSON: {why}"))?;
        match value {
            serde_json::Value::Object(map) => op::whole_step(self, Fields::new("", map)).map_err(|wrong| wrong.message),
            other => Err(expected("an object", &other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_one_step_a_line() {
        let text = "# first\n{\"create\": \"/a\", \"data\": \"x\"}\n\n  {\"check\": \"/b\", \"absent\": true}\r\n";
        let script = Dialect::default().script(text).unwrap();
        assert_eq!(script.lines, [2, 4]);
        assert!(matches!(&script.steps[..], [Step::Create(_), Step::Check(_)]));
    }

    #[test]
    fn the_line_that_is_no_step_is_named() {
        for (line, says) in [
            (r#"{"get": "/a"}"#, "it is no step of a transaction"),
            (r#"{"create": "/a", "fence": "/b@1"}"#, "belongs to the whole transaction"),
            (r#"{"creat": "/a"}"#, "did you mean \"create\"?"),
            (r#"{"set": "/a", "data": "x", "if-version": 1}"#, "did you mean \"if_version\"?"),
            (r#"{"delete": "a"}"#, "does not begin with /"),
            ("[]", "an object is expected, and it is []"),
            ("{", "this is no JSON"),
        ] {
            let error = Dialect::default().script(&format!("{{\"delete\": \"/x\"}}\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 2);
            assert!(error.message.contains(says), "{line}: {error}");
        }
    }
}
