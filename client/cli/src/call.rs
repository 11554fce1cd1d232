//! `call`: a plugin's procedure with text arguments.

use conclave_client::Client;
use conclave_protocol::codec;
use serde::Serialize;

use crate::args;
use crate::data::Json;
use crate::failure::{DONE, Failure, While};
use crate::out::{self, Out};

/// `call --json`.
#[derive(Serialize)]
struct Called<'a> {
    plugin: &'a str,
    procedure: &'a str,
    /// What it returned: a string when it is UTF-8, else `{"base64": ...}`.
    result: Json,
}

pub(crate) async fn run(client: &Client, args: args::Call, out: Out) -> Result<u8, Failure> {
    let mut call = client.call(&args.plugin, &args.procedure, arguments(&args.args));
    if let Some(fence) = args.fence {
        call = call.fenced(fence);
    }
    let result = call.await.writing()?;
    if out.json {
        out.json(&Called { plugin: &args.plugin, procedure: &args.procedure, result: Json::of(&result) })?;
    } else if out::is_terminal() || result.is_ascii() {
        // A number or a word in a script's variable or file: a line, as from any other command.
        out.text(&String::from_utf8_lossy(&result))?;
    } else {
        out.bytes(&result)?;
    }
    Ok(DONE)
}

/// Arguments as `wit/procedures.wit` wants them: one CBOR array of text strings.
pub(crate) fn arguments<T: AsRef<str>>(args: &[T]) -> Vec<u8> {
    let texts: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    codec::encode(&texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_an_array_of_texts() {
        assert_eq!(arguments::<&str>(&[]), [0x80]);
        assert_eq!(arguments(&["/hits", "5"]), *b"\x82\x65/hits\x615");
    }

    #[test]
    fn programs_get_the_result_by_its_name() {
        let called = Called { plugin: "counter", procedure: "increment", result: Json::of(b"5") };
        let value = serde_json::to_value(called).unwrap();
        assert_eq!(value, json!({ "plugin": "counter", "procedure": "increment", "result": "5" }));
    }
}
