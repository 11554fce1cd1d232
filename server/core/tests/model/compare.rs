//! The applied tables against the naive model, and against another member's.

use std::collections::BTreeMap;
use std::sync::Arc;

use conclave_core::apply::{Applied, Position, apply};
use conclave_core::digest::{Digest, RowHash};
use conclave_core::entry::Origin;
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Planner, Request, Work};
use conclave_core::query::{self, Stored, Walk};
use conclave_core::row::{self, Owned, Recorded, Remembered};
use conclave_core::view::{Base, Row};
use conclave_core::{Table, authorize, key, may_see};
use conclave_protocol::{
    AccessList, Delete, Detail, Nonce, Op, Outcome, Path, Permission, Prune, Query, Refusal, SessionId, TreeEntry,
    Value, Zxid, codec,
};

use super::act::PRINCIPALS;
use super::pair::of_session;
use super::reads::{plain, plain_refusal};
use super::support::nonce;
use super::tree::{MemTree, Told, allows};

fn all(base: &dyn Base, table: Table) -> Vec<Row> {
    base.scan(table, b"", None, usize::MAX).unwrap()
}

fn count(base: &dyn Base, table: Table) -> usize {
    all(base, table).len()
}

/// The list of this number.
fn list(base: &dyn Base, number: u32) -> AccessList {
    if number == 0 {
        return AccessList::open();
    }
    let row = base.row(Table::Acl, &key::acl(number)).unwrap().expect("a list that is named has a row");
    row::decode(Table::Acl, &row).unwrap()
}

/// Changes, with the lists instead of their numbers; and whoever may read by one of them may be told.
pub(crate) fn told(base: &dyn Base, changes: &[Recorded]) -> Vec<Told> {
    let told = changes.iter().map(|recorded| {
        let (acl, beside) = (list(base, recorded.acl), list(base, recorded.beside));
        for who in PRINCIPALS.into_iter().chain([""]) {
            let may = allows(&acl, who, Permission::Read) || allows(&beside, who, Permission::Read);
            assert_eq!(may_see(base, who, recorded).unwrap(), may);
        }
        (recorded.change.clone(), acl, beside)
    });
    told.collect()
}

/// Every row of every table is the same.
pub(crate) fn same_rows(base: &dyn Base, other: &dyn Base) {
    for table in Table::ALL {
        assert_eq!(all(base, table), all(other, table), "{}", table.name());
    }
}

/// What the rows say in themselves, and against the model.
pub(crate) fn rows(base: &dyn Base, kept: u128, model: &MemTree, ever: &[SessionId]) {
    let mut digest = Digest::default();
    for table in Table::ALL.into_iter().filter(|table| table.is_digested()) {
        all(base, table).iter().for_each(|(key, value)| digest.add(RowHash::of(table, key, value)));
    }
    assert_eq!(digest.0, kept, "the digest is the sum of the rows");
    let nodes = model.nodes.len();
    let state = query::state(base).unwrap();
    assert_eq!((state.zxid, state.next_id, state.znodes), (model.zxid, model.next_id, nodes as u64));
    assert_eq!((count(base, Table::Znode), count(base, Table::Child)), (nodes, nodes - 1));
    assert_eq!(count(base, Table::Data), model.nodes.values().filter(|node| !node.data.is_empty()).count());
    assert_eq!(count(base, Table::Owned), model.nodes.values().filter(|node| node.stat.owner.is_some()).count());
    lists(base, model);
    once_and_expiry(base, model);
    replies(base, model, ever);
}

fn lists(base: &dyn Base, model: &MemTree) {
    let numbers = 1..=query::state(base).unwrap().acls;
    let mut kept: Vec<AccessList> = numbers.map(|number| list(base, number)).collect();
    kept.sort();
    assert_eq!(kept, model.lists.iter().cloned().collect::<Vec<_>>(), "each list once");
    assert_eq!((count(base, Table::Acl), count(base, Table::AclIndex)), (kept.len(), kept.len()));
    for (path, node) in &model.nodes {
        let path = Path::parse(path).unwrap();
        let id = row::Znode { acl: 0, ..znode(base, node.id) };
        assert_eq!(id.stat, node.stat, "{path}");
        let number = znode(base, node.id).acl;
        assert_eq!(list(base, number), node.acl, "{path}");
        for who in PRINCIPALS.into_iter().chain([""]) {
            for permission in Permission::ALL {
                let allowed = authorize(base, who, permission, number, &path).is_ok();
                assert_eq!(allowed, allows(&node.acl, who, permission), "{who} {permission} {path}");
            }
        }
    }
}

fn znode(base: &dyn Base, id: u64) -> row::Znode {
    let row = base.row(Table::Znode, &id.to_be_bytes()).unwrap().expect("the model has it");
    row::decode(Table::Znode, &row).unwrap()
}

/// Every row of `Expiry` is for something that is there, at most one each, and says when.
fn once_and_expiry(base: &dyn Base, model: &MemTree) {
    let mut of_principals = BTreeMap::<[u8; 16], Remembered>::new();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for ((principal, bytes), once) in &model.once {
        let nonce = Nonce::new(*bytes);
        expected.push(key::expiry(once.until_ms, &key::once(principal, &nonce)));
        let stored = query::stored(base, &Origin::Once { principal: principal.clone(), nonce }).unwrap();
        let (zxid, outcome, bytes) = answered(stored).expect("it is remembered");
        assert_eq!((zxid, &outcome), (once.zxid, &once.outcome));
        let remembered = of_principals.entry(key::once_of(principal)).or_default();
        remembered.count += 1;
        remembered.bytes += bytes as u64;
    }
    let counts = all(base, Table::Once).into_iter().filter(|(key, _)| key.len() == 16);
    let counts = counts.map(|(key, value)| (key.try_into().unwrap(), row::decode(Table::Once, &value).unwrap()));
    assert_eq!(counts.collect::<BTreeMap<[u8; 16], Remembered>>(), of_principals);
    assert_eq!(count(base, Table::Once), model.once.len() + of_principals.len());
    let rows = all(base, Table::Expiry);
    for (path, node) in &model.nodes {
        assert_eq!(znode(base, node.id).expiry_ms, node.look_ms.unwrap_or(0), "{path}");
        if let Some(at) = node.look_ms {
            let key = key::expiry(at, &node.id.to_be_bytes());
            let (_, value) = rows.iter().find(|(row, _)| *row == key).expect("it is looked at");
            let Owned { path: kept } = row::decode(Table::Expiry, value).unwrap();
            assert_eq!(kept.as_str(), path);
            expected.push(key);
        }
    }
    expected.sort();
    assert_eq!(rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
}

fn replies(base: &dyn Base, model: &MemTree, ever: &[SessionId]) {
    let timeouts: Vec<(SessionId, u64)> = model.sessions.iter().map(|(id, s)| (*id, s.timeout_ms)).collect();
    assert_eq!(query::sessions(base).unwrap(), timeouts);
    for (id, session) in &model.sessions {
        let row = query::session(base, *id).unwrap().unwrap();
        assert_eq!((row.floor, row.next, &row.principal), (session.floor, session.next, &session.principal));
        let owned = model.owned(*id);
        assert_eq!((row.owned, row.owned_bytes == 0), (owned, owned == 0));
        let own_rows = base.scan(Table::Reply, &key::session(*id), None, 10_000).unwrap().len();
        assert_eq!(row.packed.len() + own_rows, session.replies.len());
        let mut bytes = 0;
        for sequence in 0..session.next + 2 {
            let stored = answered(query::stored(base, &of_session(*id, sequence)).unwrap());
            bytes += stored.as_ref().map_or(0, |(_, _, bytes)| *bytes as u64);
            let stored = stored.map(|(zxid, outcome, _)| (zxid, outcome));
            assert_eq!(stored, session.replies.get(&sequence).cloned());
        }
        assert_eq!(row.reply_bytes, bytes);
    }
    for id in ever.iter().filter(|id| !model.sessions.contains_key(id)) {
        assert_eq!(query::stored(base, &of_session(*id, 1)).unwrap(), Stored::SessionOver);
    }
}

/// A stored reply's zxid, outcome and bytes.
fn answered(stored: Stored) -> Option<(Zxid, Outcome, usize)> {
    match stored {
        Stored::Reply { zxid, outcome } => Some((zxid, plain(codec::decode(&outcome).unwrap()), outcome.len())),
        Stored::NotYet => None,
        Stored::SessionOver => panic!("the session is there"),
    }
}

/// Every query and a walk, as one principal: what a member answers is what the model answers.
pub(crate) fn reads(base: &dyn Base, model: &MemTree, who: &str) {
    let there = model.nodes.keys().map(|path| Path::parse(path).unwrap());
    let absent = ["/none", "/a/none/x", "/b/c/a/none"].map(|path| Path::parse(path).unwrap());
    let paths: Vec<Path> = there.chain(absent).collect();
    let ask = |query: Query| {
        let answer = query::answer(base, who, &query).unwrap();
        assert_eq!(answer.map_err(plain_refusal), model.answer(who, &query), "{who:?} {query:?}");
    };
    for (number, path) in paths.iter().enumerate() {
        ask(Query::Get { path: path.clone() });
        ask(Query::Exists { path: path.clone() });
        ask(Query::Count { path: path.clone() });
        ask(Query::Acl { path: path.clone() });
        let prefix = ["", "a", "b0", "c"][number % 4].to_owned();
        for after in [None, Some("a"), Some("b0000000000"), Some("zz")] {
            let (after, detail) = (after.map(str::to_owned), [Detail::Names, Detail::Stats, Detail::Data][number % 3]);
            ask(Query::Children { path: path.clone(), prefix: prefix.clone(), after: after.clone(), limit: 2, detail });
            let (path, prefix) = (path.clone(), String::new());
            ask(Query::Children { path, prefix, after, limit: u32::MAX, detail: Detail::Data });
        }
        walk(base, model, who, path, 1 + number % 5);
    }
    ask(Query::Many { paths: Vec::new() });
    ask(Query::Many { paths: paths.clone() });
    ask(Query::Many { paths: paths.iter().rev().take(4).cloned().collect() });
    let last = model.sessions.keys().last().copied();
    for session in model.sessions.keys().copied().chain([SessionId(77_777)]) {
        for limit in [0, 1, 2, u32::MAX] {
            ask(Query::Owned { session, after: None, limit });
            ask(Query::Owned { session, after: Some(model.next_id / 2), limit });
            ask(Query::Sessions { after: Some(session), limit });
            ask(Query::Sessions { after: None, limit });
        }
    }
    ask(Query::Sessions { after: last, limit: 9 });
}

fn walk(base: &dyn Base, model: &MemTree, who: &str, path: &Path, most: usize) {
    let mut walk = match Walk::new(base, who, path, true).unwrap() {
        Ok(walk) => walk,
        Err(refusal) => {
            let get = model.answer(who, &Query::Get { path: path.clone() });
            return assert_eq!(get, Err(plain_refusal(refusal)));
        }
    };
    let mut all: Vec<TreeEntry> = Vec::new();
    loop {
        let part = walk.next(base, most, 1_000).unwrap();
        assert!(part.len() <= most);
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    // Siblings in order of names, each followed by what is below it: as the model walks.
    assert_eq!(all, model.walk(who, path.as_str()), "{who:?} walks {path}");
}

/// Deletes a subtree on a copy, at once or in pieces: which znodes are left; none when it is refused.
pub(crate) fn deleted(
    tables: &MemTables,
    path: &Path,
    who: &str,
    at: Position,
    now_ms: u64,
    pieces: Option<u32>,
) -> Option<Vec<String>> {
    let mut tables = tables.clone();
    let mut planner = Planner::new(at.term, tables.snapshot(), tables.kept(), Arc::new(NoPlugins)).unwrap();
    let mut at = at;
    let until_ms = planner.time_ms().max(now_ms) + 1_000;
    for number in 0.. {
        let path = path.clone();
        let op = match pieces {
            None => Op::Delete(Delete { path, if_version: None, recursive: true }),
            Some(limit) => Op::Prune(Prune { path, limit }),
        };
        let asked = Asked::Once { nonce: nonce(1_000_000 + number), until_ms };
        let request = Request { principal: who.to_owned(), asked, fence: None, work: Work::Op(op) };
        planner.plan(&request, now_ms).unwrap();
        at.index += 1;
        let Ok(Applied::Done(entry)) = apply(&mut tables, at, &planner.cut().unwrap().payload) else {
            panic!("it does not apply");
        };
        let outcome: Outcome = codec::decode(&entry.transactions[0].outcome).unwrap();
        match outcome {
            Ok(Value::Pruned { more: true, count }) => assert_eq!(count, u64::from(pieces.unwrap())),
            Ok(_) => break,
            Err(Refusal::NotAllowed { .. }) => return None,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(tables.kept().digest, tables.digest().0);
    let walk = Walk::new(&tables, "", &Path::root(), false).unwrap();
    let left = walk.unwrap().next(&tables, usize::MAX, usize::MAX).unwrap();
    Some(left.into_iter().map(|entry| entry.path.as_str().to_owned()).collect())
}
