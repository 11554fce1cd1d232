//! A page of children, and its form on the wire: packed, as a page holds a thousand of them, and in CBOR each of their fifteen
//! fields would be an item to be looked at.

use bytes::Bytes;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Stat, limits};

/// Bytes of a packed child beside its name and data, about; most have fewer.
const AROUND: usize = 64;

/// One child in a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its stat, when asked for.
    pub stat: Option<Stat>,
    /// Its data, when asked for.
    pub data: Option<Bytes>,
}

/// A page of a listing of children.
///
/// On the wire its children are one byte string: postcard's form of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In order of their names' bytes.
    #[serde(serialize_with = "pack", deserialize_with = "unpack")]
    pub children: Vec<Entry>,
    /// There are more after the last of these.
    pub more: bool,
}

fn pack<S: Serializer>(children: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = |child: &Entry| AROUND + child.name.len() + child.data.as_ref().map_or(0, Bytes::len);
    let packed = Vec::with_capacity(children.iter().map(bytes).sum());
    serializer.serialize_bytes(&postcard::to_extend(children, packed).map_err(S::Error::custom)?)
}

fn unpack<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    let packed = Bytes::deserialize(deserializer)?;
    // An entry in memory is larger than the least bytes of one.
    match postcard::take_from_bytes::<u64>(&packed) {
        Ok((count, _)) if count > u64::from(limits::PAGE_CHILDREN) => {
            return Err(D::Error::custom(format!("{count} children are more than a page has")));
        }
        _ => {}
    }
    let (children, rest) = postcard::take_from_bytes(&packed).map_err(D::Error::custom)?;
    if rest.is_empty() {
        Ok(children)
    } else {
        Err(D::Error::custom(format!("{} bytes follow the children of a page", rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SessionId, Zxid, codec};

    fn page(packed: &[u8]) -> Result<Page, codec::DecodeError> {
        let mut bytes = b"\xa2\x68children".to_vec();
        bytes.extend([0x58, u8::try_from(packed.len()).unwrap()]);
        bytes.extend(packed);
        bytes.extend(b"\x64more\xf5");
        codec::decode(&bytes)
    }

    #[test]
    fn children_are_packed_as_wire_md_says() {
        let stat = Stat {
            created: Zxid(1),
            modified: Zxid(300),
            children_modified: Zxid(3),
            version: 4,
            children_version: 5,
            created_ms: 6,
            modified_ms: 7,
            children_modified_ms: 8,
            owner: Some(SessionId(128)),
            data_bytes: 2,
            children: 10,
            acl_version: 11,
            container: true,
            ttl_ms: None,
        };
        let whole = Entry { name: "ab".to_owned(), stat: Some(stat), data: Some(Bytes::from_static(b"xy")) };
        let bare = Entry { name: "c".to_owned(), stat: None, data: None };
        let packed = [
            &[2, 2, b'a', b'b', 1, 1, 0xac, 2, 3, 4, 5, 6, 7, 8, 1, 0x80, 1, 2, 10, 11, 1, 0, 1, 2, b'x', b'y'][..],
            &[1, b'c', 0, 0],
        ]
        .concat();
        let read = page(&packed).unwrap();
        assert_eq!(read, Page { children: vec![whole, bare], more: true });
        assert_eq!(codec::decode::<Page>(&codec::encode(&read)).unwrap(), read);
        assert!(codec::encode(&read).windows(packed.len()).any(|window| window == packed));
        for end in 0..packed.len() {
            assert!(page(&packed[..end]).is_err(), "it ends after {end} bytes");
        }
        let more = page(&[&packed[..], &[0]].concat()).unwrap_err().to_string();
        assert!(more.contains("1 bytes follow the children of a page"), "{more}");
        let many = page(&[0xe9, 7, 0, 0, 0]).unwrap_err().to_string();
        assert!(many.contains("1001 children are more than a page has"), "{many}");
        assert!(page(&[0xe8, 7, 0, 0, 0]).is_err(), "a thousand children in three bytes");
        assert!(page(&[1, 1, 0xff, 0, 0]).is_err(), "a name is UTF-8");
        assert!(page(&[1, 1, b'a', 2, 0]).is_err(), "a stat is there or not");
    }
}
