//! JSON as CBOR: what an argument of the type `json` is when it is given as text.

use std::fmt;

use conclave_protocol::limits;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use crate::cbor;

/// Appends a JSON text as one item. Nothing is built in between: a text of many small values takes no more than its bytes do.
///
/// # Errors
/// What is wrong with the text; something may have been appended then.
pub(crate) fn to_cbor(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Item { out, depth: limits::NESTING }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())
}

struct Item<'o> {
    out: &'o mut Vec<u8>,
    /// How many levels more there may be.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Item<'_> {
    fn below<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| E::custom("it is nested too deep"))
    }

    /// Puts the head of `major` with this count in front of what was appended since.
    fn close(&mut self, from: usize, major: u8, count: u64) {
        let mut head = Vec::with_capacity(9);
        cbor::put_head(&mut head, major, count);
        self.out.splice(from..from, head);
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        cbor::put_null(self.out);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        cbor::put_bool(self.out, value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        cbor::put_integer(self.out, value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        cbor::put_head(self.out, 0, value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        cbor::put_float(self.out, value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        cbor::put_text(self.out, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let (from, depth) = (self.out.len(), self.below()?);
        let mut count = 0;
        while items.next_element_seed(Item { out: self.out, depth })?.is_some() {
            count += 1;
        }
        self.close(from, 4, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let (from, depth) = (self.out.len(), self.below()?);
        let mut count = 0;
        while let Some(key) = items.next_key::<String>()? {
            cbor::put_text(self.out, &key);
            items.next_value_seed(Item { out: self.out, depth })?;
            count += 1;
        }
        if count > u64::from(u32::MAX) {
            return Err(A::Error::custom("it has too many names"));
        }
        self.close(from, 5, count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cbor_of(text: &str) -> Result<Vec<u8>, String> {
        let mut out = b"before".to_vec();
        to_cbor(text, &mut out).map(|()| out.split_off(6))
    }

    #[test]
    fn json_becomes_one_item_of_definite_length() {
        for (text, cbor) in [
            ("null", &b"\xf6"[..]),
            ("[]", b"\x80"),
            ("[1, -1, true, \"x\"]", b"\x84\x01\x20\xf5\x61x"),
            ("{\"a\": [[2]], \"b\": {}}", b"\xa2\x61a\x81\x81\x02\x61b\xa0"),
            ("0.5", b"\xfb\x3f\xe0\0\0\0\0\0\0"),
        ] {
            assert_eq!(cbor_of(text).unwrap(), cbor, "{text}");
        }
        let long = format!("[{}0]", "0,".repeat(299));
        assert!(cbor_of(&long).unwrap().starts_with(&[0x99, 1, 44, 0]));
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        for text in ["", "x", "[1", "1 2", "{1: 2}", "1e999"] {
            assert!(cbor_of(text).is_err(), "{text}");
        }
        assert!(cbor_of(&"[".repeat(100_000)).is_err());
        assert!(cbor_of(&format!("{}{}", "[".repeat(25), "]".repeat(25))).unwrap_err().contains("too deep"));
        assert!(cbor_of(&format!("{}{}", "[".repeat(24), "]".repeat(24))).is_ok());
    }
}
