//! Numbers that name things: transactions, sessions, members, watches; and fences, which name an award.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Path;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number! {
    /// The number of a committed transaction: dense, starts at 1, never reused. 0 is the empty tree.
    Zxid
}
number! {
    /// A session's number: the zxid of the transaction that opened it, so it is never reused.
    SessionId
}
number! {
    /// A member's number in its cluster; never reused, at least 1.
    MemberId
}
number! {
    /// A watch's number, chosen by the client, unique on its connection.
    WatchId
}

impl Zxid {
    /// The zxid of the transaction after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// 128 random bits that make a one-shot write recognisable when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub serde_bytes::ByteArray<16>);

impl Nonce {
    /// The nonce that consists of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(serde_bytes::ByteArray::new(bytes))
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// An award's name: the holder znode's path, and the zxid that created it.
///
/// A write that carries it is carried out only while that very znode exists, so an old holder's write is refused.
/// Written `/path@zxid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// Path of the holder znode.
    pub path: Path,
    /// The zxid that created it: also the token for systems outside the cluster; later awards have higher ones.
    pub zxid: Zxid,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.zxid)
    }
}

/// Why a text is no fence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFenceError {
    /// There is no `@zxid` at its end.
    #[error("a fence is written /path@zxid, and {0:?} is not")]
    Shape(String),
    /// What stands before the `@` is no path.
    #[error(transparent)]
    Path(#[from] crate::PathError),
}

impl FromStr for Fence {
    type Err = ParseFenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || ParseFenceError::Shape(text.to_owned());
        let (path, zxid) = text.rsplit_once('@').ok_or_else(shape)?;
        let zxid = zxid.parse().map_err(|_| shape())?;
        Ok(Self { path: Path::parse(path)?, zxid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_written_path_at_zxid() {
        let fence: Fence = "/locks/a@b/holder@17".parse().unwrap();
        assert_eq!(fence.path.as_str(), "/locks/a@b/holder");
        assert_eq!(fence.zxid, Zxid(17));
        assert_eq!(fence.to_string(), "/locks/a@b/holder@17");
        for bad in ["", "/a", "/a@", "/a@x", "a@1", "/a@-1"] {
            assert!(bad.parse::<Fence>().is_err(), "{bad:?} is no fence");
        }
    }
}
