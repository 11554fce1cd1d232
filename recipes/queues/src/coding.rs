//! How items become bytes and bytes items: CBOR, JSON, or as they are.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Items nested deeper than this are not decoded: they may be anybody's.
const NESTING: usize = 128;

/// Both ways of one form. Two functions, so that only whoever makes a queue has to say what its items can do.
pub(crate) struct Coding<T> {
    name: &'static str,
    pub(crate) encode: fn(&T) -> Result<Bytes, String>,
    pub(crate) decode: fn(Bytes) -> Result<T, String>,
}

impl<T> Clone for Coding<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Coding<T> {}

impl<T> fmt::Debug for Coding<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<T: Serialize + DeserializeOwned> Coding<T> {
    pub(crate) const CBOR: Self = Self { name: "Cbor", encode: to_cbor, decode: from_cbor };
    pub(crate) const JSON: Self = Self { name: "Json", encode: to_json, decode: from_json };
}

impl Coding<Bytes> {
    pub(crate) const RAW: Self = Self { name: "Raw", encode: |item| Ok(item.clone()), decode: Ok };
}

fn to_cbor<T: Serialize>(item: &T) -> Result<Bytes, String> {
    let mut data = Vec::new();
    ciborium::into_writer(item, &mut data).map_err(|error| error.to_string())?;
    Ok(data.into())
}

fn from_cbor<T: DeserializeOwned>(data: Bytes) -> Result<T, String> {
    let mut rest = &data[..];
    let item = ciborium::de::from_reader_with_recursion_limit(&mut rest, NESTING)
        .map_err(|error| format!("no CBOR of such an item: {error}"))?;
    if rest.is_empty() { Ok(item) } else { Err(format!("{} bytes follow the item", rest.len())) }
}

fn to_json<T: Serialize>(item: &T) -> Result<Bytes, String> {
    serde_json::to_vec(item).map(Bytes::from).map_err(|error| error.to_string())
}

fn from_json<T: DeserializeOwned>(data: Bytes) -> Result<T, String> {
    serde_json::from_slice(&data).map_err(|error| format!("no JSON of such an item: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_went_and_nothing_else_is_one() {
        for coding in [Coding::<(u32, String)>::CBOR, Coding::JSON] {
            let item = (7, "x".to_owned());
            let data = (coding.encode)(&item).unwrap();
            assert_eq!((coding.decode)(data.clone()), Ok(item), "{coding:?}");
            let more = [&data[..], b"1"].concat();
            assert!((coding.decode)(more.into()).is_err(), "{coding:?}");
            assert!((coding.decode)(Bytes::new()).is_err(), "{coding:?}");
        }
        let raw = Bytes::from_static(b"\x00\xff");
        assert_eq!((Coding::RAW.decode)((Coding::RAW.encode)(&raw).unwrap()), Ok(raw));
        // As deep as an attacker likes is an error and no end of the stack.
        let deep = Bytes::from(vec![0x81; 1_000_000]);
        assert!((Coding::<ciborium::Value>::CBOR.decode)(deep).is_err());
    }
}
