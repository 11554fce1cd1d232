//! The tables agree with those in memory, whatever is written, scanned and applied.

use std::sync::Arc;

use bytes::Bytes;
use conclave_core::apply::{Position, Tables, apply};
use conclave_core::digest::RowHash;
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Planner, Request, Work};
use conclave_core::view::Base;
use conclave_core::{Fault, Table};
use conclave_protocol::{
    AccessList, Check, Condition, Create, Delete, Edit, Grant, Kind, Nonce, Op, Path, Permissions, Prune, Set, SetAcl,
    Step, Update, Who,
};
use proptest::prelude::*;

use super::{CLUSTER, content, go_on, open, options, put};
use crate::{Checkpoints, DirLock, Opened, Store};

/// Short keys of few bytes, so that they meet; 0 and 255 for the ends of ranges.
fn some_key(least: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 127, 255]), least..5)
}

fn some_table() -> impl Strategy<Value = Table> {
    prop::sample::select(vec![Table::Data, Table::Child, Table::Change])
}

type Write = (Table, Vec<u8>, Option<Vec<u8>>);

/// A batch of writes; three in ten are deletes.
fn some_batch() -> impl Strategy<Value = Vec<Write>> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..300));
    prop::collection::vec((some_table(), some_key(1), value), 1..20)
}

fn write_all(tables: &mut dyn Tables, batch: &[Write]) -> Result<Vec<Option<RowHash>>, Fault> {
    batch.iter().map(|(table, key, value)| tables.write(*table, key, value.as_deref())).collect()
}

/// What a writer sees in the middle of its transaction: a row, and the length of the one after it.
type Read = (Option<Bytes>, Option<(Vec<u8>, usize)>);

fn read_all(tables: &dyn Tables, keys: &[(Table, Vec<u8>)]) -> Result<Vec<Read>, Fault> {
    keys.iter().map(|(table, key)| Ok((tables.value(*table, key)?, tables.after(*table, key)?))).collect()
}

/// Open to all, or closed to somebody.
fn some_list() -> impl Strategy<Value = AccessList> {
    let grant = |who: &str, may| Grant { who: Who::Principal(who.to_owned()), may };
    let reader = Grant { who: Who::Anyone, may: "r".parse::<Permissions>().unwrap() };
    let mine = AccessList(vec![grant("spiffe://test/client/a", Permissions::ALL), reader]);
    let theirs = AccessList(vec![grant("spiffe://test/client/b", Permissions::ALL)]);
    prop::sample::select(vec![AccessList::open(), mine.clone(), mine, theirs])
}

/// Writes of every kind below a few paths; many are refused, which are transactions too.
fn some_op() -> impl Strategy<Value = Op> {
    let path =
        prop::sample::select(vec!["/a", "/a/b", "/a/b/c", "/d", "/d/e"]).prop_map(|p| p.parse::<Path>().unwrap());
    let data = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    (path, data, some_list(), 0..9_u8).prop_map(|(path, data, acl, which)| match which {
        0 | 1 => Op::Create(Create { parents: which == 1, ..Create::new(path, data) }),
        2 => {
            let kind = Kind { container: true, ttl_ms: Some(5_000), ..Kind::default() };
            Op::Create(Create { kind, or_set: true, acl: Some(acl), ..Create::new(path, data) })
        }
        3 => Op::Set(Set { path, data, if_version: None }),
        4 => Op::Update(Update { path, edit: Edit::Append(data), if_version: None, or_create: true }),
        5 => Op::Acl(SetAcl { path, acl, if_acl_version: None }),
        6 => Op::Prune(Prune { path, limit: 1 }),
        7 => {
            let check = Check { path: path.clone(), condition: Condition::Children { least: 1, most: 9 } };
            let set = Set { path, data, if_version: None };
            Op::Multi(vec![Step::Check(check), Step::Set(set)])
        }
        _ => Op::Delete(Delete { path, if_version: None, recursive: true }),
    })
}

fn once(op: Op, nonce: u128) -> Request {
    let asked = Asked::Once { nonce: Nonce::new(nonce.to_be_bytes()), until_ms: 2_000 };
    Request { principal: "spiffe://test/client/a".to_owned(), asked, fence: None, work: Work::Op(op) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_and_scans_agree_with_tables_in_memory(
        batches in prop::collection::vec(some_batch(), 1..8),
        scans in prop::collection::vec((some_table(), some_key(0), prop::option::of(some_key(0)), 0..8_usize), 1..30),
        reads in prop::collection::vec((some_table(), some_key(0)), 1..9),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let Opened { store, mut writer, .. } = open(dir.path());
        let mut model = MemTables::new(CLUSTER);
        for batch in &batches {
            let both = |tables: &mut dyn Tables| Ok((write_all(tables, batch)?, read_all(tables, &reads)?));
            let seen = writer.write(both, |_| Ok(())).unwrap();
            prop_assert_eq!(seen, both(&mut model).unwrap());
        }
        let snapshot = store.snapshot().unwrap();
        for (table, prefix, after, limit) in &scans {
            let after = after.as_deref();
            let found = snapshot.scan(*table, prefix, after, *limit).unwrap();
            prop_assert_eq!(found, model.scan(*table, prefix, after, *limit).unwrap());
            prop_assert_eq!(snapshot.row(*table, prefix).unwrap(), model.row(*table, prefix).unwrap());
        }
        prop_assert_eq!(snapshot.scrub().unwrap(), model.digest());
    }

    #[test]
    fn entries_applied_here_and_in_memory_come_to_the_same(
        entries in prop::collection::vec(prop::collection::vec(some_op(), 1..6), 1..10),
        entries_in_a_batch in 1..4_usize,
        reopen in any::<bool>(),
        installed in any::<bool>(),
    ) {
        let (dir, shelf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut opened = open(dir.path());
        let mut model = MemTables::new(CLUSTER);
        let mut planner = Planner::new(1, model.snapshot(), model.kept(), Arc::new(NoPlugins)).unwrap();
        let genesis = Work::Genesis { plugins: Vec::new() };
        let genesis = Request { principal: String::new(), asked: Asked::Leader, fence: None, work: genesis };
        planner.plan(&genesis, 1_000).unwrap();
        let mut payloads = vec![planner.cut().unwrap().payload];
        let mut nonce = 0;
        for ops in entries {
            for op in ops {
                nonce += 1;
                planner.plan(&once(op, nonce), 1_000).unwrap();
            }
            payloads.push(planner.cut().unwrap().payload);
        }
        let log: Vec<_> = (1..).map(|index| Position { term: 1, index }).zip(&payloads).collect();
        for batch in log.chunks(entries_in_a_batch) {
            let apply_all = |tables: &mut dyn Tables| {
                batch.iter().map(|(at, payload)| apply(tables, *at, payload)).collect::<Result<Vec<_>, _>>()
            };
            let applied = opened.writer.write(apply_all, |_| Ok(())).unwrap();
            prop_assert_eq!(applied, apply_all(&mut model).unwrap());
            prop_assert_eq!(opened.writer.local(), model.kept());
        }
        if reopen {
            drop(opened);
            opened = open(dir.path());
            prop_assert_eq!(opened.writer.local(), model.kept());
        }
        if installed {
            let lock = DirLock::acquire(shelf.path()).unwrap();
            let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
            let made = checkpoints.make(&opened.store, &mut go_on).unwrap();
            // Into tables that hold something else, and into none.
            let other = tempfile::tempdir().unwrap();
            let mut behind = open(other.path());
            put(&mut behind.writer, 1, &[(b"something else", b"x")]);
            behind.writer.install(&made, &mut go_on).unwrap();
            prop_assert_eq!(content(&behind.store), content(&opened.store));
            prop_assert_eq!(checkpoints.make(&behind.store, &mut go_on).unwrap().id(), made.id());
            opened = Store::open(&lock, CLUSTER, &checkpoints, &options("boot")).unwrap();
            prop_assert_eq!(opened.rebuilt_from, made.local().applied);
        }
        let snapshot = opened.store.snapshot().unwrap();
        prop_assert_eq!(&snapshot.local().unwrap(), model.kept());
        prop_assert_eq!(snapshot.scrub().unwrap().0, model.kept().digest);
        prop_assert_eq!(snapshot.zxid().unwrap(), planner.last());
        for table in Table::ALL {
            let rows = |base: &dyn Base| base.scan(table, b"", None, usize::MAX).unwrap();
            prop_assert_eq!(rows(&snapshot), rows(&model));
        }
    }
}
