//! The offline check finds what was broken on purpose, and nothing in what is whole.

use std::fs;
use std::sync::Arc;

use conclave_core::apply::{Position, Tables, apply};
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Planner, Request, Work};
use conclave_core::{Table, ZnodeId, key, row};
use conclave_protocol::{Create, Nonce, Op, SessionId, Zxid};

use super::{Bench, CLUSTER, Change, flip, go_on, keep};
use crate::{Boot, Checkpoints, DirLock, Error, Options, Report, Severity, Store, check};

/// A small whole tree, as the planner makes it, closed: `/a`, `/a/b`, with data.
fn whole() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
    // The real boot: the check asks for it.
    let options = Options { boot: Boot::current(), ..super::options("") };
    let opened = Store::open(&lock, CLUSTER, &checkpoints, &options).unwrap();
    let mut bench = Bench { opened, checkpoints, dir };
    let model = MemTables::new(CLUSTER);
    let mut planner = Planner::new(1, model.snapshot(), model.kept(), Arc::new(NoPlugins)).unwrap();
    let genesis = Work::Genesis { plugins: Vec::new() };
    let genesis = Request { principal: String::new(), asked: Asked::Leader, fence: None, work: genesis };
    planner.plan(&genesis, 1_000).unwrap();
    for (nonce, path) in [(1_u128, "/a"), (2, "/a/b")] {
        let create = Create::new(path.parse().unwrap(), "a value that stands nowhere else in the file");
        let asked = Asked::Once { nonce: Nonce::new(nonce.to_be_bytes()), until_ms: 2_000 };
        let principal = "spiffe://test/client/a".to_owned();
        planner.plan(&Request { principal, asked, fence: None, work: Work::Op(Op::Create(create)) }, 1_000).unwrap();
    }
    let payload = planner.cut().unwrap().payload;
    let batch = |tables: &mut dyn Tables| apply(tables, Position { term: 1, index: 1 }, &payload);
    bench.opened.writer.write(batch, |_| Ok(())).unwrap();
    bench
}

fn checked(bench: Bench) -> Report {
    let dir = bench.close();
    check(dir.path(), &mut go_on).unwrap()
}

fn bad(report: &Report) -> Vec<&str> {
    report.findings.iter().filter(|one| one.severity > Severity::Note).map(|one| one.what.as_str()).collect()
}

#[test]
fn nothing_is_found_in_a_whole_directory() {
    let bench = whole();
    let made = bench.make();
    let local = bench.opened.writer.local().clone();
    let report = checked(bench);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.cluster.as_deref(), report.environment, report.znodes), (Some(CLUSTER), Some(1), 3));
    assert_eq!((report.local, report.checkpoint, report.rows), (Some(local), Some(made.position()), made.rows()));
    assert_eq!(report.zxid, Some(made.zxid()));
}

#[test]
fn a_directory_in_use_or_missing_is_refused() {
    let bench = whole();
    assert!(matches!(check(bench.dir.path(), &mut go_on), Err(Error::Locked { .. })));
    let missing = bench.dir.path().join("none");
    assert!(matches!(check(&missing, &mut go_on), Err(Error::Io { .. })));
    assert!(!missing.exists());
}

#[test]
fn the_check_changes_nothing() {
    let bench = whole();
    bench.make();
    let dir = bench.crash();
    let all = || {
        let mut files = Vec::new();
        let mut dirs = vec![dir.path().to_owned()];
        while let Some(next) = dirs.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    files.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        files.sort();
        files
    };
    let before = all();
    let report = check(dir.path(), &mut go_on).unwrap();
    assert_eq!(bad(&report), [""; 0], "not closed, and believed");
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(all(), before);
}

#[test]
fn a_damaged_row_and_its_consequences_are_found() {
    let bench = whole();
    let dir = bench.close();
    flip(dir.path(), b"a value that stands nowhere else in the file", 7);
    let report = check(dir.path(), &mut go_on).unwrap();
    let bad = bad(&report);
    assert_eq!(bad.iter().filter(|what| what.contains("is damaged")).count(), 2, "{bad:?}");
    assert!(bad.iter().any(|what| what.contains("come to the digest")), "{bad:?}");
}

#[test]
fn rows_that_do_not_fit_together_are_found() {
    let (a, b) = (ZnodeId(2), ZnodeId(3));
    let znode = |id| key::znode(id).to_vec();
    let session = row::Session {
        principal: String::new(),
        timeout_ms: 1,
        floor: 1,
        next: 1,
        owned: 2,
        owned_bytes: 0,
        reply_bytes: 0,
        calls: 0,
        parked: 0,
        packed: vec![],
    };
    let owned = row::encode(&row::Owned { path: "/a".parse().unwrap() });
    let state = row::encode(&row::State { znodes: 7, next_id: 2, ..row::State::default() });
    let kept = |lost, bytes| row::encode(&row::Kept { lost: Zxid(lost), bytes });
    type Break = (Table, Vec<u8>, Option<Vec<u8>>, &'static [&'static str]);
    let cases: Vec<Break> = vec![
        (Table::Data, znode(a), None, &["znode 2 should have 44 bytes"]),
        (Table::Data, znode(a), Some(vec![1]), &["znode 2 has 1 bytes of data, its stat says 44"]),
        (Table::Data, znode(ZnodeId(9)), Some(vec![1]), &["znode 9 has data and no row"]),
        (Table::Znode, znode(b), None, &["znode 3 has data and no row", "a child, znode 3, which has no row"]),
        (Table::Znode, znode(b), Some(vec![9, 9]), &["can't be read"]),
        (Table::Child, key::child(a, "b"), None, &["znode 3 is named 0 times", "znode 2 has not as many"]),
        (Table::Child, key::child(ZnodeId(1), "c"), Some(row::encode(&b)), &["its row says that its parent is 2"]),
        (Table::Child, key::child(a, "c"), Some(row::encode(&b)), &["znode 3 is named 2 times"]),
        (Table::Child, key::child(ZnodeId(9), "c"), Some(row::encode(&b)), &["child of znode 9, which has no row"]),
        (Table::Session, key::session(SessionId(4)).to_vec(), Some(row::encode(&session)), &["owns 0", "says 2"]),
        (Table::Reply, key::reply(SessionId(4), 1).to_vec(), Some(vec![1]), &["for session 4, which does not exist"]),
        (
            Table::Owned,
            key::owned(SessionId(4), a).to_vec(),
            Some(owned.clone()),
            &["/a belongs to session 4, which does not exist", "and is not its own"],
        ),
        (Table::Owned, key::owned(SessionId(4), ZnodeId(9)).to_vec(), Some(owned), &["znode 9", "has no row"]),
        (Table::Owned, vec![1], None, &[]),
        (Table::Change, key::KEPT.to_vec(), Some(kept(0, 7)), &["its first row says 7"]),
        (Table::Change, key::KEPT.to_vec(), Some(kept(2, 0)), &["up to 2 should not be", "its first row says 0"]),
        (Table::Change, key::change(Zxid(2)).to_vec(), None, &["the history has"]),
        // Of a version that kept no such row.
        (Table::Change, key::KEPT.to_vec(), None, &[]),
        (Table::State, key::STATE.to_vec(), Some(state), &["the state says 7", "2 is the next id"]),
    ];
    for (table, key, value, expected) in cases {
        let mut bench = whole();
        keep(&mut bench.opened.writer, 2, &[(table, &key, value.as_deref())]);
        let report = checked(bench);
        let bad = bad(&report);
        assert_eq!(bad.is_empty(), expected.is_empty(), "{table:?}: {bad:?}");
        for words in expected {
            assert!(bad.iter().any(|what| what.contains(words)), "{table:?}, {words}: {bad:?}");
        }
        assert!(!bad.iter().any(|what| what.contains("digest")), "the digest is right: {bad:?}");
    }
}

#[test]
fn an_ephemeral_znode_on_no_list_is_found() {
    let mut bench = whole();
    let snapshot = bench.opened.store.snapshot().unwrap();
    let old = conclave_core::view::Base::row(&snapshot, Table::Znode, &key::znode(ZnodeId(3))).unwrap().unwrap();
    drop(snapshot);
    let mut znode: row::Znode = row::decode(Table::Znode, &old).unwrap();
    znode.stat.owner = Some(SessionId(4));
    keep(&mut bench.opened.writer, 2, &[(Table::Znode, &key::znode(ZnodeId(3)), Some(&row::encode(&znode)))]);
    let report = checked(bench);
    assert!(bad(&report).iter().any(|what| what.contains("ephemeral znode 3 is 0 times")), "{:?}", bad(&report));
}

#[test]
fn many_findings_of_a_kind_are_summed_up() {
    let mut bench = whole();
    let keys: Vec<_> = (100..150).map(|id| key::znode(ZnodeId(id))).collect();
    let rows: Vec<Change<'_>> = keys.iter().map(|key| (Table::Data, &key[..], Some(&b"x"[..]))).collect();
    keep(&mut bench.opened.writer, 2, &rows);
    let report = checked(bench);
    assert_eq!(bad(&report).len(), 11);
    assert!(bad(&report).contains(&"data without a znode: 40 more"));
    assert_eq!(report.worst(), Some(Severity::Error));
}

#[test]
fn what_the_marker_leads_to_is_told() {
    let bench = whole();
    let dir = bench.close();
    fs::write(dir.path().join("marker"), "x").unwrap();
    let report = check(dir.path(), &mut go_on).unwrap();
    assert!(bad(&report)[0].contains("missing or unreadable: they will be thrown away"), "{report:?}");
    assert_eq!(report.rows, 0, "what is not believed is not read");

    let empty = tempfile::tempdir().unwrap();
    let report = check(empty.path(), &mut go_on).unwrap();
    assert_eq!(report.worst(), Some(Severity::Note));
}

#[test]
fn a_damaged_checkpoint_and_what_is_left_over_are_told() {
    let bench = whole();
    let path = bench.make().path().to_owned();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::create_dir(bench.dir.path().join("env-7")).unwrap();
    let report = checked(bench);
    assert_eq!(bad(&report).len(), 1, "{report:?}");
    assert!(bad(&report)[0].contains("is damaged"));
    assert!(report.findings.iter().any(|one| one.what.contains("env-7 is left over")));
    assert_eq!(report.checkpoint, None);
}
