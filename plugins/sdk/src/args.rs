//! A procedure's arguments: a CBOR array of text strings, read here by hand so that guests stay small.

use crate::Error;

/// Positional arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args(Vec<String>);

impl Args {
    /// The arguments that these bytes are: one CBOR array of text strings, all of definite length. None for no bytes.
    ///
    /// # Errors
    /// When they are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut rest = bytes;
        let count = head(&mut rest, ARRAY)?;
        // No capacity is set aside: the count is the caller's claim.
        let mut args = Vec::new();
        for _ in 0..count {
            let length = usize::try_from(head(&mut rest, TEXT)?).map_err(|_| malformed())?;
            let (text, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
            args.push(std::str::from_utf8(text).map_err(|_| malformed())?.to_owned());
            rest = after;
        }
        if rest.is_empty() { Ok(Self(args)) } else { Err(malformed()) }
    }

    /// Their bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_head(&mut bytes, ARRAY, self.0.len());
        for arg in &self.0 {
            put_head(&mut bytes, TEXT, arg.len());
            bytes.extend_from_slice(arg.as_bytes());
        }
        bytes
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The argument at this place, from 0.
    ///
    /// # Errors
    /// When it is missing; `name` is what the caller is told.
    pub fn text(&self, at: usize, name: &str) -> Result<&str, Error> {
        self.optional(at).ok_or_else(|| Error::Said(["argument ", name, " is missing"].concat()))
    }

    /// The argument at this place, from 0, if it was given.
    #[must_use]
    pub fn optional(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(String::as_str)
    }

    /// Demands that there are no more than this many.
    ///
    /// # Errors
    /// When there are.
    pub fn at_most(&self, count: usize) -> Result<(), Error> {
        match self.0.get(count) {
            Some(extra) => Err(Error::Said(["argument ", extra, " is one too many"].concat())),
            None => Ok(()),
        }
    }
}

impl<T: Into<String>> FromIterator<T> for Args {
    fn from_iter<I: IntoIterator<Item = T>>(args: I) -> Self {
        Self(args.into_iter().map(Into::into).collect())
    }
}

/// Major types, RFC 8949 section 3.1.
const TEXT: u8 = 3;
const ARRAY: u8 = 4;

/// Reads the head of an item of this major type: its length.
fn head(rest: &mut &[u8], major: u8) -> Result<u64, Error> {
    let (first, after) = rest.split_first().ok_or_else(malformed)?;
    if first >> 5 != major {
        return Err(malformed());
    }
    let width = match first & 31 {
        short @ 0..=23 => {
            *rest = after;
            return Ok(u64::from(short));
        }
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return Err(malformed()),
    };
    let (length, after) = after.split_at_checked(width).ok_or_else(malformed)?;
    *rest = after;
    Ok(length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)))
}

/// Writes the shortest head of an item of this major type and length.
fn put_head(bytes: &mut Vec<u8>, major: u8, length: usize) {
    let length = length as u64;
    let wide = length.to_be_bytes();
    let (code, width) = match length {
        0..=23 => (wide[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    bytes.push(major << 5 | code);
    bytes.extend_from_slice(&wide[8 - width..]);
}

fn malformed() -> Error {
    "the arguments are no CBOR array of text strings".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_as_they_were() {
        for args in [vec![], vec![String::new()], vec!["/hits".to_owned(), "x".repeat(70_000)], vec!["ä".into(); 300]]
        {
            let args: Args = args.into_iter().collect();
            assert_eq!(Args::decode(&args.encode()).unwrap(), args);
        }
        assert_eq!(Args::from_iter(["/hits", "5"]).encode(), b"\x82\x65/hits\x615");
        assert_eq!(Args::decode(b"").unwrap().len(), 0);
    }

    #[test]
    fn anything_else_is_refused() {
        let bad: [&[u8]; 9] = [
            b"\x82\x61a",
            b"\x81\x62a",
            b"\x81\x61\xff",
            b"\x80\x00",
            b"\x9f\xff",
            b"\xa0",
            b"\x81\x01",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x81\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for bytes in bad {
            assert!(Args::decode(bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_missing_argument_and_one_too_many_are_named() {
        let args = Args::from_iter(["/hits"]);
        assert_eq!(args.text(0, "path").unwrap(), "/hits");
        assert_eq!(args.text(1, "amount").unwrap_err().to_string(), "argument amount is missing");
        assert_eq!(args.at_most(0).unwrap_err().to_string(), "argument /hits is one too many");
        assert!(args.at_most(1).is_ok());
    }
}
