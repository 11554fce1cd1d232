//! How values are made into data and back.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Values nested deeper than this are not decoded: data may be anybody's.
const NESTING: usize = 128;

/// The form of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Cbor,
    Json,
}

impl Format {
    pub(super) fn encode<T: Serialize>(self, value: &T) -> Result<Bytes> {
        let mut data = Vec::new();
        let why = match self {
            Self::Cbor => ciborium::into_writer(value, &mut data).map_err(|error| error.to_string()),
            Self::Json => serde_json::to_writer(&mut data, value).map_err(|error| error.to_string()),
        };
        why.map(|()| data.into()).map_err(|why| Error::Unencodable { why })
    }

    /// The value that all of the data is, or why it is none.
    pub(super) fn decode<T: DeserializeOwned>(self, data: &[u8]) -> Result<T, String> {
        if data.is_empty() {
            return Err("there is no data".to_owned());
        }
        match self {
            Self::Cbor => {
                let mut rest = data;
                let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, NESTING)
                    .map_err(|error| format!("no CBOR of such a value: {error}"))?;
                if rest.is_empty() { Ok(value) } else { Err(format!("{} bytes follow the value", rest.len())) }
            }
            Self::Json => serde_json::from_slice(data).map_err(|error| format!("no JSON of such a value: {error}")),
        }
    }
}
