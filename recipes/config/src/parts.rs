//! A value as the parts that it is made of, and back: pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use conclave_client::{Path, Refusal, Stat, Value, Zxid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Versioned;
use crate::error::{Error, Result};
use crate::publish::encode;

/// A part that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) data: Bytes,
}

/// A set as it was found, as of one zxid.
#[derive(Debug)]
pub(crate) struct Parts {
    path: Path,
    pub(crate) zxid: Zxid,
    /// The set's own znode.
    pub(crate) root: Option<Stat>,
    pub(crate) parts: BTreeMap<String, (Stat, Bytes)>,
}

impl Parts {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.clone(), zxid: Zxid(0), root: None, parts: BTreeMap::new() }
    }

    /// Takes a znode of it. What lies deeper is no part.
    pub(crate) fn add(&mut self, path: &Path, stat: Stat, data: Bytes) {
        if *path == self.path {
            self.root = Some(stat);
        } else if let Some(name) = path.name().filter(|_| path.depth() == self.path.depth() + 1) {
            self.parts.insert(name.to_owned(), (stat, data));
        }
    }

    /// The value that they make.
    pub(crate) fn value<T: DeserializeOwned>(&self) -> Result<Versioned<T>> {
        if self.parts.is_empty() {
            return Err(Error::Absent { path: self.path.clone() });
        }
        let mut fields = serde_json::Map::new();
        for (name, (stat, data)) in &self.parts {
            let undecodable = |error: serde_json::Error| Error::Undecodable {
                path: self.path.join(name).unwrap_or_else(|_| self.path.clone()),
                version: stat.version,
                why: error.to_string(),
            };
            fields.insert(name.clone(), serde_json::from_slice(data).map_err(undecodable)?);
        }
        let version = self.root.map_or(0, |stat| stat.version);
        let undecodable =
            |error: serde_json::Error| Error::Undecodable { path: self.path.clone(), version, why: error.to_string() };
        let value = serde_json::from_value(fields.into()).map_err(undecodable)?;
        Ok(Versioned { value, version, zxid: self.zxid })
    }
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

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
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
}
