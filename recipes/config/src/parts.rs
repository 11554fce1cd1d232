//! A value as the parts that it is made of, and back: pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use conclave_client::{Path, Refusal, Stat, Value, Zxid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Versioned;
use crate::error::{Error, Result};
use crate::history::{self, Past, Record};
use crate::publish::encode;

/// Where the versions of a set are kept, among its parts. No field of a struct has such a name.
pub(crate) const HISTORY: &str = ".history";

/// A part that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) data: Bytes,
}

/// Parts by their names.
type ByName = BTreeMap<String, (Stat, Bytes)>;

/// A set as it was found, as of one zxid.
#[derive(Debug)]
pub(crate) struct Parts {
    path: Path,
    pub(crate) zxid: Zxid,
    /// The set's own znode.
    pub(crate) root: Option<Stat>,
    /// So many of its children were shown.
    shown: u64,
    pub(crate) parts: ByName,
    /// The versions that are kept; none when there is no history yet.
    pub(crate) kept: Option<BTreeMap<u64, Kept>>,
}

/// A version of a set that is kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    stat: Stat,
    record: Bytes,
    parts: ByName,
}

impl Parts {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.clone(), zxid: Zxid(0), root: None, shown: 0, parts: BTreeMap::new(), kept: None }
    }

    /// Takes a znode of it. What lies deeper is no part.
    pub(crate) fn add(&mut self, path: &Path, stat: Stat, data: Bytes) {
        let below: Vec<&str> = path.names().skip(self.path.depth()).collect();
        self.shown += u64::from(below.len() == 1);
        match below[..] {
            [] => self.root = Some(stat),
            [HISTORY] => _ = self.kept.get_or_insert_default(),
            [HISTORY, name, ref deeper @ ..] => {
                let Some(version) = history::version(name) else { return };
                let kept = self.kept.get_or_insert_default().entry(version).or_default();
                match *deeper {
                    [] => (kept.stat, kept.record) = (stat, data),
                    [part] => _ = kept.parts.insert(part.to_owned(), (stat, data)),
                    _ => {}
                }
            }
            [part] => _ = self.parts.insert(part.to_owned(), (stat, data)),
            _ => {}
        }
    }

    /// The value that they make.
    pub(crate) fn value<T: DeserializeOwned>(&self) -> Result<Versioned<T>> {
        let version = self.root.map_or(0, |stat| stat.version);
        let value = value(&self.path, &self.parts, version, |stat| stat.version)?;
        Ok(Versioned { value, version, zxid: self.zxid })
    }

    /// Whether all of its children were shown.
    ///
    /// # Errors
    /// [`Error::Hidden`].
    pub(crate) fn is_whole(&self) -> Result<()> {
        is_whole(&self.path, self.shown, self.root.map_or(0, |stat| stat.children))
    }

    /// The numbers of the versions that are kept, the oldest first.
    pub(crate) fn versions(&self) -> Vec<u64> {
        self.kept.iter().flat_map(BTreeMap::keys).copied().collect()
    }

    /// One that is kept.
    pub(crate) fn version(&self, version: u64) -> Option<&Kept> {
        self.kept.as_ref()?.get(&version)
    }

    /// All that are kept, the newest first.
    pub(crate) fn history<T: DeserializeOwned>(&self, path: &Path) -> Vec<Past<T>> {
        let kept = self.kept.iter().flatten().rev();
        kept.map(|(version, kept)| kept.past(path, *version)).collect()
    }
}

impl Kept {
    /// The value that its parts make. The path is that of the history.
    pub(crate) fn value<T: DeserializeOwned>(&self, history: &Path, version: u64) -> Result<T> {
        value(&history::path(history, version)?, &self.parts, version, |_| version)
    }

    /// Whether all of its parts were shown. The path is that of the history.
    ///
    /// # Errors
    /// [`Error::Hidden`].
    pub(crate) fn is_whole(&self, history: &Path, version: u64) -> Result<()> {
        is_whole(&history::path(history, version)?, self.parts.len() as u64, self.stat.children)
    }

    /// Its parts, byte by byte.
    pub(crate) fn parts(&self) -> Vec<Part> {
        self.parts.iter().map(|(name, (_, data))| Part { name: name.clone(), data: data.clone() }).collect()
    }

    fn past<T: DeserializeOwned>(&self, history: &Path, version: u64) -> Past<T> {
        let value = self.value(history, version).map_err(|error| match error {
            Error::Undecodable { path, why, .. } if path.depth() > history.depth() + 1 => {
                format!("{}: {why}", path.name().unwrap_or_default())
            }
            Error::Undecodable { why, .. } => why,
            other => other.to_string(),
        });
        let Record { by, note } = Record::decode(&self.record).0;
        Past { version, value, by, note, at: history::time(self.stat.modified_ms), zxid: self.stat.modified }
    }
}

fn is_whole(path: &Path, shown: u64, children: u64) -> Result<()> {
    if shown < children {
        return Err(Error::Hidden { path: path.clone(), shown, children });
    }
    Ok(())
}

/// The value that parts make which lie at this path. What can't be decoded is said to be at the version of its part.
fn value<T: DeserializeOwned>(path: &Path, parts: &ByName, version: u64, of: impl Fn(&Stat) -> u64) -> Result<T> {
    if parts.is_empty() {
        return Err(Error::Absent { path: path.clone() });
    }
    let mut fields = serde_json::Map::new();
    for (name, (stat, data)) in parts {
        let undecodable = |error: serde_json::Error| Error::Undecodable {
            path: path.join(name).unwrap_or_else(|_| path.clone()),
            version: of(stat),
            why: error.to_string(),
        };
        fields.insert(name.clone(), serde_json::from_slice(data).map_err(undecodable)?);
    }
    let undecodable =
        |error: serde_json::Error| Error::Undecodable { path: path.clone(), version, why: error.to_string() };
    serde_json::from_value(fields.into()).map_err(undecodable)
}

/// The parts of a value, by their names.
pub(crate) fn split(value: &impl Serialize) -> Result<Vec<Part>> {
    let unencodable = |why: String| Error::Unencodable { why };
    let whole = serde_json::to_value(value).map_err(|error| unencodable(error.to_string()))?;
    let serde_json::Value::Object(fields) = whole else {
        return Err(unencodable("a set is a struct or a map, whose fields are its parts".to_owned()));
    };
    if fields.is_empty() {
        return Err(unencodable("a set has at least one part".to_owned()));
    }
    if fields.contains_key(HISTORY) {
        return Err(unencodable(format!("no part can be named {HISTORY}: the versions are kept there")));
    }
    fields.into_iter().map(|(name, value)| Ok(Part { data: encode(&value)?, name })).collect()
}

/// The stat of a znode that was written.
pub(crate) const fn written(value: &Value) -> Option<&Stat> {
    match value {
        Value::Set { stat } | Value::Created { stat, .. } => Some(stat),
        _ => None,
    }
}

/// Somebody was faster: what was found is not what is there. Looking again helps.
pub(crate) const fn is_overtaken(cause: &Refusal) -> bool {
    matches!(
        cause,
        Refusal::BadVersion { .. }
            | Refusal::Fenced { .. }
            | Refusal::CheckFailed { .. }
            | Refusal::NoZnode { .. }
            | Refusal::ZnodeExists { .. }
    )
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct App {
        workers: u32,
        motto: Option<String>,
    }

    fn found(parts: &[(&str, &'static str)]) -> Parts {
        let path = Path::parse("/app").unwrap();
        let mut found = Parts::new(&path);
        found.add(&path, Stat { version: 3, ..Stat::default() }, Bytes::new());
        for (name, data) in parts {
            found.add(
                &path.join(name).unwrap(),
                Stat { version: 8, ..Stat::default() },
                Bytes::from_static(data.as_bytes()),
            );
        }
        found.add(&Path::parse("/app/workers/deeper").unwrap(), Stat::default(), Bytes::from_static(b"no part"));
        found
    }

    #[test]
    fn a_value_is_its_parts_and_back() {
        let app = App { workers: 4, motto: None };
        let parts = split(&app).unwrap();
        let named =
            |name: &str, data: &'static str| Part { name: name.into(), data: Bytes::from_static(data.as_bytes()) };
        assert_eq!(parts, [named("motto", "null"), named("workers", "4")]);
        let read: Versioned<App> = found(&[("motto", "null"), ("workers", "4")]).value().unwrap();
        assert_eq!((read.value, read.version), (app, 3));
        // Parts that the type does not know are left alone, and those that it can do without may be missing.
        let read: Versioned<App> = found(&[("other", "{}"), ("workers", "5")]).value().unwrap();
        assert_eq!(read.value, App { workers: 5, motto: None });
    }

    #[test]
    fn what_is_no_value_says_where_and_why() {
        let read = |parts: &[(&str, &'static str)]| found(parts).value::<App>().unwrap_err().to_string();
        assert!(
            read(&[("workers", "four")]).starts_with("/app/workers at version 8 is no such"),
            "{}",
            read(&[("workers", "four")])
        );
        assert!(
            read(&[("motto", "null")]).contains("/app at version 3 is no such configuration: missing field `workers`")
        );
        assert!(matches!(found(&[]).value::<App>(), Err(Error::Absent { .. })));
        for none in [split(&7), split(&[1, 2]), split(&serde_json::json!({}))] {
            assert!(matches!(none, Err(Error::Unencodable { .. })), "{none:?}");
        }
    }

    #[test]
    fn versions_lie_among_the_parts_and_are_none_of_them() {
        let path = Path::parse("/app").unwrap();
        let mut found = found(&[("workers", "4")]);
        let mut add = |below: &str, data: &'static str| {
            let stat = Stat { modified: Zxid(9), modified_ms: 5, ..Stat::default() };
            found.add(&Path::parse(&format!("/app/{below}")).unwrap(), stat, Bytes::from_static(data.as_bytes()));
        };
        add(".history", "");
        add(".history/0000000002", r#"{"by":"client/ann","note":"why"}"#);
        add(".history/0000000002/workers", "7");
        add(".history/0000000002/workers/deeper", "no part");
        add(".history/0000000010", "by hand");
        add(".history/0000000011", "");
        add(".history/0000000011/workers", "{");
        add(".history/readme", "by hand");
        assert_eq!((found.versions(), found.parts.len()), (vec![2, 10, 11], 1));
        assert_eq!(found.value::<App>().unwrap().workers, 4);
        let history = path.join(HISTORY).unwrap();
        let [broken, empty, past] = &found.history::<App>(&history)[..] else { panic!("not three") };
        assert_eq!((past.value.clone(), past.zxid), (Ok(App { workers: 7, motto: None }), Zxid(9)));
        assert_eq!((past.by.as_str(), past.note.as_deref()), ("client/ann", Some("why")));
        assert!(broken.value.as_ref().unwrap_err().starts_with("workers: "), "{broken:?}");
        assert!(empty.value.is_err() && empty.by.is_empty());
        let kept = found.version(2).unwrap();
        assert_eq!(kept.parts(), [Part { name: "workers".into(), data: Bytes::from_static(b"7") }]);
        let broken = found.version(11).unwrap().value::<App>(&history, 11).unwrap_err();
        assert!(broken.to_string().starts_with("/app/.history/0000000011/workers at version 11 is no"), "{broken}");
        // Before there is any history there is none, not even an empty one.
        assert!(Parts::new(&path).kept.is_none() && Parts::new(&path).versions().is_empty());
        let taken = split(&serde_json::json!({ ".history": 1 })).unwrap_err();
        assert!(matches!(taken, Error::Unencodable { .. }), "{taken}");
    }

    #[test]
    fn a_part_that_is_not_shown_is_counted() {
        let path = Path::parse("/app").unwrap();
        let history = path.join(HISTORY).unwrap();
        let two = Stat { children: 2, ..Stat::default() };
        let mut found = Parts::new(&path);
        assert!(found.is_whole().is_ok(), "there is nothing yet");
        let mut add = |below: &str, stat| {
            found.add(&Path::parse(&format!("/app{below}")).unwrap(), stat, Bytes::new());
            let kept = found.version(3).map(|kept| kept.is_whole(&history, 3).is_ok());
            (found.is_whole().is_ok(), kept)
        };
        assert_eq!(add("", two), (false, None));
        assert_eq!(add("/workers", Stat::default()), (false, None));
        assert_eq!(add("/workers/deeper", Stat::default()), (false, None), "that is no child");
        assert_eq!(add("/.history", Stat::default()), (true, None), "that is one");
        assert_eq!(add("/.history/0000000003", two), (true, Some(false)));
        assert_eq!(add("/.history/0000000003/motto", Stat::default()), (true, Some(false)));
        assert_eq!(add("/.history/0000000003/workers", Stat::default()), (true, Some(true)));
    }
}
