//! A member and the naive model side by side: every act on both, every difference an end.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use conclave_core::apply::{Applied, Position};
use conclave_core::entry::{Entry, Origin};
use conclave_core::memory::{MemTables, NoPlugins};
use conclave_core::plan::{Asked, Cut, Planner, Request, Verdict, Work};
use conclave_core::query;
use conclave_core::view::Base;
use conclave_protocol::limits::Limits;
use conclave_protocol::{Condition, Edit, Fence, Op, Path, SessionId, Step, Zxid, codec};

use super::act::{Act, PRINCIPALS, Pick, SAME, paths, there};
use super::compare;
use super::reads::plain;
use super::support::back::Back;
use super::support::{nonce, own};
use super::tree::{Expected, MemTree};

pub(crate) struct Pair<B> {
    back: B,
    /// A follower in memory: it applies the same entries.
    follower: MemTables,
    planner: Planner,
    at: Position,
    cuts: VecDeque<Cut>,
    now_ms: u64,
    limits: Limits,
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
    /// What the transactions came to.
    seen: Vec<String>,
}

impl<B: Back> Pair<B> {
    /// Over empty tables, with a root.
    pub(crate) fn new(mut back: B, cluster: &str) -> Self {
        let mut follower = MemTables::new(cluster);
        let at = Position { term: 1, index: 1 };
        let mut planner = Self::planner(&back, 1);
        planner.plan(&own(Work::Genesis { plugins: Vec::new() }), 0).unwrap();
        let genesis = planner.cut().unwrap().payload;
        assert_eq!(back.apply(at, &genesis), follower.apply(at, &genesis));
        let mut pair = Self {
            planner: Self::planner(&back, 2),
            back,
            follower,
            at: Position { term: 2, index: 1 },
            cuts: VecDeque::new(),
            now_ms: 1_000,
            limits: Limits::default(),
            model: MemTree::new(),
            cut: VecDeque::new(),
            applied: MemTree::new(),
            pending: Vec::new(),
            open: Vec::new(),
            asked: Vec::new(),
            sessions: Vec::new(),
            seen: Vec::new(),
        };
        for (nonce, who) in [(100, 0), (101, 1)] {
            pair.act(&Act::Open { nonce, timeout_ms: 10_000, who });
        }
        pair
    }

    fn planner(back: &B, term: u64) -> Planner {
        Planner::new(term, back.snapshot(), &back.kept(), Arc::new(NoPlugins)).unwrap()
    }

    pub(crate) fn act(&mut self, act: &Act) {
        match act {
            Act::Open { nonce: number, timeout_ms, who } => {
                let asked = Asked::Once { nonce: nonce(*number), until_ms: self.now_ms + 30_000 };
                let work = Work::Open { timeout_ms: *timeout_ms };
                self.ask(Request { principal: PRINCIPALS[*who].to_owned(), asked, fence: None, work });
            }
            Act::Write { session, sequence, acknowledge, stranger, fence, op } => {
                let session = self.session(*session);
                let row = self.model.sessions.get(&session);
                let next = row.map_or(1, |session| session.next);
                let own = row.map_or(PRINCIPALS[0], |session| &session.principal);
                let principal = if *stranger { PRINCIPALS[2] } else { own }.to_owned();
                let sequence = next.saturating_add_signed(*sequence);
                let floor = if *acknowledge { sequence } else { 0 };
                let asked = Asked::Session { session, sequence, floor, completed: Vec::new() };
                self.ask(Request { principal, asked, fence: self.fence(fence), work: Work::Op(self.filled(op)) });
            }
            Act::Once { nonce: number, until, who, fence, op } => {
                let until_ms = self.now_ms.saturating_add_signed(*until);
                let asked = Asked::Once { nonce: nonce(*number), until_ms };
                let (principal, fence) = (PRINCIPALS[*who].to_owned(), self.fence(fence));
                self.ask(Request { principal, asked, fence, work: Work::Op(self.filled(op)) });
            }
            Act::Again { back } => {
                let again = self.asked.len().checked_sub(back + 1).map(|at| self.asked[at].clone());
                again.into_iter().for_each(|request| self.ask(request));
            }
            Act::Expire { session } => self.ask(own(Work::Expire { session: self.session(*session) })),
            Act::Stamp => self.ask(own(Work::Stamp)),
            Act::Sweep => self.ask(own(Work::Sweep)),
            Act::Pass { ms } => self.now_ms += ms,
            Act::Back { ms } => self.now_ms = self.now_ms.saturating_sub(*ms),
            Act::Limits(limits) => self.set_limits(*limits),
            Act::Cut => self.cut(),
            Act::Apply => self.apply(),
            Act::Rebase => self.planner.rebase(self.back.snapshot()).unwrap(),
            Act::Reset { same_term } => self.reset(*same_term),
        }
        assert_eq!(self.planner.last(), self.model.zxid);
        assert_eq!(self.planner.pending(), self.pending.len());
    }

    /// Applies all that is planned, and compares everything; gives what the transactions came to.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.cut();
        while !self.cut.is_empty() {
            self.apply();
        }
        self.planner.rebase(self.back.snapshot()).unwrap();
        assert_eq!(self.planner.overlay_rows(), 0);
        assert_eq!(self.applied.nodes, self.model.nodes);
        for who in PRINCIPALS.into_iter().chain([""]) {
            compare::reads(&*self.back.snapshot(), &self.applied, who);
        }
        for who in PRINCIPALS {
            self.whoever_may_delete_everything_piece_by_piece_leaves_nothing(who);
        }
        self.seen
    }

    fn session(&self, number: usize) -> SessionId {
        let ever = self.sessions.len();
        if ever == 0 { SessionId(77_777) } else { self.sessions[ever - 1 - number % ever] }
    }

    fn fence(&self, pick: &Pick) -> Option<Fence> {
        let Pick::Of { path, off } = pick else { return None };
        let path = there(path, self.model.nodes.keys());
        Some(Fence { zxid: self.created(&path, *off), path })
    }

    fn created(&self, path: &Path, off: u64) -> Zxid {
        let node = self.model.nodes.get(path.as_str());
        Zxid(node.map_or(self.model.zxid, |node| node.stat.created).0 + off)
    }

    /// With what stands for paths, sessions, zxids and data replaced by those of this moment.
    fn filled(&self, op: &Op) -> Op {
        let session = |number: SessionId| self.session(usize::try_from(number.0).unwrap());
        let data = |data: &Bytes, path: &Path| match self.model.nodes.get(path.as_str()) {
            Some(node) if data == SAME => node.data.clone(),
            _ => data.clone(),
        };
        let edit = |edit: &mut Edit, path: &Path| {
            if let Edit::Swap { expected, .. } = edit {
                *expected = data(expected, path);
            }
        };
        let mut op = op.clone();
        for path in paths(&mut op) {
            *path = there(path, self.model.nodes.keys());
        }
        match &mut op {
            Op::End(number) => *number = session(*number),
            Op::Update(update) => edit(&mut update.edit, &update.path),
            Op::Multi(steps) => {
                for step in steps {
                    match step {
                        Step::Update(update) => edit(&mut update.edit, &update.path),
                        Step::Check(check) => match &mut check.condition {
                            Condition::Owner(number) => {
                                let owner = self.model.nodes.get(check.path.as_str()).and_then(|node| node.stat.owner);
                                *number = owner.filter(|_| number.0 < 2).unwrap_or_else(|| session(*number));
                            }
                            Condition::Created(zxid) => *zxid = self.created(&check.path, zxid.0),
                            Condition::Data(expected) => *expected = data(expected, &check.path),
                            _ => {}
                        },
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        op
    }

    fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.model.limits = limits;
        self.planner.set_limits(limits);
    }

    fn ask(&mut self, request: Request) {
        self.asked.push(request.clone());
        self.plan(request, self.now_ms);
    }

    fn plan(&mut self, request: Request, now_ms: u64) {
        let verdict = self.planner.plan(&request, now_ms).unwrap();
        let (expected, transaction) = self.model.plan(&request, now_ms);
        assert_eq!(verdict, expected, "{request:?}");
        if let Verdict::Planned(zxid) = verdict {
            if matches!(request.work, Work::Open { .. })
                && transaction.as_ref().is_some_and(|t| matches!(t.outcome, Some(Ok(_))))
            {
                self.sessions.push(SessionId(zxid.0));
            }
            let told = transaction.as_ref().map(|transaction| seen(&request.work, transaction));
            self.seen.extend(told.into_iter().flatten());
            self.pending.extend(transaction);
            self.open.push((zxid.0, request, now_ms));
        }
    }

    fn cut(&mut self) {
        if let Some(cut) = self.planner.cut() {
            self.cuts.push_back(cut);
            self.cut.push_back((self.model.clone(), std::mem::take(&mut self.pending)));
        } else {
            assert!(self.pending.is_empty());
        }
    }

    fn apply(&mut self) {
        let Some((model, expected)) = self.cut.pop_front() else { return };
        let cut = self.cuts.pop_front().unwrap();
        self.at.index += 1;
        let applied = self.back.apply(self.at, &cut.payload);
        assert_eq!(applied, self.follower.apply(self.at, &cut.payload), "a follower comes to the same");
        let Ok(Applied::Done(entry)) = applied else { panic!("{applied:?}") };
        assert_eq!((entry.last(), entry.transactions.len()), (cut.last, cut.transactions));
        assert!(entry.time_ms <= model.now_ms, "a stamp is never ahead of what was passed in");
        self.open.retain(|(zxid, ..)| *zxid > model.zxid.0);
        self.applied = model;
        let base = self.back.snapshot();
        assert_eq!(transactions(&*base, &entry), expected);
        assert_eq!(self.back.kept(), Back::kept(&self.follower));
        assert_eq!(self.back.kept().digest, entry.digest, "planned and applied");
        compare::same_rows(&*base, &self.follower);
        compare::rows(&*base, entry.digest, &self.applied, &self.sessions);
        let who = PRINCIPALS.into_iter().chain([""]).cycle().nth(usize::try_from(entry.last().0).unwrap() % 4);
        compare::reads(&*base, &self.applied, who.unwrap());
    }

    fn reset(&mut self, same_term: bool) {
        self.at.term += u64::from(!same_term);
        self.cuts.clear();
        self.planner = Self::planner(&self.back, self.at.term);
        self.model = self.applied.clone();
        // What the model knows of time beyond the stamp is lost with the planner.
        self.model.now_ms = query::state(&*self.back.snapshot()).unwrap().time_ms;
        self.set_limits(self.limits);
        self.cut.clear();
        self.pending.clear();
        for (_, request, now_ms) in std::mem::take(&mut self.open) {
            self.plan(request, now_ms);
        }
    }

    /// Prunes every child of the root to its end, and deletes it at once instead: the same is left.
    fn whoever_may_delete_everything_piece_by_piece_leaves_nothing(&self, who: &str) {
        for top in self.applied.children_of("/") {
            let path = Path::parse(&top).unwrap();
            let whole = compare::deleted(&self.follower, &path, who, self.at, self.now_ms, None);
            for limit in [1, 2, 1_000] {
                let pieces = compare::deleted(&self.follower, &path, who, self.at, self.now_ms, Some(limit));
                assert_eq!(whole.is_none(), pieces.is_none(), "{path} by {who}: pieces of {limit}");
                if let (Some(whole), Some(pieces)) = (&whole, pieces) {
                    assert_eq!(*whole, pieces, "{path} by {who}: pieces of {limit}");
                }
            }
            if let Some(left) = whole {
                let nodes = self.applied.nodes.keys();
                let stay: Vec<String> =
                    nodes.filter(|there| !Path::parse(there).unwrap().is_within(&path)).cloned().collect();
                assert_eq!(left, stay);
            }
        }
    }
}

/// What was asked and what came of it, in a word each.
fn seen(work: &Work, transaction: &Expected) -> Vec<String> {
    let word = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase();
    let (what, steps) = match work {
        Work::Op(Op::Multi(steps)) => ("multi".to_owned(), steps.as_slice()),
        Work::Op(op) => (word(format!("{op:?}")), &[][..]),
        work => (word(format!("{work:?}")), &[][..]),
    };
    let came = match &transaction.outcome {
        None if transaction.changes.is_empty() => "nothing",
        None => "changes",
        Some(Err(refusal)) => refusal.code(),
        Some(Ok(_)) => "done",
    };
    let steps = steps.iter().map(|step| match step {
        Step::Check(check) => format!("check {} {came}", word(format!("{:?}", check.condition))),
        step => format!("step {} {came}", word(format!("{step:?}"))),
    });
    steps.chain([format!("{what} {came}")]).collect()
}

fn transactions(base: &dyn Base, entry: &Entry) -> Vec<Expected> {
    let numbered = entry.numbered().map(|(zxid, transaction)| Expected {
        zxid,
        origin: transaction.origin.clone(),
        changes: compare::told(base, &transaction.changes),
        outcome: (!transaction.outcome.is_empty()).then(|| plain(codec::decode(&transaction.outcome).unwrap())),
    });
    numbered.collect()
}

/// The origin of a session's request.
pub(crate) fn of_session(session: SessionId, sequence: u64) -> Origin {
    Origin::Session { session, sequence }
}
