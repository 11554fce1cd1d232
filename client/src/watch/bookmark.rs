//! Where a watch stands: what a program keeps to go on from there, in another process, on another day.

use std::fmt;
use std::str::FromStr;

use conclave_protocol::Zxid;

/// A zxid, and the cluster whose it is: a watch that [resumes](crate::WatchBuilder::resume) from it tells every change
/// after it. Written `zxid@cluster`.
///
/// ```
/// use conclave_client::{Bookmark, Zxid};
///
/// let bookmark: Bookmark = "42@6f1c".parse()?;
/// assert_eq!(bookmark.zxid, Zxid(42));
/// assert_eq!(bookmark.to_string(), "42@6f1c");
/// # Ok::<(), conclave_client::ParseBookmarkError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bookmark {
    /// The last transaction that was told.
    pub zxid: Zxid,
    /// The cluster's id.
    pub cluster: String,
}

/// Why a text is no bookmark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bookmark is written zxid@cluster, and {0:?} is not")]
pub struct ParseBookmarkError(String);

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.zxid, self.cluster)
    }
}

impl FromStr for Bookmark {
    type Err = ParseBookmarkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseBookmarkError(text.chars().take(120).collect());
        let (zxid, cluster) = text.split_once('@').ok_or_else(wrong)?;
        let digits = !zxid.is_empty() && zxid.bytes().all(|byte| byte.is_ascii_digit());
        let zxid = zxid.parse().ok().filter(|_| digits && !cluster.is_empty()).ok_or_else(wrong)?;
        Ok(Self { zxid, cluster: cluster.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookmark_is_written_zxid_at_cluster_and_read_as_it_is_written() {
        let bookmark = Bookmark { zxid: Zxid(u64::MAX), cluster: "6f1c@x".into() };
        assert_eq!(bookmark.to_string().parse(), Ok(bookmark));
        for bad in ["", "1", "@", "1@", "@c", "x@c", "-1@c", "+1@c", " 1@c", "18446744073709551616@c"] {
            assert!(bad.parse::<Bookmark>().unwrap_err().to_string().contains("zxid@cluster"), "{bad:?}");
        }
    }
}
