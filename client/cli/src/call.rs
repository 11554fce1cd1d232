//! `call` and `ask`: a plugin's procedures and queries, their arguments, and what they return as people read it.

use std::io::IsTerminal;

use bytes::Bytes;
use conclave_client::{Client, Error, Outcome};
use conclave_protocol::codec;
use conclave_script::cbor;
use serde_json::{Map, Value, json};

use crate::args;
use crate::data::Json;
use crate::failure::{DONE, Failure, TIMED_OUT, While, span};
use crate::out::{self, Out};
use crate::read::fresh;
use crate::supervise::{Signals, signal_exit};

pub(crate) async fn run(client: &Client, args: args::Call, out: Out) -> Result<u8, Failure> {
    let args::Call { plugin, procedure, arguments, wait, fence, query } = args;
    if query {
        let ask = args::Ask { plugin, query: procedure, arguments, fresh: args::Freshness::default() };
        return Box::pin(self::ask(client, ask, out)).await;
    }
    let mut call = client.call(&plugin, &procedure).raw_args(encoded(&arguments)?);
    if let Some(fence) = fence {
        call = call.fenced(fence);
    }
    if let Some(time) = wait {
        call = call.within(time);
    }
    let mut signals = Signals::listen().map_err(crate::lock::failed)?;
    let result = tokio::select! {
        result = call => result,
        // The call's future is gone then: that cancels it.
        signal = signals.next() => {
            out.note(format_args!("{plugin} {procedure} is cancelled; whatever it had taken is given back"));
            return Ok(signal_exit(signal));
        }
    };
    let reply = result.map_err(|error| match (error, wait) {
        (Error::TimedOut { after }, Some(time)) if after == time => {
            let text = format!(
                "timed out: {plugin} {procedure} did not end within {}. It was cancelled: whatever it had taken is given \
                 back. Try again, or with a longer --wait.",
                span(after)
            );
            Failure::Exact { code: "timed-out", exit: TIMED_OUT, outcome: Outcome::NotApplied, text }
        }
        (error, _) => error.writing(),
    })?;
    show(out, json!({ "plugin": plugin, "procedure": procedure }), &reply)
}

pub(crate) async fn ask(client: &Client, args: args::Ask, out: Out) -> Result<u8, Failure> {
    let args::Ask { plugin, query, arguments, fresh } = args;
    let asked = client.ask(&plugin, &query).raw_args(encoded(&arguments)?);
    let reply = fresh!(asked, fresh).await.reading()?;
    show(out, json!({ "plugin": plugin, "query": query }), &reply)
}

fn show(out: Out, mut named: Value, reply: &Bytes) -> Result<u8, Failure> {
    if out.json {
        match cbor::json(reply) {
            Some(result) => named["result"] = result,
            None => named["result_base64"] = json!(Json::Bytes { base64: reply.to_vec() })["base64"].take(),
        }
        out.json(&named)?;
        return Ok(DONE);
    }
    match readable(reply) {
        Readable::Text(text) => out.text(&text)?,
        // Somebody looks at it: a line, as from any other command.
        Readable::Bytes(bytes) if out::is_terminal() => out.text(&String::from_utf8_lossy(&bytes))?,
        Readable::Bytes(bytes) => out.bytes(&bytes)?,
    }
    Ok(DONE)
}

/// How people read what was returned.
#[derive(Debug, PartialEq, Eq)]
enum Readable {
    Text(String),
    Bytes(Vec<u8>),
}

fn readable(reply: &[u8]) -> Readable {
    // Bytes stay bytes, which JSON does not tell from text.
    if let Ok(bytes) = codec::decode::<serde_bytes::ByteBuf>(reply)
        && reply.first().is_some_and(|first| first >> 5 == 2)
    {
        return Readable::Bytes(bytes.into_vec());
    }
    match cbor::json(reply) {
        Some(Value::Null) => Readable::Text(String::new()),
        Some(Value::String(text)) => Readable::Text(text),
        Some(structure @ (Value::Object(_) | Value::Array(_))) => {
            Readable::Text(serde_json::to_string_pretty(&structure).unwrap_or_else(|_| structure.to_string()))
        }
        Some(other) => Readable::Text(other.to_string()),
        None => Readable::Bytes(reply.to_vec()),
    }
}

/// Arguments as they travel: a map or an array in CBOR, or no bytes.
pub(crate) fn encoded(arguments: &args::Arguments) -> Result<Vec<u8>, Failure> {
    let args = match (&arguments.json_args, arguments.args.as_slice()) {
        (Some(text), _) => {
            let value: Value = serde_json::from_str(text)
                .map_err(|error| Failure::Usage(format!("--args is no JSON: {error}; it is {text:?}")))?;
            if !matches!(value, Value::Object(_) | Value::Array(_)) {
                let text = format!("--args is an object of names and values, or a list; it is {value}");
                return Err(Failure::Usage(text));
            }
            value
        }
        (None, []) => return Ok(Vec::new()),
        (None, args) => {
            let named: Vec<(&str, &str)> = args.iter().filter_map(|arg| named(arg)).collect();
            match named.len() {
                0 => json!(args),
                all if all == args.len() => {
                    let pair = |(name, value): (&str, &str)| (name.to_owned(), json!(value));
                    let map: Map<String, Value> = named.into_iter().map(pair).collect();
                    if map.len() < all {
                        return Err(Failure::Usage("an argument is named twice; name each once".to_owned()));
                    }
                    Value::Object(map)
                }
                _ => {
                    return Err(Failure::Usage(format!(
                        "arguments are given in their order, or as NAME=VALUE each, not both: {}; --args takes them as \
                         JSON",
                        args.join(" ")
                    )));
                }
            }
        }
    };
    Ok(codec::encode(&args))
}

/// The two sides of NAME=VALUE. What begins with no name, such as a path, is a value with a `=` in it.
fn named(arg: &str) -> Option<(&str, &str)> {
    let (name, value) = arg.split_once('=')?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (!name.is_empty() && !name.starts_with('-') && name.bytes().all(allowed)).then_some((name, value))
}

/// Whether somebody can be asked something.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(args: &[&str], json: Option<&str>) -> args::Arguments {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        args::Arguments { args, json_args: json.map(str::to_owned) }
    }

    #[test]
    fn arguments_are_an_array_a_map_or_what_the_json_is() {
        for (args, json, expected) in [
            (&[][..], None, &b""[..]),
            (&["/hits", "5"], None, b"\x82\x65/hits\x615"),
            (&["n=5", "queue=/a=b"], None, b"\xa2\x61n\x615\x65queue\x64/a=b"),
            (&["/a=b"], None, b"\x81\x64/a=b"),
            (&["=b", "-5"], None, b"\x82\x62=b\x62-5"),
            (&[], Some(r#"{"n": 5}"#), b"\xa1\x61n\x05"),
            (&[], Some("[1, true]"), b"\x82\x01\xf5"),
        ] {
            assert_eq!(encoded(&arguments(args, json)).unwrap(), expected, "{args:?} {json:?}");
        }
    }

    #[test]
    fn arguments_that_make_no_sense_say_what_to_write() {
        for (args, json, why) in [
            (&["/q", "n=5"][..], None, "not both"),
            (&["n=5", "n=6"], None, "named twice"),
            (&[], Some("{"), "no JSON"),
            (&[], Some("5"), "an object of names and values, or a list; it is 5"),
        ] {
            let failure = encoded(&arguments(args, json)).unwrap_err();
            assert!(failure.message().contains(why), "{}", failure.message());
            assert_eq!(failure.exit(), 2);
        }
    }

    #[test]
    fn what_is_returned_is_readable() {
        for (reply, expected) in [
            (&b"\x05"[..], "5"),
            (b"\x64text", "text"),
            (b"\xf6", ""),
            (b"\xf5", "true"),
            (b"\xa1\x61n\x05", "{\n  \"n\": 5\n}"),
        ] {
            assert_eq!(readable(reply), Readable::Text(expected.to_owned()), "{reply:?}");
        }
        assert_eq!(readable(b"\x42\x00\xff"), Readable::Bytes(b"\x00\xff".to_vec()));
        assert_eq!(readable(b"\x42v1"), Readable::Bytes(b"v1".to_vec()));
        assert_eq!(readable(b"\x05\x05"), Readable::Bytes(b"\x05\x05".to_vec()), "no CBOR");
    }
}
