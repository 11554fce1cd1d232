//! Where a lock keeps what in the tree, and what its znodes contain.

use bytes::Bytes;
use conclave_client::{Path, PathError, ToPath};
use serde::{Deserialize, Serialize};

use crate::want::Want;

/// What a place's name begins with, of one who wants it alone, or wants permits.
const PLACE: &str = "w-";
/// Of one who wants to share it.
const READER: &str = "r-";
/// What the name of a shared holder begins with.
const SHARER: &str = "h-";
/// Characters that are shown of data that is not ours.
const SHOWN: usize = 120;

/// A lock's paths. The [crate's page](crate) says what each is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    lock: Path,
    line: Path,
    place: Path,
    reader: Path,
    holder: Path,
    shared: Path,
    sharer: Path,
    requests: Path,
}

impl Layout {
    /// Of the lock at this path.
    ///
    /// # Errors
    /// When it is no path, or too deep for what lies below it.
    pub fn new(lock: impl ToPath) -> Result<Self, PathError> {
        let lock = lock.to_path()?;
        let (line, shared) = (lock.join("line")?, lock.join("shared")?);
        // With a number, so that a path that only its places would make too long is refused here.
        line.join(&format!("{PLACE}{}", u64::MAX))?;
        shared.join(&format!("{SHARER}{}", u64::MAX))?;
        Ok(Self {
            place: line.join(PLACE)?,
            reader: line.join(READER)?,
            holder: lock.join("holder")?,
            sharer: shared.join(SHARER)?,
            requests: lock.join("requests")?,
            line,
            shared,
            lock,
        })
    }

    /// The lock itself; of a semaphore, what contains its capacity.
    #[must_use]
    pub const fn lock(&self) -> &Path {
        &self.lock
    }

    /// The lock itself.
    #[must_use]
    pub const fn mutex(&self) -> &Path {
        &self.lock
    }

    /// The parent of the places in line.
    #[must_use]
    pub const fn line(&self) -> &Path {
        &self.line
    }

    /// What a place's path begins with; its number follows.
    #[must_use]
    pub const fn place(&self) -> &Path {
        &self.place
    }

    /// What the path of the place of one begins with who wants to share.
    #[must_use]
    pub const fn reader(&self) -> &Path {
        &self.reader
    }

    /// The znode that an award creates which is somebody's alone.
    #[must_use]
    pub const fn holder(&self) -> &Path {
        &self.holder
    }

    /// The parent of the znodes of those who share it, or hold permits.
    #[must_use]
    pub const fn shared(&self) -> &Path {
        &self.shared
    }

    /// What the path of such a znode begins with; its number follows.
    #[must_use]
    pub const fn sharer(&self) -> &Path {
        &self.sharer
    }

    /// Where holders are asked to release it.
    #[must_use]
    pub const fn requests(&self) -> &Path {
        &self.requests
    }

    pub(crate) const fn place_of(&self, want: Want) -> &Path {
        match want {
            Want::Read => &self.reader,
            Want::Mutex | Want::Write | Want::Permits(_) => &self.place,
        }
    }
}

/// Does one who stands at a place of this name want to share?
pub(crate) fn is_reader(name: &str) -> bool {
    name.starts_with(READER)
}

/// What places and holders contain, as JSON: who it is, for people to read. It is what that client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its principal.
    #[serde(default)]
    pub principal: String,
    /// What it says of itself; see [`Mutex::note`](crate::Mutex::note).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many permits it holds or wants; of semaphores. This is what counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permits: Option<u64>,
}

impl Who {
    /// As it lies in a znode.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a struct of texts and numbers is always JSON").into()
    }

    /// Out of a znode's data. Anything can lie there, if somebody made it by hand: what is not JSON is the note.
    #[must_use]
    pub fn decode(data: &[u8]) -> Self {
        serde_json::from_slice(data).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(data).chars().take(SHOWN).collect();
            let text = text.replace(char::is_control, " ").trim().to_owned();
            Self { note: Some(text).filter(|text| !text.is_empty()), ..Self::default() }
        })
    }
}

/// What a semaphore's own znode contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) capacity: u64,
}

impl Settings {
    pub(crate) fn encode(self) -> Bytes {
        serde_json::to_vec(&self).expect("a struct of a number is always JSON").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_below_the_lock() {
        let layout = Layout::new("/locks/deploy").unwrap();
        for (path, expected) in [
            (layout.lock(), "/locks/deploy"),
            (layout.mutex(), "/locks/deploy"),
            (layout.line(), "/locks/deploy/line"),
            (layout.place(), "/locks/deploy/line/w-"),
            (layout.reader(), "/locks/deploy/line/r-"),
            (layout.holder(), "/locks/deploy/holder"),
            (layout.shared(), "/locks/deploy/shared"),
            (layout.sharer(), "/locks/deploy/shared/h-"),
            (layout.requests(), "/locks/deploy/requests"),
        ] {
            assert_eq!(path.as_str(), expected);
        }
        assert!(Layout::new("locks").is_err());
        assert!(Layout::new("/a".repeat(62)).is_ok());
        assert!(Layout::new("/a".repeat(63)).is_err());
        assert!(is_reader("r-0000000007") && !is_reader("w-0000000007"));
    }

    #[test]
    fn who_it_is_can_be_read_whatever_lies_there() {
        let who = Who { principal: "client/ann".into(), note: Some("by hand".into()), permits: Some(3) };
        assert_eq!(Who::decode(&who.encode()), who);
        let silent = Who { note: None, permits: None, ..who };
        assert_eq!(&silent.encode()[..], br#"{"principal":"client/ann"}"#);
        assert_eq!(Who::decode(&silent.encode()), silent);
        let note = |data: &[u8]| Who::decode(data).note;
        assert_eq!(note(b"maintenance\x1b[2J\n"), Some("maintenance [2J".into()));
        assert_eq!(note(b""), None);
        assert_eq!(note(&[b'x'; 5_000]).unwrap().len(), SHOWN);
        assert!(note(&[0xff, 0xfe]).is_some());
    }
}
