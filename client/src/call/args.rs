//! Arguments of a call, as they are said one by one or all at once, and their CBOR.

use bytes::Bytes;
use ciborium::Value;
use conclave_protocol::codec;
use serde::Serialize;

use crate::error::{Error, Result};

/// What was said of the arguments.
#[derive(Clone, Debug)]
pub(super) enum Args {
    None,
    Named(Vec<(Value, Value)>),
    Positional(Vec<Value>),
    Raw(Bytes),
    /// It makes no arguments, and why.
    Wrong(String),
}

impl Args {
    /// One more by its name; a name that comes again replaces what was said.
    pub(super) fn name(&mut self, name: &str, value: impl Serialize) {
        self.add(value, |args, value| {
            if matches!(args, Self::None) {
                *args = Self::Named(Vec::new());
            }
            let Self::Named(named) = args else { return false };
            named.retain(|(before, _)| before.as_text() != Some(name));
            named.push((name.into(), value));
            true
        });
    }

    /// One more by its place.
    pub(super) fn next(&mut self, value: impl Serialize) {
        self.add(value, |args, value| {
            if matches!(args, Self::None) {
                *args = Self::Positional(Vec::new());
            }
            let Self::Positional(list) = args else { return false };
            list.push(value);
            true
        });
    }

    /// All of them.
    pub(super) fn all(&mut self, args: &impl Serialize) {
        *self = match Value::serialized(args) {
            Ok(Value::Map(named)) => Self::Named(named),
            Ok(Value::Array(list)) => Self::Positional(list),
            Ok(Value::Null) => Self::None,
            Ok(_) => Self::Wrong("arguments are a struct or a map by name, or an array".to_owned()),
            Err(error) => Self::Wrong(error.to_string()),
        };
    }

    fn add(&mut self, value: impl Serialize, add: impl FnOnce(&mut Self, Value) -> bool) {
        if matches!(self, Self::Wrong(_)) {
            return;
        }
        match Value::serialized(&value) {
            Ok(value) => {
                if !add(self, value) {
                    *self = Self::Wrong("arguments are given by name or by place, not both".to_owned());
                }
            }
            Err(error) => *self = Self::Wrong(error.to_string()),
        }
    }

    /// As they travel.
    ///
    /// # Errors
    /// [`Error::Unencodable`] when they are none.
    pub(super) fn encode(self) -> Result<Bytes> {
        match self {
            Self::None => Ok(Bytes::new()),
            Self::Named(named) => Ok(codec::encode(&Value::Map(named)).into()),
            Self::Positional(list) => Ok(codec::encode(&Value::Array(list)).into()),
            Self::Raw(bytes) => Ok(bytes),
            Self::Wrong(why) => Err(Error::Unencodable { why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_by_name_are_a_map_those_by_place_an_array_and_none_are_no_bytes() {
        let mut named = Args::None;
        named.name("queue", "/q");
        named.name("n", 5);
        named.name("queue", "/r");
        assert_eq!(named.encode().unwrap(), &b"\xa2\x61n\x05\x65queue\x62/r"[..]);
        let mut places = Args::None;
        places.next("/q");
        places.next(true);
        assert_eq!(places.encode().unwrap(), &b"\x82\x62/q\xf5"[..]);
        assert_eq!(Args::None.encode().unwrap(), Bytes::new());
    }

    #[test]
    fn a_struct_is_a_map_and_more_can_be_said_after_it() {
        #[derive(Serialize)]
        struct Take {
            queue: &'static str,
        }
        let mut args = Args::None;
        args.all(&Take { queue: "/q" });
        args.name("n", 1);
        assert_eq!(args.encode().unwrap(), &b"\xa2\x65queue\x62/q\x61n\x01"[..]);
        let mut list = Args::None;
        list.all(&json!(["/q", 1]));
        assert_eq!(list.encode().unwrap(), &b"\x82\x62/q\x01"[..]);
    }

    #[test]
    fn names_and_places_do_not_mix_and_what_is_neither_is_said() {
        let mut both = Args::None;
        both.name("a", 1);
        both.next(2);
        both.name("b", 3);
        assert!(matches!(both.encode(), Err(Error::Unencodable { why }) if why.contains("not both")));
        let mut number = Args::None;
        number.all(&5);
        assert!(matches!(number.encode(), Err(Error::Unencodable { .. })));
    }
}
