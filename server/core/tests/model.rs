//! Random histories, planned, cut, applied and planned again, against the naive model.
#![allow(clippy::unwrap_used)]

#[path = "model/tree.rs"]
mod tree;

mod support;

use std::collections::VecDeque;

use bytes::Bytes;
use conclave_core::Table;
use conclave_core::entry::{Entry, Origin};
use conclave_core::plan::{Asked, Request, Verdict, Work};
use conclave_core::query::{self, Stored};
use conclave_core::view::Base;
use conclave_protocol::{
    Answer, Call, Check, Create, Delete, Fence, Kind, Op, Outcome, Page, Path, Query, SessionId, Set, Step, codec,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use support::{ALICE, BOB, Member, nonce, own};
use tree::{Expected, MemTree};

/// What happens next; small numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Act {
    Open { nonce: u64, timeout_ms: u64 },
    Write { session: usize, sequence: i64, acknowledge: bool, stranger: bool, fence: Pick, op: Op },
    Once { nonce: u64, until: i64, fence: Pick, op: Op },
    Again { back: usize },
    Expire { session: usize },
    Stamp,
    Forget,
    Pass { ms: u64 },
    Back { ms: u64 },
    Cut,
    Apply,
    Rebase,
    Reset { same_term: bool },
}

/// Which fence a write carries.
#[derive(Clone, Debug)]
enum Pick {
    None,
    /// The zxid that created the znode, off by this much.
    Of {
        path: Path,
        off: u64,
    },
}

fn path() -> impl Strategy<Value = Path> {
    let name = prop_oneof![4 => "[abc]", 1 => Just("a0000000001".to_owned()), 1 => Just("b0000000000".to_owned())];
    vec(name, 0..4).prop_map(|names| Path::parse(&format!("/{}", names.join("/"))).unwrap())
}

fn data() -> impl Strategy<Value = Bytes> {
    // Long data makes long replies nowhere, but rows beyond the one-piece hash.
    prop_oneof![Just(Bytes::new()), "[xyz]{1,4}".prop_map(Bytes::from), Just(Bytes::from(vec![7; 900]))]
}

fn version() -> impl Strategy<Value = Option<u64>> {
    option::weighted(0.3, 0..3_u64)
}

fn a_create() -> impl Strategy<Value = Create> {
    (path(), data(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(path, data, ephemeral, sequential, parents)| Create {
            path,
            data,
            kind: Kind { ephemeral, sequential },
            parents,
        },
    )
}

fn a_set() -> impl Strategy<Value = Set> {
    (path(), data(), version()).prop_map(|(path, data, if_version)| Set { path, data, if_version })
}

fn a_delete() -> impl Strategy<Value = Delete> {
    (path(), version(), any::<bool>()).prop_map(|(path, if_version, recursive)| Delete { path, if_version, recursive })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (path(), version()).prop_map(|(path, if_version)| Step::Check(Check { path, if_version })),
        a_create().prop_map(Step::Create),
        a_set().prop_map(Step::Set),
        a_delete().prop_map(Step::Delete),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let call = || Op::Call(Call { plugin: "p".to_owned(), procedure: "q".to_owned(), args: Bytes::new() });
    prop_oneof![
        8 => a_create().prop_map(Op::Create),
        4 => a_set().prop_map(Op::Set),
        3 => a_delete().prop_map(Op::Delete),
        3 => vec(step(), 0..4).prop_map(Op::Multi),
        1 => Just(call()),
        1 => Just(Op::Close),
    ]
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        4 => Just(Pick::None),
        1 => (path(), 0..2_u64).prop_map(|(path, off)| Pick::Of { path, off }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let sequence = prop_oneof![8 => Just(0_i64), 1 => -3..0_i64, 1 => 1..3_i64];
    let write = (0..4_usize, sequence, any::<bool>(), prop::bool::weighted(0.05), pick(), op());
    prop_oneof![
        2 => (0..9_u64, 0..400_000_u64).prop_map(|(nonce, timeout_ms)| Act::Open { nonce, timeout_ms }),
        16 => write.prop_map(|(session, sequence, acknowledge, stranger, fence, op)| {
            Act::Write { session, sequence, acknowledge, stranger, fence, op }
        }),
        3 => (0..9_u64, -2_000..70_000_i64, pick(), op())
            .prop_map(|(nonce, until, fence, op)| Act::Once { nonce, until, fence, op }),
        2 => (0..9_usize).prop_map(|back| Act::Again { back }),
        1 => (0..4_usize).prop_map(|session| Act::Expire { session }),
        1 => Just(Act::Stamp),
        1 => Just(Act::Forget),
        1 => (0..40_000_u64).prop_map(|ms| Act::Pass { ms }),
        1 => (0..5_000_u64).prop_map(|ms| Act::Back { ms }),
        3 => Just(Act::Cut),
        3 => Just(Act::Apply),
        2 => Just(Act::Rebase),
        1 => any::<bool>().prop_map(|same_term| Act::Reset { same_term }),
    ]
}

/// The member and the model side by side.
struct Pair {
    member: Member,
    /// After the last planned transaction, after each cut, and after the last applied entry.
    model: MemTree,
    cut: VecDeque<(MemTree, Vec<Expected>)>,
    applied: MemTree,
    /// Transactions since the last cut.
    pending: Vec<Expected>,
    /// Requests that were planned and not applied, in order, with their zxids and times: a reset plans them again.
    open: Vec<(u64, Request, u64)>,
    asked: Vec<Request>,
    sessions: Vec<SessionId>,
}

impl Pair {
    fn new() -> Self {
        Self {
            member: Member::new(),
            model: MemTree::new(),
            cut: VecDeque::new(),
            applied: MemTree::new(),
            pending: Vec::new(),
            open: Vec::new(),
            asked: Vec::new(),
            sessions: Vec::new(),
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Open { nonce: number, timeout_ms } => {
                let asked = Asked::Once { nonce: nonce(*number), until_ms: self.member.now_ms + 30_000 };
                let work = Work::Open { timeout_ms: *timeout_ms };
                self.ask(Request { principal: ALICE.to_owned(), asked, fence: None, work });
            }
            Act::Write { session, sequence, acknowledge, stranger, fence, op } => {
                let session = self.session(*session);
                let next = self.model.sessions.get(&session).map_or(1, |session| session.next);
                let sequence = next.saturating_add_signed(*sequence);
                let floor = if *acknowledge { sequence } else { 0 };
                let asked = Asked::Session { session, sequence, floor };
                let principal = if *stranger { BOB } else { ALICE }.to_owned();
                self.ask(Request { principal, asked, fence: self.fence(fence), work: Work::Op(op.clone()) });
            }
            Act::Once { nonce: number, until, fence, op } => {
                let until_ms = self.member.now_ms.saturating_add_signed(*until);
                let asked = Asked::Once { nonce: nonce(*number), until_ms };
                let fence = self.fence(fence);
                self.ask(Request { principal: BOB.to_owned(), asked, fence, work: Work::Op(op.clone()) });
            }
            Act::Again { back } => {
                let again = self.asked.len().checked_sub(back + 1).map(|at| self.asked[at].clone());
                again.into_iter().for_each(|request| self.ask(request));
            }
            Act::Expire { session } => self.ask(own(Work::Expire { session: self.session(*session) })),
            Act::Stamp => self.ask(own(Work::Stamp)),
            Act::Forget => self.ask(own(Work::Forget)),
            Act::Pass { ms } => self.member.now_ms += ms,
            Act::Back { ms } => self.member.now_ms = self.member.now_ms.saturating_sub(*ms),
            Act::Cut => self.cut(),
            Act::Apply => self.apply(),
            Act::Rebase => self.member.planner.rebase(self.member.tables.snapshot()).unwrap(),
            Act::Reset { same_term } => self.reset(*same_term),
        }
        assert_eq!(self.member.planner.last(), self.model.zxid);
        assert_eq!(self.member.planner.pending(), self.pending.len());
    }

    fn session(&self, number: usize) -> SessionId {
        let ever = self.sessions.len();
        if ever == 0 { SessionId(77_777) } else { self.sessions[ever - 1 - number % ever] }
    }

    fn fence(&self, pick: &Pick) -> Option<Fence> {
        let Pick::Of { path, off } = pick else { return None };
        let mut zxid = self.model.nodes.get(path.as_str()).map_or(self.model.zxid, |node| node.stat.created);
        zxid.0 += off;
        Some(Fence { path: path.clone(), zxid })
    }

    fn ask(&mut self, request: Request) {
        self.asked.push(request.clone());
        self.plan(request, self.member.now_ms);
    }

    fn plan(&mut self, request: Request, now_ms: u64) {
        let verdict = self.member.planner.plan(&request, now_ms).unwrap();
        let (expected, transaction) = self.model.plan(&request, now_ms);
        assert_eq!(verdict, expected, "{request:?}");
        if let Verdict::Planned(zxid) = verdict {
            if matches!(request.work, Work::Open { .. })
                && transaction.as_ref().is_some_and(|t| matches!(t.outcome, Some(Ok(_))))
            {
                self.sessions.push(SessionId(zxid.0));
            }
            self.open.push((zxid.0, request, now_ms));
            self.pending.extend(transaction);
        }
    }

    fn cut(&mut self) {
        if self.member.cut() {
            self.cut.push_back((self.model.clone(), std::mem::take(&mut self.pending)));
        } else {
            assert!(self.pending.is_empty());
        }
    }

    fn apply(&mut self) {
        let Some((model, expected)) = self.cut.pop_front() else { return };
        let entry = self.member.apply_one().unwrap();
        assert_eq!(transactions(&entry), expected);
        assert!(entry.time_ms <= model.now_ms, "a stamp is never ahead of what was passed in");
        self.open.retain(|(zxid, ..)| *zxid > model.zxid.0);
        self.applied = model;
        let kept = self.member.tables.kept().digest;
        assert_eq!((kept, entry.digest), (self.member.tables.digest().0, kept), "planned, applied and summed up");
        self.compare();
    }

    fn reset(&mut self, same_term: bool) {
        self.member.reset();
        if same_term {
            self.member.term -= 1;
            self.member.planner = support::planner(&self.member.tables, self.member.term);
        }
        self.model = self.applied.clone();
        // What the model knows of time beyond the stamp is lost with the planner.
        self.model.now_ms = query::state(&self.member.tables).unwrap().time_ms;
        self.cut.clear();
        self.pending.clear();
        for (_, request, now_ms) in std::mem::take(&mut self.open) {
            self.plan(request, now_ms);
        }
    }

    /// The applied tables against the applied model.
    fn compare(&self) {
        let (base, model) = (&self.member.tables, &self.applied);
        let mut seen = 0;
        let mut below = vec![Path::root()];
        while let Some(path) = below.pop() {
            let node = &model.nodes[path.as_str()];
            let answer = query::answer(base, ALICE, &Query::Get { path: path.clone() }).unwrap().unwrap();
            assert_eq!(answer, Answer::Znode { data: node.data.clone(), stat: node.stat }, "{path}");
            let query = Query::Children { path: path.clone(), after: None, limit: 1_000, data: true };
            let Answer::Page(Page { children, more: false }) = query::answer(base, ALICE, &query).unwrap().unwrap()
            else {
                panic!("the children of {path} are no whole page");
            };
            assert_eq!(children.len() as u64, node.stat.children);
            below.extend(children.iter().map(|child| path.join(&child.name).unwrap()));
            seen += 1;
        }
        assert_eq!(seen, model.nodes.len());
        assert_eq!(query::state(base).unwrap().znodes, seen as u64);
        assert_eq!(query::state(base).unwrap().zxid, model.zxid);
        assert_eq!((base.count(Table::Znode), base.count(Table::Child)), (seen, seen - 1));
        assert_eq!(base.count(Table::Data), model.nodes.values().filter(|node| !node.data.is_empty()).count());
        assert_eq!(base.count(Table::Owned), model.nodes.values().filter(|node| node.stat.owner.is_some()).count());
        assert_eq!(base.count(Table::Once), model.once.len());
        assert_eq!(base.count(Table::Expiry), model.once.len());
        self.compare_replies();
    }

    fn compare_replies(&self) {
        let (base, model) = (&self.member.tables, &self.applied);
        let timeouts: Vec<(SessionId, u64)> = model.sessions.iter().map(|(id, s)| (*id, s.timeout_ms)).collect();
        assert_eq!(query::sessions(base).unwrap(), timeouts);
        for (id, session) in &model.sessions {
            let row = query::session(base, *id).unwrap().unwrap();
            assert_eq!((row.floor, row.next, &row.principal), (session.floor, session.next, &session.principal));
            let owned = model.nodes.values().filter(|node| node.stat.owner == Some(*id)).count();
            assert_eq!((row.owned, row.owned_bytes == 0), (owned as u64, owned == 0));
            let bytes: usize = session.replies.values().map(|(_, outcome)| codec::encode(outcome).len()).sum();
            assert_eq!(row.reply_bytes, bytes as u64);
            let own_rows = base.scan(Table::Reply, &id.0.to_be_bytes(), None, 10_000).unwrap().len();
            assert_eq!(row.packed.len() + own_rows, session.replies.len());
            for sequence in 0..session.next + 2 {
                let stored = query::stored(base, &Origin::Session { session: *id, sequence }).unwrap();
                assert_eq!(told(stored), session.replies.get(&sequence).cloned());
            }
        }
        for id in self.sessions.iter().filter(|id| !model.sessions.contains_key(id)) {
            let stored = query::stored(base, &Origin::Session { session: *id, sequence: 1 }).unwrap();
            assert_eq!(stored, Stored::SessionOver);
        }
        for ((principal, bytes), once) in &model.once {
            let nonce = conclave_protocol::Nonce::new(*bytes);
            let stored = query::stored(base, &Origin::Once { principal: principal.clone(), nonce }).unwrap();
            assert_eq!(told(stored), Some((once.zxid, once.outcome.clone())));
        }
    }
}

fn told(stored: Stored) -> Option<(conclave_protocol::Zxid, Outcome)> {
    match stored {
        Stored::Reply { zxid, outcome } => Some((zxid, codec::decode(&outcome).unwrap())),
        Stored::NotYet => None,
        Stored::SessionOver => panic!("the session is there"),
    }
}

fn transactions(entry: &Entry) -> Vec<Expected> {
    let numbered = entry.numbered().map(|(zxid, transaction)| Expected {
        zxid,
        origin: transaction.origin.clone(),
        changes: transaction.changes.clone(),
        outcome: (!transaction.outcome.is_empty()).then(|| codec::decode(&transaction.outcome).unwrap()),
    });
    numbered.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_planner_tables_and_model_agree(acts in vec(act(), 1..120)) {
        let mut pair = Pair::new();
        pair.act(&Act::Open { nonce: 100, timeout_ms: 10_000 });
        for act in &acts {
            pair.act(act);
        }
        pair.act(&Act::Cut);
        while !pair.cut.is_empty() {
            pair.act(&Act::Apply);
        }
        pair.act(&Act::Rebase);
        prop_assert_eq!(pair.member.planner.overlay_rows(), 0);
        prop_assert_eq!(&pair.applied.nodes, &pair.model.nodes);
        pair.compare();
    }
}
