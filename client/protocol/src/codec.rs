//! Messages to CBOR and back: what arrives is a stranger's bytes, so depth is bounded and nothing may be left over.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not CBOR, not of the message's form, or nested too deep.
    #[error("not a message of this protocol: {0}")]
    Malformed(String),
    /// There are bytes after the message.
    #[error("{0} bytes follow the message in its frame")]
    Trailing(usize),
}

/// A message as CBOR.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    ciborium::into_writer(message, &mut bytes).expect("a Vec takes every byte, and our messages have no odd values");
    bytes
}

/// The message that these bytes are.
///
/// # Errors
/// When they are anything but exactly one message of type `T`, nested at most [`limits::NESTING`] deep. The caller has
/// checked the frame's length: decoding allocates in proportion to it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let message = ciborium::de::from_reader_with_recursion_limit(&mut rest, limits::NESTING)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(message) } else { Err(DecodeError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientMessage, Outcome, Refusal};

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&ClientMessage::Heartbeat { id: 7 });
        assert_eq!(decode::<ClientMessage>(&bytes).unwrap(), ClientMessage::Heartbeat { id: 7 });
        bytes.push(0);
        assert!(matches!(decode::<ClientMessage>(&bytes), Err(DecodeError::Trailing(1))));
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let mut bytes = vec![0x81; 200_000];
        bytes.push(0);
        assert!(matches!(decode::<ClientMessage>(&bytes), Err(DecodeError::Malformed(_))));
        let mut refusal = Refusal::BadRequest { why: String::new() };
        for step in 0..100 {
            refusal = Refusal::Step { step, cause: Box::new(refusal) };
        }
        assert!(decode::<Outcome>(&encode(&Outcome::Err(refusal))).is_err());
    }

    #[test]
    fn a_bad_path_in_a_message_is_refused() {
        let good = encode(&crate::Query::Get { path: crate::Path::parse("/abc").unwrap() });
        let at = good.windows(4).position(|w| w == b"/abc").unwrap();
        let mut bad = good;
        bad[at] = b'x';
        assert!(decode::<crate::Query>(&bad).is_err());
    }
}
