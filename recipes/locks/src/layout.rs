//! Where a mutex keeps what in the tree, and what its znodes contain.

use bytes::Bytes;
use conclave_client::{Path, PathError, ToPath};
use serde::{Deserialize, Serialize};

/// What a place's name begins with.
const PLACE: &str = "w-";
/// Characters that are shown of data that is not ours.
const SHOWN: usize = 120;

/// A mutex's paths. The [crate's page](crate) says what each is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    mutex: Path,
    line: Path,
    place: Path,
    holder: Path,
}

impl Layout {
    /// Of the mutex at this path.
    ///
    /// # Errors
    /// When it is no path, or too deep for what lies below it.
    pub fn new(mutex: impl ToPath) -> Result<Self, PathError> {
        let mutex = mutex.to_path()?;
        let line = mutex.join("line")?;
        // With a number, so that a path that only its places would make too long is refused here.
        line.join(&place_name(u64::MAX))?;
        Ok(Self { place: line.join(PLACE)?, holder: mutex.join("holder")?, line, mutex })
    }

    /// The mutex itself.
    #[must_use]
    pub const fn mutex(&self) -> &Path {
        &self.mutex
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

    /// The znode that an award creates.
    #[must_use]
    pub const fn holder(&self) -> &Path {
        &self.holder
    }
}

/// The name of the place with this number.
pub(crate) fn place_name(number: u64) -> String {
    format!("{PLACE}{number:010}")
}

/// The number in a place's name, whatever stands before its last `-`; none if it is no place.
pub(crate) fn number(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('-')?;
    let all = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// What places and holders contain, as JSON: who it is, for people to read. It is what that client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its principal.
    pub principal: String,
    /// What it says of itself; see [`Mutex::note`](crate::Mutex::note).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Who {
    /// As it lies in a znode.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a struct of texts is always JSON").into()
    }

    /// Out of a znode's data. Anything can lie there, if somebody made it by hand: what is not JSON is the note.
    #[must_use]
    pub fn decode(data: &[u8]) -> Self {
        serde_json::from_slice(data).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(data).chars().take(SHOWN).collect();
            let text = text.replace(char::is_control, " ").trim().to_owned();
            Self { principal: String::new(), note: Some(text).filter(|text| !text.is_empty()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_below_the_mutex() {
        let layout = Layout::new("/locks/deploy").unwrap();
        assert_eq!(layout.mutex().as_str(), "/locks/deploy");
        assert_eq!(layout.line().as_str(), "/locks/deploy/line");
        assert_eq!(layout.place().as_str(), "/locks/deploy/line/w-");
        assert_eq!(layout.holder().as_str(), "/locks/deploy/holder");
        assert!(Layout::new("locks").is_err());
        assert!(Layout::new("/a".repeat(62)).is_ok());
        assert!(Layout::new("/a".repeat(63)).is_err());
    }

    #[test]
    fn a_place_has_a_number_of_at_least_ten_digits() {
        for (name, expected) in [
            ("w-0000000007", Some(7)),
            ("x-y-0000000007", Some(7)),
            ("w-12345678901", Some(12_345_678_901)),
            ("w-7", None),
            ("w-", None),
            ("0000000007", None),
            ("w-00000000+7", None),
            ("w-99999999999999999999999", None),
            ("note", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
        assert_eq!(number(&place_name(7)), Some(7));
    }

    #[test]
    fn who_it_is_can_be_read_whatever_lies_there() {
        let who = Who { principal: "client/ann".into(), note: Some("by hand".into()) };
        assert_eq!(Who::decode(&who.encode()), who);
        let silent = Who { note: None, ..who };
        assert_eq!(&silent.encode()[..], br#"{"principal":"client/ann"}"#);
        assert_eq!(Who::decode(&silent.encode()), silent);
        let note = |data: &[u8]| Who::decode(data).note;
        assert_eq!(note(b"maintenance\x1b[2J\n"), Some("maintenance [2J".into()));
        assert_eq!(note(b""), None);
        assert_eq!(note(&[b'x'; 5_000]).unwrap().len(), SHOWN);
        assert!(note(&[0xff, 0xfe]).is_some());
    }
}
