//! CBOR (RFC 8949), as far as arguments need it: read in place, without allocating for what a stranger says it is long.

use conclave_protocol::limits;

/// The beginning of an item; of a text, bytes, a number or a simple value the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Head<'a> {
    Unsigned(u64),
    /// Minus one, minus this.
    Negative(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
    /// Of so many items; none: until a break.
    Array(Option<u64>),
    /// Of so many pairs; none: until a break.
    Map(Option<u64>),
    /// One item follows.
    Tag(u64),
    Bool(bool),
    Null,
    /// `undefined`, or one without a meaning.
    Simple(u8),
    Float(f64),
    Break,
}

/// Reads items one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// What is wrong with the bytes.
pub(crate) type Malformed = &'static str;

const SHORT: Malformed = "they end in the middle of an item";
const DEEP: Malformed = "they are nested too deep";

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Goes behind the next head.
    pub(crate) fn head(&mut self) -> Result<Head<'a>, Malformed> {
        let (first, info) = self.take(1).map(|byte| (byte[0] >> 5, byte[0] & 0x1f))?;
        if first == 7 {
            return self.simple(info);
        }
        let Some(value) = self.value(info)? else {
            return match first {
                4 => Ok(Head::Array(None)),
                5 => Ok(Head::Map(None)),
                2 | 3 => Err("a text or bytes in pieces are not allowed: send it in one"),
                _ => Err("a number has no end"),
            };
        };
        match first {
            0 => Ok(Head::Unsigned(value)),
            1 => Ok(Head::Negative(value)),
            2 => Ok(Head::Bytes(self.take_long(value)?)),
            3 => std::str::from_utf8(self.take_long(value)?).map(Head::Text).map_err(|_| "a text is not UTF-8"),
            // Each item has a byte at least: a length that is a lie is seen before anybody counts up to it.
            4 if value > self.rest.len() as u64 => Err(SHORT),
            5 if value > self.rest.len() as u64 / 2 => Err(SHORT),
            4 => Ok(Head::Array(Some(value))),
            5 => Ok(Head::Map(Some(value))),
            _ => Ok(Head::Tag(value)),
        }
    }

    /// Goes behind the next item, which is checked through and through: its bytes.
    pub(crate) fn item(&mut self) -> Result<&'a [u8], Malformed> {
        let from = self.rest;
        let head = self.head()?;
        if head == Head::Break {
            return Err("a break ends nothing");
        }
        self.pass(head, limits::NESTING)?;
        Ok(&from[..from.len() - self.rest.len()])
    }

    /// Whether another item of an array or a map comes, of which so many were still to come; takes the break.
    pub(crate) fn more(&mut self, left: &mut Option<u64>) -> Result<bool, Malformed> {
        match left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => {
                let is_break = *self.rest.first().ok_or(SHORT)? == 0xff;
                if is_break {
                    self.rest = &self.rest[1..];
                }
                Ok(!is_break)
            }
        }
    }

    /// Goes behind what belongs to a head. Recursion ends with `depth`.
    fn pass(&mut self, head: Head<'a>, depth: usize) -> Result<(), Malformed> {
        let (mut left, each) = match head {
            Head::Array(count) => (count, 1),
            Head::Map(count) => (count, 2),
            Head::Tag(_) => (Some(1), 1),
            _ => return Ok(()),
        };
        let depth = depth.checked_sub(1).ok_or(DEEP)?;
        while self.more(&mut left)? {
            for _ in 0..each {
                let head = self.head()?;
                if head == Head::Break {
                    return Err("a break ends nothing");
                }
                self.pass(head, depth)?;
            }
        }
        Ok(())
    }

    fn simple(&mut self, info: u8) -> Result<Head<'a>, Malformed> {
        match info {
            20 | 21 => Ok(Head::Bool(info == 21)),
            22 => Ok(Head::Null),
            24 => match self.take(1)?[0] {
                value @ 32.. => Ok(Head::Simple(value)),
                _ => Err("a simple value is written in two bytes that has one"),
            },
            25 => Ok(Head::Float(half(self.fixed()?))),
            26 => Ok(Head::Float(f32::from_be_bytes(self.fixed()?).into())),
            27 => Ok(Head::Float(f64::from_be_bytes(self.fixed()?))),
            28..=30 => Err("an item has a form that is not defined"),
            31 => Ok(Head::Break),
            _ => Ok(Head::Simple(info)),
        }
    }

    /// A head's number; none when it says that there is none.
    fn value(&mut self, info: u8) -> Result<Option<u64>, Malformed> {
        Ok(Some(match info {
            0..=23 => info.into(),
            24 => self.take(1)?[0].into(),
            25 => u16::from_be_bytes(self.fixed()?).into(),
            26 => u32::from_be_bytes(self.fixed()?).into(),
            27 => u64::from_be_bytes(self.fixed()?),
            31 => return Ok(None),
            _ => return Err("an item has a form that is not defined"),
        }))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    fn take_long(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        self.take(usize::try_from(count).map_err(|_| SHORT)?)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// A 16-bit floating-point number (RFC 8949, appendix D).
fn half(bytes: [u8; 2]) -> f64 {
    let bits = u16::from_be_bytes(bytes);
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let value = match exponent {
        0 => fraction * (-24_f64).exp2(),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * f64::from(exponent - 25).exp2(),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

/// Writes a head: a major type and its number, as short as it can be.
pub(crate) fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    let bytes = value.to_be_bytes();
    match value {
        0..=23 => out.push(major | bytes[7]),
        24..=0xff => out.extend([major | 24, bytes[7]]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend(bytes);
        }
    }
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, 3, text.len() as u64);
    out.extend(text.bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, 2, bytes.len() as u64);
    out.extend(bytes);
}

pub(crate) fn put_integer(out: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(number) => put_head(out, 0, number),
        Err(_) => put_head(out, 1, !number.cast_unsigned()),
    }
}

pub(crate) fn put_float(out: &mut Vec<u8>, number: f64) {
    out.push(0xfb);
    out.extend(number.to_be_bytes());
}

pub(crate) fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(0xf4 | u8::from(value));
}

pub(crate) fn put_null(out: &mut Vec<u8>) {
    out.push(0xf6);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_those_of_the_rfcs_examples() {
        // RFC 8949, appendix A.
        for (bytes, head) in [
            (&b"\x18\x64"[..], Head::Unsigned(100)),
            (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", Head::Unsigned(u64::MAX)),
            (b"\x38\x63", Head::Negative(99)),
            (b"\xf9\x3e\x00", Head::Float(1.5)),
            (b"\xf9\xc4\x00", Head::Float(-4.0)),
            (b"\xf9\x00\x01", Head::Float(5.960_464_477_539_063e-8)),
            (b"\xf9\x7c\x00", Head::Float(f64::INFINITY)),
            (b"\xfa\x47\xc3\x50\x00", Head::Float(100_000.0)),
            (b"\xf5", Head::Bool(true)),
            (b"\xf6", Head::Null),
            (b"\xf7", Head::Simple(23)),
            (b"\x62\xc3\xbc", Head::Text("\u{fc}")),
            (b"\x44\x01\x02\x03\x04", Head::Bytes(&[1, 2, 3, 4])),
        ] {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.head(), Ok(head), "{bytes:x?}");
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn an_item_is_its_own_bytes_and_what_lies_is_found() {
        for item in
            [&b"\x80"[..], b"\x82\x01\x82\x02\x03", b"\xa1\x61a\x9f\x01\xff", b"\xc1\x1a\x51\x4b\x67\xb0", b"\xbf\xff"]
        {
            let bytes = [item, b"\x00"].concat();
            assert_eq!(Reader::new(&bytes).item(), Ok(item));
        }
        for bytes in [
            &b""[..],
            b"\x82\x01",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xff",
            b"\x81\xff",
            b"\xbf\x01\xff",
            b"\x9f\x01",
            b"\x7f\x61a\xff",
            b"\x1f",
            b"\x1c",
            b"\xf8\x10",
            b"\x61\xff",
        ] {
            assert!(Reader::new(bytes).item().is_err(), "{bytes:x?}");
        }
        assert!(Reader::new(&[0x81; 1 << 20]).item().is_err());
        assert!(Reader::new(&[0xc1; 1 << 20]).item().is_err());
        assert!(Reader::new(&[0x9f; 1 << 20]).item().is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for number in [0, 23, 24, 255, 256, 65_535, 65_536, i64::MAX, -1, -24, -25, i64::MIN] {
            let mut out = Vec::new();
            put_integer(&mut out, number);
            let read = match Reader::new(&out).head().unwrap() {
                Head::Unsigned(value) => i128::from(value),
                Head::Negative(value) => -1 - i128::from(value),
                other => panic!("{other:?}"),
            };
            assert_eq!(read, i128::from(number));
        }
    }
}
