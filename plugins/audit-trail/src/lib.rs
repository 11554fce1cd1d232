//! Writes down who changed what, in the transaction that changed it. See the README for its settings and its entries.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use conclave_plugin::{After, Change, ChangeKind, Context, Create, Path, Result, Tree};
use serde::{Deserialize, Serialize};

/// Changes of one entry: so many with the longest paths fit a znode.
const CHANGES: usize = 50;

/// How long entries stay unless the settings say so: 90 days.
const TTL_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// The plugin.
pub struct AuditTrail;

conclave_plugin::export!(AuditTrail: after);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    trails: Vec<Trail>,
}

/// What is recorded where.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Trail {
    /// Patterns of paths.
    of: Vec<String>,
    /// Below which znode.
    at: Path,
    #[serde(default = "default_ttl_ms")]
    ttl_ms: u64,
}

/// What lies in an entry.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When, cluster time in milliseconds.
    pub at_ms: u64,
    /// In which transaction.
    pub zxid: u64,
    /// Who; none when the cluster did: a session ended, a time to live was over.
    pub principal: Option<String>,
    /// In which session, if in one.
    pub session: Option<u64>,
    /// What, in order.
    pub changes: Vec<Changed>,
}

/// One change.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// `created`, `data`, `deleted` or `acl`.
    pub kind: String,
    /// Of which znode.
    pub path: Path,
    /// The version of its data afterwards; of a deletion the last one.
    pub version: u64,
    /// Bytes of its data before, and afterwards.
    pub bytes: [Option<usize>; 2],
}

fn default_ttl_ms() -> u64 {
    TTL_MS
}

impl After for AuditTrail {
    fn react(&self, tree: &Tree, context: &Context, changes: &[Change]) -> Result<()> {
        let settings: Settings = context.settings()?;
        let trails = &settings.trails;
        // A trail that recorded itself would never come to an end.
        let is_trail = |path: &Path| trails.iter().any(|trail| is_within(path, &trail.at));
        for trail in trails {
            let is_of = |change: &&Change| trail.of.iter().any(|pattern| change.path.matches(pattern));
            let of: Vec<&Change> = changes.iter().filter(is_of).filter(|change| !is_trail(&change.path)).collect();
            for part in of.chunks(CHANGES) {
                record(tree, context, trail, part)?;
            }
        }
        Ok(())
    }
}

fn record(tree: &Tree, context: &Context, trail: &Trail, changes: &[&Change]) -> Result<()> {
    let caller = context.caller();
    let entry = Entry {
        at_ms: context.now_ms(),
        zxid: context.zxid(),
        session: caller.as_ref().and_then(|caller| caller.session),
        principal: caller.map(|caller| caller.principal),
        changes: changes.iter().map(|change| changed(change)).collect(),
    };
    let how = Create { ttl_ms: Some(trail.ttl_ms), ..Create::with_parents() };
    tree.create(trail.at.join("e-")?, serde_json::to_vec(&entry)?, how.numbered()).map(drop)
}

fn changed(change: &Change) -> Changed {
    let kind = match change.kind {
        ChangeKind::Created => "created",
        ChangeKind::Data => "data",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Acl => "acl",
    };
    let bytes = [&change.previous, &change.data].map(|data| data.as_ref().map(Vec::len));
    Changed { kind: kind.to_owned(), path: change.path.clone(), version: change.version, bytes }
}

fn is_within(path: &Path, above: &Path) -> bool {
    path.strip_prefix(above.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use conclave_plugin::TestTree;

    use super::*;

    fn tree(settings: &str) -> TestTree {
        TestTree::new::<AuditTrail>().settings(settings)
    }

    fn entries(t: &TestTree, at: &str) -> Vec<Entry> {
        let data = t.names(at).into_iter().map(|name| t.data(&format!("{at}/{name}")).unwrap());
        data.map(|data| serde_json::from_slice(&data).unwrap()).collect()
    }

    #[test]
    fn who_changed_what_is_written_down_with_the_change() {
        let t = tree(r#"{"trails": [{"of": ["/app/**"], "at": "/audit/app"}]}"#);
        t.client("ann").create("/app/x", "123", Create::with_parents()).unwrap();
        t.client("bob").set("/app/x", "45").unwrap();
        t.client("bob").delete("/app/x").unwrap();
        t.create("/other", "x");
        let entries = entries(&t, "/audit/app");
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].principal.as_deref(), Some("spiffe://test/client/ann"));
        assert_eq!(entries[0].changes.iter().map(|change| &*change.path).collect::<Vec<_>>(), ["/app", "/app/x"]);
        let changed = |kind: &str, version, bytes| {
            vec![Changed { kind: kind.to_owned(), path: Path::parse("/app/x").unwrap(), version, bytes }]
        };
        assert_eq!(entries[1].changes, changed("data", 1, [Some(3), Some(2)]));
        assert_eq!(entries[2].changes, changed("deleted", 1, [Some(2), None]));
        assert!(entries.is_sorted_by_key(|entry| entry.zxid));
    }

    #[test]
    fn what_nobody_did_has_no_principal() {
        let t = tree(r#"{"trails": [{"of": ["/e"], "at": "/audit"}]}"#);
        t.client("ann").create("/e", "", Create::ephemeral()).unwrap();
        t.client("ann").expire();
        assert_eq!(entries(&t, "/audit")[1].principal, None);
    }

    #[test]
    fn a_trail_does_not_record_itself_or_another_and_goes_after_its_time() {
        let t = tree(r#"{"trails": [{"of": ["/**"], "at": "/a"}, {"of": ["/**"], "at": "/b", "ttl-ms": 1000}]}"#);
        t.create("/x", "1");
        assert_eq!((entries(&t, "/a").len(), entries(&t, "/b").len()), (1, 1));
        t.advance(1_001);
        assert_eq!((entries(&t, "/a").len(), entries(&t, "/b").len()), (1, 0));
        // Not a trail: only its name begins like one.
        t.create("/ab", "1");
        assert_eq!(entries(&t, "/a").len(), 2);
    }

    #[test]
    fn a_large_transaction_has_several_entries() {
        let t = tree(r#"{"trails": [{"of": ["/many/**"], "at": "/audit"}]}"#);
        t.create("/many", "");
        let made = t.client("ann").transact(|tree| {
            (0..120).try_for_each(|n| tree.create(format!("/many/{n}"), "", Create::default()).map(drop))
        });
        made.unwrap();
        let all = entries(&t, "/audit");
        assert_eq!(all.iter().map(|entry| entry.changes.len()).sum::<usize>(), 121);
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_cannot_be_recorded_does_not_happen() {
        let t = tree(r#"{"trails": [{"of": ["/x"], "at": "/audit", "ttl-ms": 0}]}"#);
        assert!(t.client("ann").create("/x", "", Create::default()).is_err());
        assert_eq!(t.paths(), ["/"]);
        assert!(tree("{").client("ann").create("/x", "", Create::default()).is_err());
    }
}
