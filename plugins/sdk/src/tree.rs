//! The tree as the transaction at hand sees it: in a component the host's, in tests one in memory.

use serde::de::DeserializeOwned;

use crate::{Path, Result};

#[cfg(target_arch = "wasm32")]
use crate::component as backend;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing as backend;

/// Children that are read at a time, at most.
const PAGE: u32 = 1_000;

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
    /// When its list of children last changed.
    pub children_modified_ms: u64,
    /// The session that it belongs to, when it is ephemeral.
    pub owner: Option<u64>,
    /// Bytes of its data.
    pub data_bytes: u64,
    /// How many children it has.
    pub children: u64,
    /// How often its access list was set.
    pub acl_version: u64,
    /// It goes some time after its last child went.
    pub container: bool,
    /// It goes when it has not changed for so long, milliseconds.
    pub ttl_ms: Option<u64>,
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

    /// Its data as JSON.
    ///
    /// # Errors
    /// When it is none, or another.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.data).map_err(Into::into)
    }
}

/// One of a znode's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its path.
    pub path: Path,
    /// Its stat.
    pub stat: Stat,
    /// Its data; empty unless it was asked for.
    pub data: Vec<u8>,
}

impl Child {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.name()
    }

    /// Its data as JSON.
    ///
    /// # Errors
    /// When it is none, or another.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.data).map_err(Into::into)
    }
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
    /// Its name is completed with its parent's next number: at least ten digits.
    pub sequential: bool,
    /// It goes some time after its last child went.
    pub container: bool,
    /// It goes when neither its data nor its list of children has changed for so long, and it has no children.
    pub ttl_ms: Option<u64>,
    /// Missing parents are created too, persistent and empty.
    pub parents: bool,
    /// If it is there already, and of that kind, its data is set. Not with `sequential`.
    pub or_set: bool,
}

impl Create {
    /// Persistent, with parents.
    #[must_use]
    pub fn with_parents() -> Self {
        Self { parents: true, ..Self::default() }
    }

    /// Of the caller's session, with parents.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self { ephemeral: true, ..Self::with_parents() }
    }

    /// With its parent's next number.
    #[must_use]
    pub fn numbered(self) -> Self {
        Self { sequential: true, ..self }
    }
}

/// What was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its path; a sequential znode's has its number.
    pub path: Path,
    /// Its stat.
    pub stat: Stat,
}

/// The tree. Every error below is the tree's refusal ([`Error::Refused`](crate::Error::Refused)), and of that one operation
/// alone: what was done before stands, unless the procedure fails.
pub struct Tree(pub(crate) backend::Tree);

impl Tree {
    /// Data and stat, or none when there is no such znode.
    ///
    /// # Errors
    /// `bad-path`, `not-allowed`.
    pub fn get(&self, path: impl AsRef<str>) -> Result<Option<Znode>> {
        self.0.get(path.as_ref())
    }

    /// The stat, or none when there is no such znode.
    ///
    /// # Errors
    /// As of [`Tree::get`].
    pub fn exists(&self, path: impl AsRef<str>) -> Result<Option<Stat>> {
        self.0.exists(path.as_ref())
    }

    /// Its children: see [`Children`].
    pub fn children(&self, path: impl Into<String>) -> Children<'_> {
        let (prefix, after) = (String::new(), None);
        Children { tree: self, path: path.into(), prefix, after, limit: None, with_data: false }
    }

    /// Creates a znode.
    ///
    /// # Errors
    /// `znode-exists`, `no-znode` of the parent, `no-session`, `limit`, and as of [`Tree::get`].
    pub fn create(&self, path: impl AsRef<str>, data: impl AsRef<[u8]>, how: Create) -> Result<Created> {
        self.0.create(path.as_ref(), data.as_ref(), how)
    }

    /// Replaces a znode's data.
    ///
    /// # Errors
    /// `no-znode`, `limit`, and as of [`Tree::get`].
    pub fn set(&self, path: impl AsRef<str>, data: impl AsRef<[u8]>) -> Result<Stat> {
        self.0.set(path.as_ref(), data.as_ref(), None)
    }

    /// Replaces a znode's data if it has this version.
    ///
    /// # Errors
    /// `bad-version`, and as of [`Tree::set`].
    pub fn set_if_version(&self, path: impl AsRef<str>, data: impl AsRef<[u8]>, version: u64) -> Result<Stat> {
        self.0.set(path.as_ref(), data.as_ref(), Some(version))
    }

    /// Deletes a znode without children.
    ///
    /// # Errors
    /// `no-znode`, `not-empty`, and as of [`Tree::get`].
    pub fn delete(&self, path: impl AsRef<str>) -> Result<()> {
        self.0.delete(path.as_ref(), None)
    }

    /// Deletes a znode without children if its data has this version.
    ///
    /// # Errors
    /// `bad-version`, and as of [`Tree::delete`].
    pub fn delete_if_version(&self, path: impl AsRef<str>, version: u64) -> Result<()> {
        self.0.delete(path.as_ref(), Some(version))
    }

    /// Deletes a znode with all that is below it; how many that were.
    ///
    /// # Errors
    /// `no-znode`, `limit`, and as of [`Tree::get`].
    pub fn delete_tree(&self, path: impl AsRef<str>) -> Result<u64> {
        self.0.delete_tree(path.as_ref())
    }
}

/// The children of a znode, in order of their names' bytes.
///
/// ```
/// # use conclave_plugin::{Child, Result, Tree};
/// fn oldest(tree: &Tree) -> Result<Option<Child>> {
///     tree.children("/queues/q/items").prefix("i-").with_data().first()
/// }
/// ```
#[must_use = "it asks for nothing until `first`, `page` or `all`"]
pub struct Children<'a> {
    tree: &'a Tree,
    path: String,
    prefix: String,
    after: Option<String>,
    limit: Option<u32>,
    with_data: bool,
}

impl Children<'_> {
    /// Those alone whose names begin so.
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Those alone whose names come after this one.
    pub fn after(mut self, name: &str) -> Self {
        self.after = Some(name.to_owned());
        self
    }

    /// So many at most.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// With their data.
    pub fn with_data(mut self) -> Self {
        self.with_data = true;
        self
    }

    /// The first; none when there is none, and also when the parent does not exist.
    ///
    /// # Errors
    /// As of [`Children::page`].
    pub fn first(self) -> Result<Option<Child>> {
        match self.limit(1).page() {
            Ok(page) => Ok(page.children.into_iter().next()),
            Err(error) if error.is("no-znode") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One page: as many as were asked for, or fewer if the host cuts it short.
    ///
    /// # Errors
    /// `no-znode` of the parent, and as of [`Tree::get`].
    pub fn page(self) -> Result<Page> {
        let Self { tree, path, prefix, after, limit, with_data } = self;
        let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
        tree.0.children(&path, &prefix, after.as_deref(), limit, with_data)
    }

    /// All of them, or as many as were asked for; none when the parent does not exist.
    ///
    /// # Errors
    /// As of [`Children::page`].
    pub fn all(self) -> Result<Vec<Child>> {
        let Self { tree, path, prefix, mut after, limit, with_data } = self;
        let mut all: Vec<Child> = Vec::new();
        loop {
            let left = limit.map_or(PAGE, |limit| limit.saturating_sub(u32::try_from(all.len()).unwrap_or(limit)));
            if left == 0 {
                return Ok(all);
            }
            let page = match tree.0.children(&path, &prefix, after.as_deref(), left.min(PAGE), with_data) {
                Err(error) if error.is("no-znode") => return Ok(all),
                page => page?,
            };
            after = page.children.last().map(|child| child.name().to_owned());
            all.extend(page.children);
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }
}
