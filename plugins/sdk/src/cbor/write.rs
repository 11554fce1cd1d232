//! Writes values as CBOR.

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::{byte, major};
use crate::{Error, Result};

/// Appends items to bytes.
pub(super) struct Writer<'a> {
    pub(super) to: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// The shortest head of an item.
    fn head(&mut self, major: u8, value: u64) {
        let wide = value.to_be_bytes();
        let (code, width) = match value {
            0..=23 => (wide[7], 0),
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        self.to.push(major << 5 | code);
        self.to.extend_from_slice(&wide[8 - width..]);
    }

    /// The head of what has a length, or none.
    fn open(&mut self, major: u8, length: Option<usize>) -> bool {
        match length {
            Some(length) => self.head(major, length as u64),
            None => self.to.push(major << 5 | byte::NO_LENGTH),
        }
        length.is_none()
    }

    fn text(&mut self, text: &str) {
        self.head(major::TEXT, text.len() as u64);
        self.to.extend_from_slice(text.as_bytes());
    }

    /// A variant with something in it: a map from its name.
    fn variant(&mut self, name: &str) {
        self.head(major::MAP, 1);
        self.text(name);
    }
}

/// What has parts; ended with a byte of its own if it has no length.
pub(super) struct Parts<'w, 'a> {
    writer: &'w mut Writer<'a>,
    no_length: bool,
}

impl Parts<'_, '_> {
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(&mut *self.writer)
    }

    fn named<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<()> {
        self.writer.text(name);
        self.part(value)
    }

    fn close(self) {
        if self.no_length {
            self.writer.to.push(byte::BREAK);
        }
    }
}

macro_rules! unsigned {
    ($($name:ident($type:ty)),*) => {$(
        fn $name(self, value: $type) -> Result<()> {
            self.head(major::UNSIGNED, u64::from(value));
            Ok(())
        }
    )*};
}

macro_rules! signed {
    ($($name:ident($type:ty)),*) => {$(
        fn $name(self, value: $type) -> Result<()> {
            self.serialize_i64(i64::from(value))
        }
    )*};
}

impl<'w, 'a> Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'w, 'a>;
    type SerializeTuple = Parts<'w, 'a>;
    type SerializeTupleStruct = Parts<'w, 'a>;
    type SerializeTupleVariant = Parts<'w, 'a>;
    type SerializeMap = Parts<'w, 'a>;
    type SerializeStruct = Parts<'w, 'a>;
    type SerializeStructVariant = Parts<'w, 'a>;

    unsigned!(serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64));
    signed!(serialize_i8(i8), serialize_i16(i16), serialize_i32(i32));

    fn serialize_i64(self, value: i64) -> Result<()> {
        // -1 - n is the complement of n.
        let (major, value) = if value < 0 { (major::NEGATIVE, !value) } else { (major::UNSIGNED, value) };
        self.head(major, value.cast_unsigned());
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.to.push(if value { byte::TRUE } else { byte::FALSE });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        self.to.push(byte::DOUBLE);
        self.to.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<()> {
        self.text(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<()> {
        self.text(value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        self.head(major::BYTES, value.len() as u64);
        self.to.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.to.push(byte::NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        self.variant(variant);
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Parts<'w, 'a>> {
        let no_length = self.open(major::ARRAY, length);
        Ok(Parts { writer: self, no_length })
    }

    fn serialize_tuple(self, length: usize) -> Result<Parts<'w, 'a>> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Parts<'w, 'a>> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Parts<'w, 'a>> {
        self.variant(variant);
        self.serialize_seq(Some(length))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Parts<'w, 'a>> {
        let no_length = self.open(major::MAP, length);
        Ok(Parts { writer: self, no_length })
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Parts<'w, 'a>> {
        self.serialize_map(Some(length))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Parts<'w, 'a>> {
        self.variant(variant);
        self.serialize_map(Some(length))
    }
}

macro_rules! parts {
    ($($trait:ident::$name:ident),*) => {$(
        impl ser::$trait for Parts<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.part(value)
            }

            fn end(self) -> Result<()> {
                self.close();
                Ok(())
            }
        }
    )*};
}

parts!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

impl ser::SerializeMap for Parts<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.part(value)
    }

    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStruct for Parts<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        self.named(name, value)
    }

    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStructVariant for Parts<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        self.named(name, value)
    }

    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}
