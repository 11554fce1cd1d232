//! A member in memory: tables, a planner over them, and the entries that are cut and not yet applied.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod back;
pub(crate) mod scripts;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::{Applied, Position, apply};
use conclave_core::entry::Entry;
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Cut, Install, Planner, Request, Verdict, Work};
use conclave_protocol::{
    AccessList, Create, Delete, Fence, Grant, Kind, Nonce, Op, Outcome, Path, Refusal, SessionId, Set, SetAcl, Value,
    Who, Zxid, codec,
};

pub(crate) const ALICE: &str = "spiffe://test/client/alice";
pub(crate) const BOB: &str = "spiffe://test/client/bob";
pub(crate) const CAROL: &str = "spiffe://test/client/carol";

pub(crate) struct Member {
    pub(crate) tables: MemTables,
    pub(crate) planner: Planner,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) cuts: VecDeque<Cut>,
    pub(crate) now_ms: u64,
}

impl Member {
    /// With a root, at zxid 1.
    pub(crate) fn new() -> Self {
        let tables = MemTables::with_root("test", Vec::new()).unwrap();
        let planner = planner(&tables, 2);
        Self { tables, planner, term: 2, index: 1, cuts: VecDeque::new(), now_ms: 1_000 }
    }

    /// With these plugins, run by these scripts.
    pub(crate) fn with_plugins(plugins: Vec<Install>, scripts: &Arc<scripts::Scripts>) -> Self {
        let tables = MemTables::with_plugins("test", plugins, Arc::clone(scripts) as _).unwrap();
        let planner = Planner::new(2, tables.snapshot(), tables.kept(), Arc::clone(scripts) as _).unwrap();
        Self { tables, planner, term: 2, index: 1, cuts: VecDeque::new(), now_ms: 1_000 }
    }

    pub(crate) fn plan(&mut self, request: &Request) -> Verdict {
        self.planner.plan(request, self.now_ms).unwrap()
    }

    /// Plans what must be planned.
    pub(crate) fn planned(&mut self, request: &Request) -> Zxid {
        match self.plan(request) {
            Verdict::Planned(zxid) => zxid,
            other => panic!("{request:?} gave {other:?}"),
        }
    }

    pub(crate) fn cut(&mut self) -> bool {
        let cut = self.planner.cut();
        let any = cut.is_some();
        self.cuts.extend(cut);
        any
    }

    pub(crate) fn apply(&mut self, payload: &[u8]) -> Result<Applied, Fault> {
        self.index += 1;
        apply(&mut self.tables, Position { term: self.term, index: self.index }, payload)
    }

    /// Applies the oldest entry that is cut.
    pub(crate) fn apply_one(&mut self) -> Option<Entry> {
        let cut = self.cuts.pop_front()?;
        match self.apply(&cut.payload).unwrap() {
            Applied::Done(entry) => {
                assert_eq!(entry.last(), cut.last);
                assert_eq!(entry.transactions.len(), cut.transactions);
                Some(entry)
            }
            Applied::Void => panic!("an entry that was planned on this state is void"),
        }
    }

    /// Cuts and applies all that is planned, and gives the outcome of the last transaction.
    pub(crate) fn settle(&mut self) -> Option<Outcome> {
        self.cut();
        let mut outcome = None;
        while let Some(entry) = self.apply_one() {
            let bytes = &entry.transactions.last().unwrap().outcome;
            outcome = (!bytes.is_empty()).then(|| codec::decode(bytes).unwrap());
        }
        self.planner.rebase(self.tables.snapshot()).unwrap();
        outcome
    }

    /// Plans and applies.
    pub(crate) fn run(&mut self, request: &Request) -> Outcome {
        self.planned(request);
        self.settle().unwrap()
    }

    /// Plans and applies what must not be refused.
    pub(crate) fn done(&mut self, request: &Request) -> Value {
        self.run(request).unwrap()
    }

    /// Opens a session and applies that.
    pub(crate) fn open(&mut self, principal: &str) -> SessionId {
        let nonce = 1_000_000 + self.planner.last().0;
        match self.run(&open(principal, nonce, self.now_ms + 1)) {
            Ok(Value::Opened { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    /// A planner of the next term over what is applied; what was planned beyond is lost.
    pub(crate) fn reset(&mut self) {
        self.term += 1;
        self.cuts.clear();
        self.planner = planner(&self.tables, self.term);
    }
}

pub(crate) fn planner(tables: &MemTables, term: u64) -> Planner {
    Planner::new(term, tables.snapshot(), tables.kept(), Arc::new(NoPlugins)).unwrap()
}

pub(crate) fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

pub(crate) fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::new(bytes)
}

pub(crate) fn open(principal: &str, number: u64, until_ms: u64) -> Request {
    let asked = Asked::Once { nonce: nonce(number), until_ms };
    Request { principal: principal.to_owned(), asked, fence: None, work: Work::Open { timeout_ms: 10_000 } }
}

pub(crate) fn once(number: u64, until_ms: u64, op: Op) -> Request {
    let asked = Asked::Once { nonce: nonce(number), until_ms };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) }
}

pub(crate) fn write(session: SessionId, sequence: u64, floor: u64, op: Op) -> Request {
    let asked = Asked::Session { session, sequence, floor, completed: Vec::new() };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) }
}

/// The same, asked by somebody else.
pub(crate) fn by(principal: &str, request: Request) -> Request {
    Request { principal: principal.to_owned(), ..request }
}

pub(crate) fn fenced(request: Request, text: &str, zxid: Zxid) -> Request {
    Request { fence: Some(Fence { path: path(text), zxid }), ..request }
}

pub(crate) fn own(work: Work) -> Request {
    Request { principal: String::new(), asked: Asked::Leader, fence: None, work }
}

pub(crate) fn create(text: &str) -> Op {
    Op::Create(Create::new(path(text), Bytes::new()))
}

/// A list such as `anyone:r alice:crwda`.
pub(crate) fn acl(text: &str) -> AccessList {
    let grants = text.split_whitespace().map(|grant| {
        let (who, may) = grant.split_once(':').unwrap();
        let who = match who {
            "anyone" => Who::Anyone,
            name => Who::Principal(format!("spiffe://test/client/{name}")),
        };
        Grant { who, may: may.parse().unwrap() }
    });
    AccessList(grants.collect())
}

pub(crate) fn set_acl(text: &str, list: &str) -> Op {
    Op::Acl(SetAcl { path: path(text), acl: acl(list), if_acl_version: None })
}

pub(crate) fn ephemeral(text: &str) -> Op {
    let kind = Kind { ephemeral: true, ..Kind::default() };
    Op::Create(Create { kind, ..Create::new(path(text), Bytes::from_static(b"e")) })
}

pub(crate) fn set(text: &str, data: &[u8]) -> Op {
    Op::Set(Set { path: path(text), data: Bytes::copy_from_slice(data), if_version: None })
}

pub(crate) fn delete(text: &str, recursive: bool) -> Op {
    Op::Delete(Delete { path: path(text), if_version: None, recursive })
}

pub(crate) fn code(outcome: &Outcome) -> &'static str {
    outcome.as_ref().err().map_or("done", Refusal::code)
}

/// A call without arguments.
pub(crate) fn call(plugin: &str, procedure: &str) -> conclave_protocol::Call {
    conclave_protocol::Call {
        plugin: plugin.to_owned(),
        procedure: procedure.to_owned(),
        args: Bytes::new(),
        root: Path::root(),
    }
}
