//! What a scenario expects of a line, and how what came differs from it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Values that were met under a name, such as `$zxid`: later lines use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings(BTreeMap<String, Value>);

impl Bindings {
    /// The value of a name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Gives a name a value.
    pub fn bind(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// A text with its `$name`s replaced: by a string's characters, or by the value's JSON. `$$` is a dollar sign.
    ///
    /// # Errors
    /// The name that has no value.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            filled.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                filled.push('$');
                rest = after;
                continue;
            }
            let (name, after) = name(after);
            match self.0.get(name) {
                Some(Value::String(text)) => filled.push_str(text),
                Some(value) => filled.push_str(&value.to_string()),
                None if name.is_empty() => return Err("a $ without a name; $$ is a dollar sign".to_owned()),
                None => return Err(format!("${name} has no value yet")),
            }
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The name that a text begins with, and the rest.
fn name(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

/// What is expected: JSON in which `_` stands for any value, `$name` for one that is remembered (or, when it is known,
/// for that very one), and `...` in an object or at the end of a list for whatever else is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected(Form);

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Any,
    Named(String),
    Exactly(Value),
    List { items: Vec<Self>, open: bool },
    Object { fields: BTreeMap<String, Self>, open: bool },
}

/// Begins strings that stand for what is no JSON. No text of a scenario has it.
const MARK: char = '\u{1}';

impl Expected {
    /// Reads what is expected. Names within strings have been replaced before, see [`Bindings::fill`].
    ///
    /// # Errors
    /// Where it is no such text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json = marked(text);
        let value: Value = serde_json::from_str(&json).map_err(|error| format!("{text}: {error}"))?;
        Ok(Self(form(value)))
    }

    /// Whether that came. A reply's `id` and `zxid`, beside `ok` and the like, count only when they are named here.
    ///
    /// # Errors
    /// Each difference on a line: where, what was expected, what is there.
    pub fn matches(&self, actual: &Value, bindings: &mut Bindings) -> Result<(), String> {
        let mut differences = Vec::new();
        let mut met = bindings.clone();
        match (&self.0, actual) {
            (Form::Object { fields, open }, Value::Object(object)) => {
                let mut object = object.clone();
                for key in ["id", "zxid"] {
                    if !fields.contains_key(key) {
                        object.remove(key);
                    }
                }
                let form = Form::Object { fields: fields.clone(), open: *open };
                compare(&form, &object.into(), "", &mut met, &mut differences);
            }
            (form, actual) => compare(form, actual, "", &mut met, &mut differences),
        }
        if differences.is_empty() {
            *bindings = met;
            return Ok(());
        }
        Err(differences.join("\n"))
    }
}

/// The same text as JSON: bare `_`, `$name` and `...` become marked strings.
fn marked(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 16);
    let mut nesting = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        match c {
            '"' => {
                used = string_end(rest);
                json.push_str(&rest[..used]);
            }
            '_' => json.push_str(&format!("\"\\u{:04x}_\"", u32::from(MARK))),
            '$' => {
                let (name, _) = name(&rest[1..]);
                used = 1 + name.len();
                json.push_str(&format!("\"\\u{:04x}${name}\"", u32::from(MARK)));
            }
            '.' if rest.starts_with("...") => {
                used = 3;
                json.push_str(&format!("\"\\u{:04x}...\"", u32::from(MARK)));
                if nesting.last() == Some(&'{') {
                    json.push_str(":0");
                }
            }
            _ => {
                match c {
                    '{' | '[' => nesting.push(c),
                    '}' | ']' => {
                        nesting.pop();
                    }
                    _ => {}
                }
                json.push(c);
            }
        }
        rest = &rest[used..];
    }
    json
}

/// Where the string ends that this text begins with.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn form(value: Value) -> Form {
    const REST: &str = "\u{1}...";
    match value {
        Value::String(text) => match text.strip_prefix(MARK) {
            Some("_") => Form::Any,
            Some(name) if name.starts_with('$') => Form::Named(name[1..].to_owned()),
            _ => Form::Exactly(text.into()),
        },
        Value::Array(mut items) => {
            let open = items.last().is_some_and(|last| last == REST);
            if open {
                items.pop();
            }
            Form::List { items: items.into_iter().map(form).collect(), open }
        }
        Value::Object(mut object) => {
            let open = object.remove(REST).is_some();
            Form::Object { fields: object.into_iter().map(|(key, value)| (key, form(value))).collect(), open }
        }
        other => Form::Exactly(other),
    }
}

fn compare(form: &Form, actual: &Value, at: &str, met: &mut Bindings, differences: &mut Vec<String>) {
    let mut differs = |what: String| {
        let at = if at.is_empty() { "the line" } else { at };
        differences.push(format!("{at}: {what}"));
    };
    match (form, actual) {
        (Form::Any, _) => {}
        (Form::Named(name), actual) => match met.value(name) {
            Some(known) if known != actual => differs(format!("expected {known} (${name}), is {actual}")),
            Some(_) => {}
            None => met.bind(name, actual.clone()),
        },
        (Form::Exactly(expected), actual) => {
            if expected != actual {
                differs(format!("expected {expected}, is {actual}"));
            }
        }
        (Form::List { items, open }, Value::Array(list)) => {
            if list.len() < items.len() || (list.len() > items.len() && !open) {
                let more = if *open { " or more" } else { "" };
                differs(format!("expected {}{more}, are {}: {actual}", items.len(), list.len()));
            }
            for (n, (item, actual)) in items.iter().zip(list).enumerate() {
                compare(item, actual, &format!("{at}[{n}]"), met, differences);
            }
        }
        (Form::Object { fields, open }, Value::Object(object)) => {
            if let Some((key, value)) = object.iter().find(|(key, _)| !open && !fields.contains_key(*key)) {
                differs(format!("not expected: {key:?}: {value}"));
            }
            if let Some(key) = fields.keys().find(|key| !object.contains_key(*key)) {
                differs(format!("{key:?} is missing in {actual}"));
            }
            for (key, field) in fields {
                if let Some(actual) = object.get(key) {
                    let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    compare(field, actual, &at, met, differences);
                }
            }
        }
        (Form::List { .. }, actual) => differs(format!("expected a list, is {actual}")),
        (Form::Object { .. }, actual) => differs(format!("expected an object, is {actual}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(expected: &str, actual: Value) -> Result<(), String> {
        Expected::parse(expected).unwrap().matches(&actual, &mut Bindings::default())
    }

    #[test]
    fn wildcards_stand_for_values_and_dots_for_the_rest() {
        for (expected, actual) in [
            ("_", json!({ "a": 1 })),
            (r#"{"a": _, "b": "_"}"#, json!({ "a": [1], "b": "_" })),
            (r#"{"a": 1, ...}"#, json!({ "a": 1, "b": 2 })),
            ("{...}", json!({ "x": 1 })),
            (r#"{"l": [1, ...]}"#, json!({ "l": [1, 2, 3] })),
            ("[...]", json!([])),
            (r#"{"s": "a ... _ $x \" {"}"#, json!({ "s": "a ... _ $x \" {" })),
            (r#"{"ok": {}}"#, json!({ "id": 1, "zxid": 5, "ok": {} })),
            (r#"{"zxid": 5, "ok": {}}"#, json!({ "id": 1, "zxid": 5, "ok": {} })),
            (r#"{"a": $n, "b": $n}"#, json!({ "a": 7, "b": 7 })),
        ] {
            assert_eq!(matches(expected, actual), Ok(()), "{expected}");
        }
    }

    #[test]
    fn a_difference_says_where_and_what() {
        for (expected, actual, says) in [
            (
                r#"{"ok": {"stat": {"version": 1}}}"#,
                json!({ "ok": { "stat": { "version": 2 } } }),
                "ok.stat.version: expected 1, is 2",
            ),
            (r#"{"a": 1}"#, json!({ "a": 1, "b": 2 }), "the line: not expected: \"b\": 2"),
            (r#"{"a": 1, "b": 2}"#, json!({ "a": 1 }), "the line: \"b\" is missing in {\"a\":1}"),
            ("[1]", json!([1, 2]), "the line: expected 1, are 2: [1,2]"),
            ("[1, 2, ...]", json!([1]), "the line: expected 2 or more, are 1: [1]"),
            (r#"{"l": [_, 2]}"#, json!({ "l": [1, 3] }), "l[1]: expected 2, is 3"),
            (r#"{"a": $n, "b": $n}"#, json!({ "a": 7, "b": 8 }), "b: expected 7 ($n), is 8"),
            (r#"{"zxid": 5, "ok": {}}"#, json!({ "zxid": 6, "ok": {} }), "zxid: expected 5, is 6"),
            ("{}", json!([]), "the line: expected an object, is []"),
            ("[]", json!(null), "the line: expected a list, is null"),
        ] {
            assert_eq!(matches(expected, actual).unwrap_err(), says);
        }
        assert!(Expected::parse("{").is_err());
    }

    #[test]
    fn what_was_met_fills_later_lines_and_a_failed_match_binds_nothing() {
        let mut bindings = Bindings::default();
        let expected = Expected::parse(r#"{"zxid": $z, "ok": {"path": $p}}"#).unwrap();
        let wrong = json!({ "zxid": 9, "ok": { "path": "/a", "more": 1 } });
        assert!(expected.matches(&wrong, &mut bindings).is_err());
        assert_eq!(bindings, Bindings::default());
        expected.matches(&json!({ "zxid": 17, "ok": { "path": "/a-1" } }), &mut bindings).unwrap();
        assert_eq!(
            bindings.fill(r#"{"set": "$p", "fence": "$p@$z", "data": "5$$"}"#).unwrap(),
            r#"{"set": "/a-1", "fence": "/a-1@17", "data": "5$"}"#
        );
        assert!(bindings.fill("$q").unwrap_err().contains("$q has no value"));
        assert!(bindings.fill("$ x").unwrap_err().contains("$$"));
    }
}
