//! Reads values from CBOR.

use std::borrow::Cow;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::{byte, major};
use crate::{Error, Result};

/// Nested items: more would be a use of the stack that nobody means.
const DEPTH: u32 = 64;

/// Reads items one after the other.
pub(super) struct Reader<'de> {
    rest: &'de [u8],
    depth: u32,
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { rest: bytes, depth: DEPTH }
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err("something follows its end".into()) }
    }

    fn take(&mut self, count: u64) -> Result<&'de [u8]> {
        let parts = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = parts.ok_or_else(malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn peek(&self) -> Result<u8> {
        self.rest.first().copied().ok_or_else(malformed)
    }

    /// The major type and the value of a head; none: it has no length.
    fn head(&mut self) -> Result<(u8, Option<u64>)> {
        let first = self.take(1)?[0];
        let value = match first & 31 {
            short @ 0..=23 => Some(u64::from(short)),
            24 => Some(self.number(1)?),
            25 => Some(self.number(2)?),
            26 => Some(self.number(4)?),
            27 => Some(self.number(8)?),
            byte::NO_LENGTH => None,
            _ => return Err(malformed()),
        };
        Ok((first >> 5, value))
    }

    fn number(&mut self, width: u64) -> Result<u64> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Tags say nothing to us.
    fn skip_tags(&mut self) -> Result<()> {
        while self.peek()? >> 5 == major::TAG {
            self.head()?;
        }
        Ok(())
    }

    /// Whether what has no length ends here.
    fn breaks(&mut self) -> Result<bool> {
        let breaks = self.peek()? == byte::BREAK;
        if breaks {
            self.take(1)?;
        }
        Ok(breaks)
    }

    /// The pieces of a text or bytes without a length.
    fn pieces(&mut self, major: u8) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while !self.breaks()? {
            match self.head()? {
                (piece, Some(length)) if piece == major => whole.extend_from_slice(self.take(length)?),
                _ => return Err(malformed()),
            }
        }
        Ok(whole)
    }

    /// The next item, or the beginning of one that has parts. Not part of what is made anew for each type: guests stay small.
    #[inline(never)]
    fn item(&mut self) -> Result<Item<'de>> {
        self.skip_tags()?;
        if self.peek()? >> 5 == 7 {
            return self.simple();
        }
        Ok(match self.head()? {
            (major::UNSIGNED, Some(value)) => Item::Unsigned(value),
            (major::NEGATIVE, Some(value)) => {
                Item::Negative(!i64::try_from(value).map_err(|_| "a number is below those of 64 bits")?)
            }
            (major::BYTES, Some(length)) => Item::Bytes(Cow::Borrowed(self.take(length)?)),
            (major::BYTES, None) => Item::Bytes(Cow::Owned(self.pieces(major::BYTES)?)),
            (major::TEXT, Some(length)) => {
                Item::Text(Cow::Borrowed(std::str::from_utf8(self.take(length)?).map_err(|_| malformed())?))
            }
            (major::TEXT, None) => {
                Item::Text(Cow::Owned(String::from_utf8(self.pieces(major::TEXT)?).map_err(|_| malformed())?))
            }
            (major::ARRAY, left) => Item::Array(left),
            (major::MAP, left) => Item::Map(left),
            _ => return Err(malformed()),
        })
    }

    fn simple(&mut self) -> Result<Item<'de>> {
        Ok(match self.take(1)?[0] {
            byte::FALSE => Item::Bool(false),
            byte::TRUE => Item::Bool(true),
            byte::NULL | byte::UNDEFINED => Item::Null,
            byte::HALF => Item::Float(half(self.number(2)?)),
            byte::SINGLE => {
                let bits = u32::try_from(self.number(4)?).map_err(|_| malformed())?;
                Item::Float(f64::from(f32::from_bits(bits)))
            }
            byte::DOUBLE => Item::Float(f64::from_bits(self.number(8)?)),
            _ => return Err(malformed()),
        })
    }

    /// Hands the parts of an array to the visitor.
    fn array<V: Visitor<'de>>(&mut self, left: Option<u64>, visitor: V) -> Result<V::Value> {
        let mut parts = self.parts(left)?;
        let value = visitor.visit_seq(&mut parts)?;
        parts.close().map(|()| value)
    }

    /// Hands the entries of a map to the visitor.
    fn map<V: Visitor<'de>>(&mut self, left: Option<u64>, visitor: V) -> Result<V::Value> {
        let mut parts = self.parts(left)?;
        let value = visitor.visit_map(&mut parts)?;
        parts.close().map(|()| value)
    }

    fn parts(&mut self, left: Option<u64>) -> Result<Parts<'_, 'de>> {
        self.depth = self.depth.checked_sub(1).ok_or("it is nested too deeply")?;
        Ok(Parts { reader: self, left })
    }
}

/// RFC 8949, appendix D.
fn half(bits: u64) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 0x1f, (bits & 0x3ff) as f64);
    let value = match exponent {
        0 => fraction * f64::from_bits(0x3e70_0000_0000_0000),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1_024.0) * f64::from_bits((exponent + 1_023 - 25) << 52),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

fn malformed() -> Error {
    "it is no CBOR item".into()
}

/// An item; of one that has parts, how many there are, or none if that is not said.
enum Item<'de> {
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Bool(bool),
    Null,
    Bytes(Cow<'de, [u8]>),
    Text(Cow<'de, str>),
    Array(Option<u64>),
    Map(Option<u64>),
}

impl Item<'_> {
    /// It is of another type than what is wanted.
    #[inline(never)]
    fn is_not(&self, expected: &dyn Expected) -> Error {
        let actual = match self {
            Self::Unsigned(value) => Unexpected::Unsigned(*value),
            Self::Negative(value) => Unexpected::Signed(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Null => Unexpected::Unit,
            Self::Bytes(bytes) => Unexpected::Bytes(bytes),
            Self::Text(text) => Unexpected::Str(text),
            Self::Array(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
        };
        de::Error::invalid_type(actual, expected)
    }
}

/// Each type has a way in with the items that it can be alone, as code is made for each; some share one.
macro_rules! same_as {
    ($($way:ident: $($name:ident),+;)*) => {$($(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.$way(visitor)
        }
    )+)*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Unsigned(value) => visitor.visit_u64(value),
            Item::Negative(value) => visitor.visit_i64(value),
            Item::Float(value) => visitor.visit_f64(value),
            Item::Bool(value) => visitor.visit_bool(value),
            Item::Null => visitor.visit_unit(),
            Item::Bytes(bytes) => visitor.visit_bytes(&bytes),
            Item::Text(text) => visitor.visit_str(&text),
            Item::Array(left) => self.array(left, visitor),
            Item::Map(left) => self.map(left, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Bool(value) => visitor.visit_bool(value),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Unsigned(value) => visitor.visit_u64(value),
            Item::Negative(value) => visitor.visit_i64(value),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Unsigned(value) => visitor.visit_u64(value),
            Item::Negative(value) => visitor.visit_i64(value),
            Item::Float(value) => visitor.visit_f64(value),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Text(text) => visitor.visit_str(&text),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Bytes(bytes) => visitor.visit_bytes(&bytes),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Null => visitor.visit_unit(),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Array(left) => self.array(left, visitor),
            other => Err(other.is_not(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.item()? {
            Item::Map(left) => self.map(left, visitor),
            other => Err(other.is_not(&visitor)),
        }
    }

    same_as! {
        deserialize_i64: deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i128, deserialize_u8, deserialize_u16,
            deserialize_u32, deserialize_u64, deserialize_u128;
        deserialize_f64: deserialize_f32;
        deserialize_str: deserialize_char, deserialize_string, deserialize_identifier;
        deserialize_bytes: deserialize_byte_buf;
        deserialize_any: deserialize_ignored_any;
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.skip_tags()?;
        if matches!(self.peek()?, byte::NULL | byte::UNDEFINED) {
            self.take(1)?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.skip_tags()?;
        if self.peek()? >> 5 != major::MAP {
            return visitor.visit_enum(Variant { reader: self, has_value: false });
        }
        let (_, left) = self.head()?;
        if left != Some(1) {
            return Err("a variant is a map of one entry".into());
        }
        let parts = self.parts(Some(0))?;
        let value = visitor.visit_enum(Variant { reader: &mut *parts.reader, has_value: true })?;
        parts.close().map(|()| value)
    }
}

/// What is left of an array or a map; none: until it breaks.
struct Parts<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: Option<u64>,
}

impl Parts<'_, '_> {
    /// Nothing may be left.
    fn close(mut self) -> Result<()> {
        self.reader.depth += 1;
        if self.next()? { Err("it has more parts than are wanted".into()) } else { Ok(()) }
    }

    fn next(&mut self) -> Result<bool> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => {
                let breaks = self.reader.breaks()?;
                if breaks {
                    self.left = Some(0);
                }
                Ok(!breaks)
            }
        }
    }
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.next()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = Error;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.next()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value> {
        seed.deserialize(&mut *self.reader)
    }
}

/// A variant: its name, and perhaps something in it.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
    has_value: bool,
}

impl<'r, 'de> EnumAccess<'de> for Variant<'r, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self)> {
        let name = match self.reader.head()? {
            (major::TEXT, Some(length)) => self.reader.take(length)?,
            _ => return Err("the name of a variant is a text".into()),
        };
        let name = std::str::from_utf8(name).map_err(|_| malformed())?;
        let deserializer: de::value::StrDeserializer<'_, Error> = name.into_deserializer();
        Ok((seed.deserialize(deserializer)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<()> {
        if self.has_value { Err("this variant has nothing in it".into()) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value> {
        if self.has_value { seed.deserialize(self.reader) } else { Err("this variant has something in it".into()) }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        if self.has_value {
            self.reader.deserialize_any(visitor)
        } else {
            Err("this variant has something in it".into())
        }
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.tuple_variant(0, visitor)
    }
}
