//! What is kept of earlier versions: names, records, and which are dropped.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use conclave_client::{Path, PathError, Zxid};
use serde::{Deserialize, Serialize};

/// Digits of a version in a name, so that names are in order.
const DIGITS: usize = 10;

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past<T> {
    /// Its number: the version that the configuration's znode had.
    pub version: u64,
    /// The value, or why it is none of this type: types change, and what was published stays.
    pub value: Result<T, String>,
    /// The principal that published it, as it said itself.
    pub by: String,
    /// What was said about it.
    pub note: Option<String>,
    /// When, in cluster time.
    pub at: SystemTime,
    /// With which transaction.
    pub zxid: Zxid,
}

/// What the first line of a version's znode says; the value follows, byte by byte as it was published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl Record {
    pub(crate) fn encode(&self, value: &[u8]) -> Bytes {
        // JSON has no line ends but escaped ones.
        let mut data = serde_json::to_vec(self).expect("a struct of texts is always JSON");
        data.push(b'\n');
        data.extend_from_slice(value);
        data.into()
    }

    /// The record and the value. What somebody made by hand has no record, and is all value.
    pub(crate) fn decode(data: &Bytes) -> (Self, Bytes) {
        let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        match serde_json::from_slice(&data[..end]) {
            Ok(record) => (record, data.slice((end + 1).min(data.len())..)),
            Err(_) => (Self::default(), data.clone()),
        }
    }
}

/// Where a version is kept.
pub(crate) fn path(history: &Path, version: u64) -> Result<Path, PathError> {
    history.join(&format!("{version:0DIGITS$}"))
}

/// The version of such a name; none if it is none of ours.
pub(crate) fn version(name: &str) -> Option<u64> {
    let all = name.len() >= DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    // With more zeros than it needs it is somebody else's, and not where that version is looked for.
    let is_ours = |_: &u64| name.len() == DIGITS || !name.starts_with('0');
    all.then(|| name.parse().ok()).flatten().filter(is_ours)
}

/// Those that are dropped when one more is added, so that so many are kept.
pub(crate) fn surplus(mut versions: Vec<u64>, next: u64, keep: usize) -> Vec<u64> {
    versions.retain(|version| *version != next);
    versions.sort_unstable();
    let most = keep.saturating_sub(1);
    versions.truncate(versions.len().saturating_sub(most));
    versions
}

pub(crate) fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_versions_in_order_and_nothing_else_is() {
        let history = Path::parse("/app/history").unwrap();
        assert_eq!(path(&history, 7).unwrap().as_str(), "/app/history/0000000007");
        for (name, expected) in [
            ("0000000007", Some(7)),
            ("12345678901", Some(12_345_678_901)),
            ("00000000007", None),
            ("00000000000", None),
            ("7", None),
            ("000000000x", None),
            ("+000000007", None),
            ("", None),
        ] {
            assert_eq!(version(name), expected, "{name}");
        }
    }

    #[test]
    fn so_many_are_kept_and_the_oldest_go() {
        for (versions, next, keep, expected) in [
            (vec![], 0, 3, vec![]),
            (vec![0, 1], 2, 3, vec![]),
            (vec![2, 0, 1], 3, 3, vec![0]),
            // Somebody set it by hand: there are gaps.
            (vec![0, 4, 9], 12, 2, vec![0, 4]),
            // Fewer are to be kept from now on.
            (vec![0, 1, 2, 3], 4, 1, vec![0, 1, 2, 3]),
            (vec![0, 1], 2, 0, vec![0, 1]),
            // It is there already, made by hand: it is written over, and not dropped.
            (vec![1, 2], 2, 2, vec![]),
        ] {
            assert_eq!(surplus(versions.clone(), next, keep), expected, "{versions:?} {next} {keep}");
        }
    }

    #[test]
    fn a_record_keeps_the_value_byte_by_byte() {
        let value = b"{ \"b\": 1.50,\n  \"a\": [] }";
        let record = Record { by: "client/ann".into(), note: Some("by\nhand".into()) };
        assert_eq!(Record::decode(&record.encode(value)), (record, Bytes::from_static(value)));
        let silent = Record { by: "client/ann".into(), note: None };
        assert_eq!(&silent.encode(b"7")[..], b"{\"by\":\"client/ann\"}\n7");
        assert_eq!(Record::decode(&silent.encode(b"")).1, "");
        // By hand.
        for data in [&b"{\"workers\": 3}"[..], b"", b"\n", b"three\nlines\n"] {
            let data = Bytes::from_static(data);
            assert_eq!(Record::decode(&data), (Record::default(), data));
        }
    }
}
