//! What is told without being asked each time: changes, resyncs, states.

use conclave_protocol::{Change, Present, TreeEntry, WatchId, Zxid};
use serde_json::{Map, Value, json};

use crate::reply;

/// The line that tells a watch of a transaction's changes. `present` is empty, or holds for each change what the znode
/// holds now: then each change has `data` and `stat`, or `gone`.
#[must_use]
pub fn changes(watch: WatchId, zxid: Zxid, changes: &[Change], present: &[Option<Present>]) -> Value {
    let change = |(n, change): (usize, &Change)| {
        let mut object = Map::new();
        object.insert("kind".to_owned(), change.kind.to_string().into());
        object.insert("path".to_owned(), json!(change.path));
        object.insert("version".to_owned(), json!(change.version));
        match present.get(n) {
            None => {}
            Some(None) => {
                object.insert("gone".to_owned(), true.into());
            }
            Some(Some(now)) => {
                reply::data(&mut object, "data", &now.data);
                object.insert("stat".to_owned(), reply::stat(&now.stat));
            }
        }
        Value::Object(object)
    };
    let changes: Vec<Value> = changes.iter().enumerate().map(change).collect();
    json!({ "watch": watch, "zxid": zxid, "changes": changes })
}

/// The line that says that changes up to this zxid are not told: read the present state.
#[must_use]
pub fn resync(watch: WatchId, zxid: Zxid) -> Value {
    json!({ "watch": watch, "resync": zxid })
}

/// The line that holds a part of the present state, as of this zxid. Part 0 begins a snapshot: what was told before is
/// over. `more` parts follow, or else the changes after it.
#[must_use]
pub fn snapshot(watch: WatchId, zxid: Zxid, part: u64, znodes: &[TreeEntry], more: bool) -> Value {
    let znodes = reply::subtree(znodes)["znodes"].take();
    json!({ "watch": watch, "zxid": zxid, "part": part, "snapshot": znodes, "more": more })
}

/// The line that says that nothing more comes of a watch, and why if it did not end as it should.
#[must_use]
pub fn ended(watch: WatchId, why: Option<&str>) -> Value {
    match why {
        None => json!({ "watch": watch, "ended": true }),
        Some(why) => json!({ "watch": watch, "ended": true, "message": why }),
    }
}

/// The line that says how the client stands: `connected`, `suspended`, `lost`.
#[must_use]
pub fn state(state: &str) -> Value {
    json!({ "state": state })
}

/// The last line: the session was closed in good order, or not.
#[must_use]
pub fn closed(clean: bool) -> Value {
    json!({ "state": "closed", "clean": clean })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use conclave_protocol::{ChangeKind, Stat};

    use super::*;

    fn change(kind: ChangeKind, path: &str) -> Change {
        Change { kind, path: path.parse().unwrap(), version: 3 }
    }

    #[test]
    fn events_have_names_that_stay() {
        let list = [change(ChangeKind::Data, "/a"), change(ChangeKind::Deleted, "/b")];
        assert_eq!(
            changes(WatchId(1), Zxid(9), &list, &[]),
            json!({ "watch": 1, "zxid": 9, "changes": [
                { "kind": "data", "path": "/a", "version": 3 },
                { "kind": "deleted", "path": "/b", "version": 3 },
            ]})
        );
        let present = [Some(Present { data: Bytes::from_static(b"\xff"), stat: Stat::default() }), None];
        let with_data = changes(WatchId(1), Zxid(9), &list, &present);
        assert_eq!(with_data["changes"][0]["data_base64"], "/w==");
        assert_eq!(with_data["changes"][0]["stat"]["version"], 0);
        assert_eq!(with_data["changes"][1], json!({ "kind": "deleted", "path": "/b", "version": 3, "gone": true }));
        assert_eq!(resync(WatchId(2), Zxid(7)), json!({ "watch": 2, "resync": 7 }));
        assert_eq!(ended(WatchId(2), None), json!({ "watch": 2, "ended": true }));
        assert_eq!(ended(WatchId(2), Some("x")), json!({ "watch": 2, "ended": true, "message": "x" }));
        assert_eq!(state("suspended"), json!({ "state": "suspended" }));
        assert_eq!(closed(true), json!({ "state": "closed", "clean": true }));
        let entry = TreeEntry { path: "/a".parse().unwrap(), stat: Stat::default(), data: Some(Bytes::from("x")) };
        let told = snapshot(WatchId(1), Zxid(9), 0, &[entry], false);
        assert_eq!(told["snapshot"][0]["path"], "/a");
        assert_eq!(told["snapshot"][0]["data"], "x");
        assert_eq!((&told["watch"], &told["zxid"], &told["more"]), (&json!(1), &json!(9), &json!(false)));
        assert_eq!(told["part"], 0);
    }
}
