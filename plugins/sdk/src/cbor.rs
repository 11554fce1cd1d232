//! Arguments, replies and the state of parked calls as CBOR (RFC 8949), in little code: a guest is small without a general
//! library. What it writes any reader reads; it reads what the host writes, and what other writers of the same items would.

mod read;
mod write;

use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeOwned, Expected, Unexpected};

use crate::{Error, Result};

/// One item.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut write::Writer { to: &mut bytes })?;
    Ok(bytes)
}

/// What one item says; `what` is what it should have been.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    let mut reader = read::Reader::new(bytes);
    let value = T::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| [what, ": ", error.message()].concat().into())
}

/// What serde says of values that do not fit.
impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self::Said(why.to_string())
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self::Said(why.to_string())
    }

    // In words of our own: the usual ones can name any value, for which a guest would bring along how to write floats.
    fn invalid_type(actual: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Said(["it is ", kind(&actual), ", and should be ", &expected.to_string()].concat())
    }

    fn invalid_value(actual: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(actual, expected)
    }
}

fn kind<'a>(actual: &Unexpected<'a>) -> &'a str {
    match actual {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Char(_) | Unexpected::Str(_) => "a text",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        Unexpected::Map => "a map",
        Unexpected::Other(other) => other,
        _ => "something else",
    }
}

/// Major types, RFC 8949 section 3.1.
mod major {
    pub(super) const UNSIGNED: u8 = 0;
    pub(super) const NEGATIVE: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const MAP: u8 = 5;
    pub(super) const TAG: u8 = 6;
}

/// Whole first bytes, sections 3.2.1 and 3.3.
mod byte {
    pub(super) const FALSE: u8 = 0xf4;
    pub(super) const TRUE: u8 = 0xf5;
    pub(super) const NULL: u8 = 0xf6;
    pub(super) const UNDEFINED: u8 = 0xf7;
    pub(super) const HALF: u8 = 0xf9;
    pub(super) const SINGLE: u8 = 0xfa;
    pub(super) const DOUBLE: u8 = 0xfb;
    /// Ends what has no length.
    pub(super) const BREAK: u8 = 0xff;
    /// The low bits of the first byte of what has no length.
    pub(super) const NO_LENGTH: u8 = 31;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::{Bytes, Value, json};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle(u32),
        Line(i8, i64),
        Box { width: f64, height: Option<f32> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Many {
        text: String,
        bytes: Bytes,
        none: Option<u8>,
        some: Option<String>,
        numbers: Vec<i64>,
        large: (u64, i64, bool, char),
        shapes: Vec<Shape>,
        unit: (),
        map: BTreeMap<String, u16>,
        #[serde(flatten)]
        more: BTreeMap<String, Value>,
    }

    fn many() -> Many {
        Many {
            text: "ä".repeat(300),
            bytes: vec![0xff; 70_000].into(),
            none: None,
            some: Some(String::new()),
            numbers: vec![0, 23, 24, 255, 256, 65_535, 65_536, 1 << 32, -1, -24, -25, -256, -257, i64::MIN, i64::MAX],
            large: (u64::MAX, i64::MIN, true, 'ß'),
            shapes: vec![
                Shape::Point,
                Shape::Circle(7),
                Shape::Line(-1, 2),
                Shape::Box { width: 0.1, height: Some(1.5) },
            ],
            unit: (),
            map: BTreeMap::from([("a".to_owned(), 1)]),
            more: BTreeMap::from([("json".to_owned(), json!({"a": [1, -2.5, "x", null, true, {}]}))]),
        }
    }

    #[test]
    fn what_is_written_is_read_here_and_by_others() {
        let bytes = encode(&many()).unwrap();
        assert_eq!(decode::<Many>(&bytes, "it").unwrap(), many());
        assert_eq!(ciborium::from_reader::<Many, _>(&bytes[..]).unwrap(), many());
    }

    #[test]
    fn what_others_write_is_read() {
        let mut bytes = Vec::new();
        ciborium::into_writer(&many(), &mut bytes).unwrap();
        assert_eq!(decode::<Many>(&bytes, "it").unwrap(), many());
        for (bytes, expected) in [
            (&b"\xf9\x3e\x00"[..], json!(1.5)),
            (b"\xf9\x80\x01", json!(-5.960_464_477_539_063e-8)),
            (b"\xfa\x3f\xc0\x00\x00", json!(1.5)),
            (b"\x9f\x01\x9f\x02\xff\xff", json!([1, [2]])),
            (b"\xbf\x61a\x01\xff", json!({"a": 1})),
            (b"\x7f\x61a\x61b\xff", json!("ab")),
            (b"\xc1\x18\x2a", json!(42)),
            (b"\xf7", json!(null)),
        ] {
            assert_eq!(decode::<Value>(bytes, "it").unwrap(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn what_is_no_item_is_refused_and_nothing_is_set_aside_for_what_is_claimed() {
        let deep = vec![0x81; 100_000];
        for bytes in [
            &b""[..],
            b"\x61",
            b"\x61\xff",
            b"\x82\x01",
            b"\x01\x01",
            b"\x9f\x01",
            b"\xff",
            b"\x1c",
            b"\xf8\x20",
            b"\xa1\x01",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            &deep,
        ] {
            assert!(decode::<Value>(bytes, "it").is_err(), "{:x?}", &bytes[..bytes.len().min(9)]);
        }
        let error = decode::<Vec<u8>>(b"\x61a", "the arguments").unwrap_err();
        assert_eq!(error.to_string(), "the arguments: it is a text, and should be a sequence");
    }
}
