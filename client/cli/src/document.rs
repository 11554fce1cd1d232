//! A tree of znodes as JSON: what `export` writes and `import` reads.

use conclave_client::{Path, limits};
use serde::{Deserialize, Serialize};

use crate::data::Json;

/// How many levels fit below the top: as deep as serde_json reads (128 nested values, two for each level). It keeps a
/// stranger's file from exhausting the stack.
pub(crate) const LEVELS: usize = 62;

/// The whole file: `{"path": "/app", "data": "v1", "children": [{"name": "a", ...}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// Where the topmost znode is.
    pub(crate) path: Path,
    /// Its data; empty if it is left out.
    #[serde(default)]
    pub(crate) data: Json,
    /// Below it, in order of their names' bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) children: Vec<Node>,
}

/// A znode below another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its data; empty if it is left out.
    #[serde(default)]
    pub(crate) data: Json,
    /// Below it, in order of their names' bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) children: Vec<Self>,
}

/// A znode that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where.
    pub(crate) path: Path,
    /// With this data.
    pub(crate) data: Vec<u8>,
}

impl Document {
    /// Reads a file's bytes. The error says what is wrong, and where.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// The file's bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        // It fails on maps whose keys are no strings, and on writers that fail; here is neither.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// All znodes, parents before their children. The error says what cannot be.
    pub(crate) fn wanted(self) -> Result<Vec<Wanted>, String> {
        let mut all = Vec::new();
        add(&mut all, self.path, self.data, self.children)?;
        Ok(all)
    }
}

fn add(all: &mut Vec<Wanted>, path: Path, data: Json, children: Vec<Node>) -> Result<(), String> {
    let data = data.into_bytes();
    if data.len() > limits::DATA_BYTES {
        return Err(format!("{path} has {} bytes of data, {} is the limit", data.len(), limits::DATA_BYTES));
    }
    let mut names: Vec<&str> = children.iter().map(|node| node.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("{path} has two children named {:?}", twice[0]));
    }
    all.push(Wanted { path: path.clone(), data });
    for Node { name, data, children } in children {
        let child = path.join(&name).map_err(|error| error.to_string())?;
        add(all, child, data, children)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(levels: usize) -> Document {
        let mut children = Vec::new();
        for _ in 0..levels {
            children = vec![Node { name: "x".into(), data: Json::default(), children }];
        }
        Document { path: Path::root(), data: Json::default(), children }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let text = r#"{
  "path": "/app",
  "data": "v1",
  "children": [
    {
      "name": "a",
      "data": {
        "base64": "/wA="
      }
    },
    {
      "name": "b",
      "data": "",
      "children": [
        {
          "name": "c",
          "data": "ü"
        }
      ]
    }
  ]
}
"#;
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(document.write()).unwrap(), text);
        let wanted = document.wanted().unwrap();
        let seen: Vec<(&str, &[u8])> = wanted.iter().map(|one| (one.path.as_str(), &*one.data)).collect();
        let expected: [(&str, &[u8]); 4] =
            [("/app", b"v1"), ("/app/a", b"\xff\0"), ("/app/b", b""), ("/app/b/c", "ü".as_bytes())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn data_and_children_may_be_left_out() {
        let document = Document::parse(br#"{"path": "/", "children": [{"name": "a"}]}"#).unwrap();
        assert_eq!(document.wanted().unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (text, says) in [
            (r#"{"path": "app"}"#, "does not begin with /"),
            (r#"{"path": "/a", "date": ""}"#, "unknown field `date`"),
            (r#"{"path": "/a", "data": 5}"#, "data is a string or {\"base64\": \"...\"}"),
            (r#"{"path": "/a", "data": {"base64": "!"}}"#, "data is a string or {\"base64\": \"...\"}"),
            (r#"{"data": ""}"#, "missing field `path`"),
            ("{", "line 1 column"),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        for (children, says) in [
            (r#"[{"name": "a/b"}]"#, "empty name"),
            (r#"[{"name": ".."}]"#, ". or .."),
            (r#"[{"name": "a"}, {"name": "b"}, {"name": "a"}]"#, "two children named \"a\""),
        ] {
            let text = format!(r#"{{"path": "/x", "children": {children}}}"#);
            let error = Document::parse(text.as_bytes()).unwrap().wanted().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let large = Document { data: Json::of(&vec![b'x'; limits::DATA_BYTES + 1]), ..deep(0) };
        assert!(large.wanted().unwrap_err().contains("1048577 bytes"));
    }

    #[test]
    fn the_deepest_tree_that_is_exported_can_be_read_again() {
        let document = deep(LEVELS);
        assert_eq!(Document::parse(&document.write()).unwrap(), document);
        assert!(Document::parse(&deep(200).write()).unwrap_err().contains("recursion limit"));
    }
}
