//! The tree as the transaction at hand sees it: in a component the host's, in tests one in memory.

use crate::{Error, Result};

#[cfg(target_arch = "wasm32")]
use crate::component as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing as backend;

/// What is known of a znode besides its data. Times are cluster time in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Zxid of its creation.
    pub created: u64,
    /// Zxid of the last change of its data.
    pub modified: u64,
    /// Zxid of the last change of its list of children.
    pub children_modified: u64,
    /// How often its data changed.
    pub version: u64,
    /// How often its list of children changed.
    pub children_version: u64,
    /// When it was created.
    pub created_ms: u64,
    /// When its data last changed.
    pub modified_ms: u64,
    /// The session that it belongs to, when it is ephemeral.
    pub owner: Option<u64>,
    /// Bytes of its data.
    pub data_bytes: u64,
    /// How many children it has.
    pub children: u64,
}

/// Data and stat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Znode {
    /// Its data.
    pub data: Vec<u8>,
    /// Its stat.
    pub stat: Stat,
}

impl Znode {
    /// Its data as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.data).map_err(|_| "the data is not text".into())
    }
}

/// One child in a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// Its stat.
    pub stat: Stat,
    /// Its data, when it was asked for.
    pub data: Option<Vec<u8>>,
}

/// A page of children, in order of their names' bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The children.
    pub children: Vec<Child>,
    /// There are more after the last of these.
    pub more: bool,
}

/// How a znode is created; the default is persistent, under a parent that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// It goes with the caller's session.
    pub ephemeral: bool,
    /// Its name is completed with its parent's next number.
    pub sequential: bool,
    /// Missing parents are created too, persistent and empty.
    pub parents: bool,
}

/// What was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its path; a sequential znode's has its number.
    pub path: String,
    /// Its stat.
    pub stat: Stat,
}

/// The tree. Every error below is the tree's refusal ([`Error::Refused`]), and of that one operation alone.
pub struct Tree(pub(crate) backend::Tree);

impl Tree {
    /// Data and stat, or none when there is no such znode.
    ///
    /// # Errors
    /// `bad-path`, `not-allowed`.
    pub fn get(&self, path: &str) -> Result<Option<Znode>> {
        self.0.get(path)
    }

    /// The stat, or none when there is no such znode.
    ///
    /// # Errors
    /// As of [`Tree::get`].
    pub fn exists(&self, path: &str) -> Result<Option<Stat>> {
        self.0.exists(path)
    }

    /// At most `limit` children whose names come after `after` (none: from the first).
    ///
    /// # Errors
    /// `no-znode`, and as of [`Tree::get`].
    pub fn children(&self, path: &str, after: Option<&str>, limit: u32) -> Result<Page> {
        self.0.children(path, after, limit, false)
    }

    /// As [`Tree::children`], with their data.
    ///
    /// # Errors
    /// As of [`Tree::children`].
    pub fn children_with_data(&self, path: &str, after: Option<&str>, limit: u32) -> Result<Page> {
        self.0.children(path, after, limit, true)
    }

    /// Creates a znode.
    ///
    /// # Errors
    /// `znode-exists`, `no-znode` of the parent, `no-session`, `limit`, and as of [`Tree::get`].
    pub fn create(&self, path: &str, data: &[u8], how: Create) -> Result<Created> {
        self.0.create(path, data, how)
    }

    /// Replaces a znode's data.
    ///
    /// # Errors
    /// `no-znode`, `limit`, and as of [`Tree::get`].
    pub fn set(&self, path: &str, data: &[u8]) -> Result<Stat> {
        self.0.set(path, data, None)
    }

    /// Replaces a znode's data if it has this version.
    ///
    /// # Errors
    /// `bad-version`, and as of [`Tree::set`].
    pub fn set_if_version(&self, path: &str, data: &[u8], version: u64) -> Result<Stat> {
        self.0.set(path, data, Some(version))
    }

    /// Deletes a znode without children.
    ///
    /// # Errors
    /// `no-znode`, `not-empty`, and as of [`Tree::get`].
    pub fn delete(&self, path: &str) -> Result<()> {
        self.0.delete(path, None)
    }

    /// Deletes a znode without children if its data has this version.
    ///
    /// # Errors
    /// `bad-version`, and as of [`Tree::delete`].
    pub fn delete_if_version(&self, path: &str, version: u64) -> Result<()> {
        self.0.delete(path, Some(version))
    }
}

/// A refusal of the tree.
pub(crate) fn refused(code: impl Into<String>, message: impl Into<String>) -> Error {
    Error::Refused { code: code.into(), message: message.into() }
}
