//! What plugins return: one CBOR item, shown as JSON.

use ciborium::Value as Cbor;
use conclave_protocol::codec;
use serde_json::{Map, Number, Value, json};

use crate::base64;

/// The JSON that shows an item: bytes as text when they are UTF-8, else as `{"base64": ..}`; keys of maps as text. None when
/// the bytes are no CBOR.
#[must_use]
pub fn json(bytes: &[u8]) -> Option<Value> {
    codec::decode::<Cbor>(bytes).ok().map(show)
}

/// `result`, or `result_base64` when it is no CBOR.
pub(crate) fn result(bytes: &[u8]) -> Value {
    match json(bytes) {
        Some(value) => json!({ "result": value }),
        None => json!({ "result_base64": base64::encode(bytes) }),
    }
}

fn show(value: Cbor) -> Value {
    match value {
        Cbor::Integer(number) => number_of(i128::from(number)),
        Cbor::Float(number) => Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number),
        Cbor::Text(text) => text.into(),
        Cbor::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(error) => json!({ "base64": base64::encode(error.as_bytes()) }),
        },
        Cbor::Bool(truth) => truth.into(),
        Cbor::Array(items) => items.into_iter().map(show).collect(),
        Cbor::Map(pairs) => {
            let key = |key: Cbor| match show(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(pairs.into_iter().map(|(name, value)| (key(name), show(value))).collect::<Map<_, _>>())
        }
        Cbor::Tag(_, inside) => show(*inside),
        _ => Value::Null,
    }
}

/// A number as JSON has it; what is too large for 64 bits as text.
fn number_of(number: i128) -> Value {
    if let Ok(number) = u64::try_from(number) {
        return number.into();
    }
    i64::try_from(number).map_or_else(|_| number.to_string().into(), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_item_has_its_json() {
        for (bytes, expected) in [
            (&b"\x05"[..], json!(5)),
            (b"\x24", json!(-5)),
            (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", json!(u64::MAX)),
            (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", json!("-18446744073709551616")),
            (b"\xf9\x3e\x00", json!(1.5)),
            (b"\xf9\x7e\x00", json!("NaN")),
            (b"\xf5", json!(true)),
            (b"\xf6", json!(null)),
            (b"\x65/hits", json!("/hits")),
            (b"\x42v1", json!("v1")),
            (b"\x42\x00\xff", json!({ "base64": "AP8=" })),
            (b"\x82\x01\x61x", json!([1, "x"])),
            (b"\xa2\x61a\x01\x02\xf4", json!({ "a": 1, "2": false })),
            (b"\xc1\x05", json!(5)),
        ] {
            assert_eq!(json(bytes), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_item_is_shown_as_it_is() {
        assert_eq!(json(b""), None);
        assert_eq!(result(b"\x05\x05"), json!({ "result_base64": "BQU=" }));
    }
}
