//! Listing children, page by page.

use std::future::IntoFuture;

use conclave_protocol::{Answer, Detail, Entry, Page, Path, PathError, Query, Zxid, limits};
use futures::future::BoxFuture;
use futures::stream::{self, Stream};

use super::At;
use crate::builder::{Read, read_methods};
use crate::error::{Error, Result};

/// Children as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In order of their names' bytes.
    pub children: Vec<Entry>,
    /// The zxid of the state that the first page was read from: a watch `since` it misses nothing.
    pub zxid: Zxid,
    /// All of it is one state: it came in one page.
    pub whole: bool,
}

/// Lists children in order of their names, with their stats. Awaited it gives all of them, a [`Listing`];
/// [`Children::page`] one page, [`Children::stream`] one child after the other. Pages are read one by one: only what is
/// within one page is one state.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Children {
    path: Result<Path, PathError>,
    prefix: String,
    after: Option<String>,
    limit: u32,
    detail: Detail,
    read: Read,
}

impl Children {
    pub(super) fn new(at: &At) -> Self {
        Self {
            path: at.path(),
            prefix: String::new(),
            after: None,
            limit: limits::PAGE_CHILDREN,
            detail: Detail::default(),
            read: Read::new(at.client().clone()),
        }
    }

    read_methods!();

    /// Their names alone: without stats.
    pub fn names_only(mut self) -> Self {
        self.detail = Detail::Names;
        self
    }

    /// With their stats and their data.
    pub fn with_data(mut self) -> Self {
        self.detail = Detail::Data;
        self
    }

    /// Only names that begin with this.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only names after this one, whether it is there or not: the last name of a page that was read before.
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after = Some(name.into());
        self
    }

    /// At most this many in a page, 1 to [`limits::PAGE_CHILDREN`]; the number in all is not limited by it.
    pub fn page_size(mut self, children: u32) -> Self {
        self.limit = children.clamp(1, limits::PAGE_CHILDREN);
        self
    }

    /// One page, and the zxid of the state that it was read from.
    ///
    /// # Errors
    /// As every read; refused with `no-znode` when there is no such znode.
    pub async fn page(&self) -> Result<(Zxid, Page)> {
        let query = Query::Children {
            path: self.path.clone()?,
            prefix: self.prefix.clone(),
            after: self.after.clone(),
            limit: self.limit,
            detail: self.detail,
        };
        match self.read.send(query).await? {
            (zxid, Answer::Page(page)) => Ok((zxid, page)),
            _ => Err(Error::Mismatch { question: "children" }),
        }
    }

    /// The children one by one; pages are read as they are needed. Ends after the first error.
    pub fn stream(self) -> impl Stream<Item = Result<Entry>> + Send + Unpin {
        let begin = Some((self, Vec::new().into_iter(), true));
        Box::pin(stream::unfold(begin, |state| async {
            let (mut rest, mut entries, mut more) = state?;
            loop {
                if let Some(entry) = entries.next() {
                    return Some((Ok(entry), Some((rest, entries, more))));
                }
                if !more {
                    return None;
                }
                match rest.page().await {
                    Ok((_, page)) => {
                        more = page.more && rest.go_on(&page);
                        entries = page.children.into_iter();
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        }))
    }

    /// Moves the cursor behind the page; false when the page is empty, which would never end.
    fn go_on(&mut self, page: &Page) -> bool {
        let last = page.children.last().map(|entry| entry.name.clone());
        let goes_on = last.is_some();
        self.after = last.or(self.after.take());
        goes_on
    }
}

impl IntoFuture for Children {
    type Output = Result<Listing>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move {
            let (zxid, mut page) = self.page().await?;
            let mut more = page.more && self.go_on(&page);
            let mut listing = Listing { children: std::mem::take(&mut page.children), zxid, whole: !more };
            while more {
                let (_, page) = self.page().await?;
                more = page.more && self.go_on(&page);
                listing.children.extend(page.children);
            }
            Ok(listing)
        })
    }
}
