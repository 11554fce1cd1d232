//! Data of znodes: where it comes from, how it looks in JSON.

use std::io::Read;

use conclave_client::limits;
use serde::{Deserialize, Serialize};

use crate::args;
use crate::failure::Failure;

/// The data that the command line names; none when it names none.
pub(crate) fn read(from: &args::Data) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(file) = &from.file {
        if file.as_os_str() == "-" {
            return stdin().map(Some);
        }
        let open = std::fs::File::open(file).map_err(|error| Failure::file(file, error))?;
        return bounded(open).map(Some).map_err(|error| Failure::file(file, error));
    }
    match (&from.text, &from.positional) {
        (Some(text), _) => Ok(Some(text.clone().into_bytes())),
        (None, Some(dash)) if dash == "-" => stdin().map(Some),
        (None, Some(text)) => Ok(Some(text.clone().into_bytes())),
        (None, None) => Ok(None),
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    bounded(std::io::stdin().lock()).map_err(|error| Failure::file("stdin".as_ref(), error))
}

/// All of it, or enough to be refused for its size: an endless stdin does not fill the memory. Files that are merely
/// too long are read whole, so that the refusal says how long.
fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    const ENOUGH: u64 = 64 * limits::DATA_BYTES as u64;
    let mut data = Vec::new();
    from.take(ENOUGH).read_to_end(&mut data)?;
    Ok(data)
}

/// Data in JSON: a string when it is UTF-8, else `{"base64": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "data is a string or {\"base64\": \"...\"}")]
pub(crate) enum Json {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes {
        /// RFC 4648, section 4, padded.
        #[serde(with = "base64")]
        base64: Vec<u8>,
    },
}

impl Json {
    /// How these bytes look.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { base64: bytes.to_vec() },
        }
    }

    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes { base64 } => base64,
        }
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// Bytes as base64, for serde.
mod base64 {
    use conclave_script::base64;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64::decode(&text).ok_or_else(|| de::Error::custom("it is not base64 (standard alphabet, padded)"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_text_and_bytes_are_base64() {
        for (bytes, looks) in [
            (&b"v1"[..], json!("v1")),
            (b"", json!("")),
            ("\u{0}ü\n".as_bytes(), json!("\u{0}ü\n")),
            (b"\xff\x00", json!({ "base64": "/wA=" })),
        ] {
            let value = serde_json::to_value(Json::of(bytes)).unwrap();
            assert_eq!(value, looks);
            assert_eq!(serde_json::from_value::<Json>(value).unwrap().into_bytes(), bytes);
        }
    }

    #[test]
    fn a_dash_is_stdin_only_where_it_stands_alone() {
        let from = |positional: Option<&str>, text: Option<&str>| args::Data {
            positional: positional.map(Into::into),
            text: text.map(Into::into),
            file: None,
        };
        assert_eq!(read(&from(None, Some("-"))).unwrap().unwrap(), b"-");
        assert_eq!(read(&from(Some("-x"), None)).unwrap().unwrap(), b"-x");
        assert_eq!(read(&from(None, None)).unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_refusal() {
        let from = args::Data { file: Some("/nonexistent/file".into()), ..args::Data::default() };
        let failure = read(&from).unwrap_err();
        assert_eq!((failure.code(), failure.exit()), ("file", 1));
        assert!(failure.message().contains("/nonexistent/file"));
    }
}
