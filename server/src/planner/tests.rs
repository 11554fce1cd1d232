//! Scripts for the pipeline: design rules 2 and 3 step by step, and 2,000 step-downs in mid-pipeline.
#![allow(clippy::unwrap_used)]

mod guests;
mod oracle;
mod plugins;
mod step_downs;
mod sweeps;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use conclave_core::Fault;
use conclave_core::apply::{Applied, Local, Position, apply, skip};
use conclave_core::entry::{Entry, Origin};
use conclave_core::memory::MemTables;
use conclave_core::plan::{Asked, Growth, Install, Planner, Request, Work};
use conclave_core::plugin::Runner;
use conclave_core::view::{Base, Tx};
use conclave_protocol::limits::Limits;
use conclave_protocol::{
    Call, Check, Condition, Create, Kind, Nonce, Op, Outcome as Answer, Path, Refusal, SessionId, Set, Step, Value,
};

use super::pipeline::Pipeline;
use super::{Effect, Ground, Item, Outcome, Told};
use guests::{Guests, plugins};

const ALICE: &str = "spiffe://test/client/alice";
const CLUSTER: &str = "test";
/// Hundredths of the planner's time that calls of one plugin may take.
const SHARE: u32 = 50;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn increment(at: &str) -> Op {
    let args = Bytes::copy_from_slice(at.as_bytes());
    Op::Call(Call { plugin: "counter".to_owned(), procedure: "increment".to_owned(), args, root: Path::root() })
}

/// What a pipeline stands on here: tables in memory, and the time.
struct Land<'a> {
    tables: &'a MemTables,
    now_ms: u64,
    growth: Growth,
    guests: Arc<Guests>,
}

impl Ground for Land<'_> {
    fn snapshot(&self) -> Result<(Box<dyn Base>, Local), Fault> {
        Ok((self.tables.snapshot(), self.tables.kept().clone()))
    }

    fn now_ms(&self) -> u64 {
        self.now_ms + self.guests.late_ms.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        self.guests.elapsed()
    }

    fn worked(&self) -> Duration {
        self.guests.elapsed()
    }

    fn runner(&self) -> Arc<dyn Runner> {
        Arc::clone(&self.guests) as Arc<dyn Runner>
    }

    fn built_in(&self) -> Vec<Install> {
        plugins()
    }

    fn limits(&self) -> Limits {
        Limits { multi_steps: 3, ..Limits::default() }
    }

    fn growth(&self) -> Growth {
        self.growth
    }
}

/// What a member's pipeline stands on; borrows its tables only.
macro_rules! land_of {
    ($member:expr) => {
        Land {
            tables: &$member.tables,
            now_ms: $member.now_ms,
            growth: $member.growth,
            guests: Arc::clone(&$member.guests),
        }
    };
}

fn land(tables: &MemTables, growth: Growth) -> Land<'_> {
    Land { tables, now_ms: 1_000, growth, guests: Arc::default() }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::new(bytes)
}

fn once(number: u64, work: Work) -> Request {
    let asked = Asked::Once { nonce: nonce(number), until_ms: 50_000 };
    Request { principal: ALICE.to_owned(), asked, fence: None, work }
}

fn write(session: SessionId, sequence: u64, floor: u64, op: Op) -> Request {
    let asked = Asked::Session { session, sequence, floor, completed: Vec::new() };
    Request { principal: ALICE.to_owned(), asked, fence: None, work: Work::Op(op) }
}

fn decode(outcome: &[u8]) -> Answer {
    conclave_protocol::codec::decode(outcome).unwrap()
}

/// One member by hand: its tables, its pipeline, its place in the log.
struct Member {
    tables: MemTables,
    pipeline: Pipeline<u8>,
    at: Position,
    growth: Growth,
    now_ms: u64,
    guests: Arc<Guests>,
}

/// A state with these plugins' cluster in it.
fn rooted(guests: &Arc<Guests>) -> MemTables {
    let mut tables = MemTables::new(CLUSTER);
    let runner = Arc::clone(guests) as Arc<dyn Runner>;
    let mut planner = Planner::new(1, tables.snapshot(), tables.kept(), runner).unwrap();
    let work = Work::Genesis { plugins: plugins() };
    let genesis = Request { principal: String::new(), asked: Asked::Leader, fence: None, work };
    planner.plan(&genesis, 0).unwrap();
    let payload = planner.cut().unwrap().payload;
    apply(&mut tables, Position { term: 1, index: 1 }, &payload).unwrap();
    tables
}

impl Member {
    /// With genesis applied at (1, 1).
    fn new() -> Self {
        let guests = Arc::default();
        let tables = rooted(&guests);
        let at = Position { term: 1, index: 1 };
        Self { tables, pipeline: Pipeline::new(Some(at), SHARE), at, growth: Growth::Allowed, now_ms: 1_000, guests }
    }

    /// That leads in term 2, and plans.
    fn leading() -> Self {
        let mut member = Self::new();
        member.lead(Some(2));
        member.blank(2);
        assert_eq!(member.turn(), ["started 2"]);
        member
    }

    fn lead(&mut self, term: Option<u64>) {
        let land = land_of!(self);
        self.pipeline.leadership(&land, term).unwrap();
    }

    fn outcome(&mut self, serial: u64, outcome: Outcome) {
        let land = land_of!(self);
        self.pipeline.outcome(&land, serial, outcome).unwrap();
    }

    fn confirmed(&mut self, term: u64, leads: bool) {
        let land = land_of!(self);
        self.pipeline.confirmed(&land, term, leads).unwrap();
    }

    /// The tables apply an entry; the pipeline does not know.
    fn write(&mut self, term: u64, payload: &[u8]) -> Applied {
        self.at = Position { term, index: self.at.index + 1 };
        apply(&mut self.tables, self.at, payload).unwrap()
    }

    fn write_blank(&mut self, term: u64) {
        self.at = Position { term, index: self.at.index + 1 };
        skip(&mut self.tables, self.at, None);
    }

    /// The pipeline is told how far the tables are.
    fn tell(&mut self) {
        let land = land_of!(self);
        self.pipeline.applied(&land, self.at).unwrap();
    }

    fn apply(&mut self, term: u64, payload: &[u8]) -> Applied {
        let applied = self.write(term, payload);
        self.tell();
        applied
    }

    fn blank(&mut self, term: u64) {
        self.write_blank(term);
        self.tell();
    }

    fn again(&mut self, term: u64) {
        let land = land_of!(self);
        self.pipeline.again(&land, term).unwrap();
    }

    fn plugins_changed(&mut self) {
        let land = land_of!(self);
        self.pipeline.plugins_changed(&land).unwrap();
    }

    fn ask(&mut self, token: u64, request: Request) {
        self.pipeline.requests([Item { source: Some(0), token, request }]);
    }

    fn increment(&mut self, token: u64) {
        self.ask(token, once(token, Work::Op(increment("/n"))));
    }

    /// Plans, and gives what the pipeline wants.
    fn effects(&mut self) -> Vec<Effect<u8>> {
        let land = land_of!(self);
        self.pipeline.turn(&land).unwrap();
        self.pipeline.take_effects()
    }

    /// The same in words.
    fn turn(&mut self) -> Vec<String> {
        self.effects().iter().map(word).collect()
    }

    /// Plans, and gives the one entry that is proposed.
    fn proposed(&mut self) -> (u64, Bytes) {
        let effects = self.effects();
        match &effects[..] {
            [Effect::Propose { serial, payload, .. }] => (*serial, payload.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// An entry by another planner of this term, over these tables.
    fn foreign(&self, term: u64, number: u64) -> Bytes {
        let mut other: Pipeline<u8> = Pipeline::new(Some(Position { term, index: 0 }), SHARE);
        let mut tables = self.tables.clone();
        skip(&mut tables, Position { term, index: self.at.index }, None);
        let land = land(&tables, Growth::Allowed);
        other.leadership(&land, Some(term)).unwrap();
        let request = once(number, Work::Op(increment("/n")));
        other.requests([Item { source: Some(0), token: number, request }]);
        other.turn(&land).unwrap();
        match &other.take_effects()[..] {
            [Effect::Started { .. }, Effect::Propose { payload, .. }] => payload.clone(),
            effects => panic!("{effects:?}"),
        }
    }
}

fn word(effect: &Effect<u8>) -> String {
    match effect {
        Effect::Propose { serial, term, payload } => {
            format!("propose {serial} in {term}: {}", Entry::decode(payload).unwrap().transactions.len())
        }
        Effect::Tell(_, token, told) => format!("tell {token} {told:?}"),
        Effect::Confirm { term } => format!("confirm {term}"),
        Effect::Lacks { term, plugin, why } => format!("lacks {term} {plugin}: {why}"),
        Effect::Started { term } => format!("started {term}"),
    }
}

/// The answer of each transaction of an entry.
fn answers(payload: &[u8]) -> Vec<Answer> {
    Entry::decode(payload).unwrap().transactions.iter().map(|one| decode(&one.outcome)).collect()
}

fn counted(value: u64) -> Answer {
    Ok(Value::Called(value.to_string().into()))
}

// Rule 2: the start.

#[test]
fn a_restarted_leader_with_an_unapplied_tail_plans_nothing_before_the_blank_entry_of_its_own_term() {
    // Two entries of term 2 are in the log. This member restarts, has applied neither, and is elected in term 3.
    let mut before = Member::leading();
    before.increment(1);
    let (_, first) = before.proposed();
    before.increment(2);
    let (_, second) = before.proposed();
    let mut member = Member::new();
    member.blank(2);
    member.lead(Some(3));
    // What arrives meanwhile waits here.
    member.increment(3);
    assert_eq!(member.turn(), [""; 0]);
    for entry in [&first, &second] {
        assert!(matches!(member.apply(2, entry), Applied::Done(_)));
        assert_eq!(member.turn(), [""; 0], "it is not started by an entry of an older term");
    }
    member.blank(3);
    let effects = member.effects();
    let [Effect::Started { term: 3 }, Effect::Propose { payload: third, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(answers(third), [counted(3)]);
    assert!(matches!(member.apply(3, third), Applied::Done(_)));
}

#[test]
fn what_waits_for_the_start_is_the_view_and_not_what_the_pipeline_was_told() {
    let mut member = Member::new();
    member.lead(Some(2));
    let early = Position { term: 2, index: 2 };
    let land = land(&member.tables, member.growth);
    assert!(matches!(member.pipeline.applied(&land, early), Err(Fault::Invariant(_))), "the view is of term 1");
}

#[test]
fn a_leader_whose_successor_has_written_already_does_not_start_and_is_no_fault() {
    let mut member = Member::new();
    member.write_blank(2);
    let blank = member.at;
    member.write_blank(3);
    let foreign = member.foreign(3, 7);
    member.write(3, &foreign);
    // It hears of its own election, and of its own blank entry, when both are long over.
    member.lead(Some(2));
    member.pipeline.applied(&land(&member.tables, member.growth), blank).unwrap();
    member.increment(1);
    assert_eq!(member.turn(), [""; 0]);
    member.lead(None);
    assert_eq!(member.turn(), ["tell 1 Resend"]);
}

// Rule 3: the reset.

#[test]
fn a_rejection_stops_planning_until_all_is_resolved_and_then_plans_again_in_the_original_order() {
    let mut member = Member::leading();
    for token in 1..=3 {
        member.increment(token);
        assert_eq!(member.turn().len(), 1);
    }
    member.outcome(1, Outcome::Rejected);
    member.increment(4);
    assert_eq!(member.turn(), [""; 0], "nothing is planned over what was not to be");
    member.outcome(2, Outcome::Void);
    assert_eq!(member.turn(), [""; 0], "an entry is not resolved yet");
    member.outcome(3, Outcome::Rejected);
    assert_eq!(member.turn(), ["confirm 2"]);
    member.confirmed(2, false);
    assert_eq!(member.turn(), ["confirm 2"], "the lease is not valid yet");
    member.confirmed(2, true);
    let (serial, again) = member.proposed();
    assert_eq!((serial, member.pipeline.resets()), (4, 1));
    let origins: Vec<Origin> = Entry::decode(&again).unwrap().transactions.into_iter().map(|t| t.origin).collect();
    assert_eq!(origins, [1, 2, 3, 4].map(|n| Origin::Once { principal: ALICE.to_owned(), nonce: nonce(n) }));
    assert_eq!(answers(&again), [1, 2, 3, 4].map(counted));
}

#[test]
fn a_void_entry_takes_those_planned_over_it_along_and_all_of_them_are_planned_again() {
    let mut member = Member::leading();
    member.increment(1);
    let (_, first) = member.proposed();
    member.increment(2);
    let (_, second) = member.proposed();
    // The first never came into the log, the second did.
    assert_eq!(member.apply(2, &second), Applied::Void);
    member.outcome(1, Outcome::Rejected);
    member.outcome(2, Outcome::Void);
    assert_eq!(member.turn(), ["confirm 2"]);
    member.confirmed(2, true);
    let (_, again) = member.proposed();
    assert_ne!(again, first);
    assert_eq!(answers(&again), [counted(1), counted(2)]);
    assert!(matches!(member.apply(2, &again), Applied::Done(_)));
}

#[test]
fn a_request_whose_fate_is_unknown_is_sent_again_by_its_member_and_never_planned_again_here() {
    let mut member = Member::leading();
    member.increment(1);
    let (_, first) = member.proposed();
    member.increment(2);
    assert_eq!(member.turn().len(), 1);
    member.outcome(1, Outcome::Unknown);
    member.outcome(2, Outcome::Rejected);
    assert_eq!(member.turn(), ["tell 1 Resend", "confirm 2"]);
    member.confirmed(2, true);
    let (_, again) = member.proposed();
    assert_eq!(Entry::decode(&again).unwrap().transactions.len(), 1, "only what was rejected");
    // It comes true after all: what was planned without it is void, and the late repetition is known.
    assert!(matches!(member.write(2, &first), Applied::Done(_)));
    assert_eq!(member.write(2, &again), Applied::Void);
    member.tell();
    member.outcome(3, Outcome::Void);
    assert_eq!(member.turn(), ["confirm 2"]);
    member.confirmed(2, true);
    member.increment(1);
    let effects = member.turn();
    assert_eq!(effects, ["propose 4 in 2: 1", "tell 1 Look(Zxid(2))"]);
}

#[test]
fn rows_that_are_not_the_planners_own_end_it() {
    let mut member = Member::leading();
    member.increment(1);
    assert_eq!(member.turn().len(), 1);
    // Another member leads in term 3 and writes, and this one has applied it before it hears that its time is over.
    member.write_blank(3);
    let foreign = member.foreign(3, 7);
    assert!(matches!(member.write(3, &foreign), Applied::Done(_)));
    member.tell();
    member.increment(2);
    assert_eq!(member.turn(), [""; 0], "planned over a mixture of two histories");
    member.outcome(1, Outcome::Unknown);
    assert_eq!(member.turn(), ["tell 1 Resend", "confirm 2"]);
    member.lead(None);
    assert_eq!(member.turn(), ["tell 2 Resend"]);
}

#[test]
fn leases_begin_once_a_term_however_often_planning_begins_again() {
    let mut member = Member::leading();
    member.increment(1);
    assert_eq!(member.turn(), ["propose 1 in 2: 1"]);
    for serial in 1..=3 {
        member.outcome(serial, Outcome::Rejected);
        assert_eq!(member.turn(), ["confirm 2"]);
        member.confirmed(2, true);
        // Leases that began again would renew a session whose end is under way.
        assert_eq!(member.turn(), [format!("propose {} in 2: 1", serial + 1)]);
    }
    member.lead(None);
    member.outcome(4, Outcome::Rejected);
    member.lead(Some(4));
    member.blank(4);
    assert!(member.turn().contains(&"started 4".to_owned()));
}

#[test]
fn an_end_of_a_session_that_was_decided_in_an_earlier_term_is_not_planned_in_a_later_one() {
    let mut member = Member::leading();
    member.ask(1, once(1, Work::Open { timeout_ms: 5_000 }));
    let (_, open) = member.proposed();
    let Applied::Done(entry) = member.apply(2, &open) else { panic!("void") };
    let session = SessionId(entry.last().0);
    member.outcome(1, Outcome::Done);
    member.pipeline.own(Work::Expire { session });
    assert_eq!(member.turn(), ["propose 2 in 2: 1"]);
    // It is rejected. Another leader renews the session in term 3; then this member leads again.
    for term in [None, Some(4)] {
        member.lead(term);
    }
    member.outcome(2, Outcome::Rejected);
    member.blank(4);
    member.confirmed(4, true);
    let effects = member.turn();
    assert!(effects.iter().all(|effect| !effect.starts_with("propose")), "{effects:?}");
    assert!(conclave_core::query::session(&member.tables, session).unwrap().is_some());
}

// Rule 13: genesis.

#[test]
fn the_first_leader_plans_genesis_before_anything_and_no_later_one_does() {
    let mut member = Member::new();
    member.tables = MemTables::new(CLUSTER);
    member.at = Position { term: 0, index: 0 };
    member.pipeline = Pipeline::new(None, SHARE);
    member.lead(Some(1));
    member.blank(1);
    assert_eq!(member.turn(), ["started 1", "propose 1 in 1: 1"]);
    // Lost with its leader: the next one plans it again.
    member.lead(None);
    member.outcome(1, Outcome::Unknown);
    member.lead(Some(2));
    member.blank(2);
    member.increment(1);
    let effects = member.effects();
    let [Effect::Started { term: 2 }, Effect::Propose { payload: genesis, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let Applied::Done(entry) = member.apply(2, genesis) else { panic!("void") };
    assert_eq!((entry.base.0, &entry.transactions[0].origin), (0, &Origin::Leader));
    assert_eq!(conclave_core::query::plugins(&member.tables).unwrap().len(), plugins().len());
    member.outcome(2, Outcome::Done);
    for term in [None, Some(3)] {
        member.lead(term);
    }
    member.blank(3);
    assert_eq!(member.turn(), ["started 3"], "the tree is there");
}

#[test]
fn leases_do_not_begin_in_a_term_that_was_lost_before_they_were_told_of() {
    let mut member = Member::new();
    member.lead(Some(2));
    member.blank(2);
    member.lead(None);
    assert!(member.turn().is_empty(), "leases begin on a member that does not lead");
}

#[test]
fn what_was_decided_in_another_term_is_not_done() {
    let mut member = Member::new();
    member.lead(Some(2));
    member.blank(2);
    member.turn();
    member.pipeline.own_in(1, Work::Expire { session: SessionId(7) });
    assert!(member.pipeline.is_idle(), "the end of a session that was decided in term 1");
}

// A full disk.

const FULL: Growth = Growth::Refused { free_bytes: 1, least_bytes: 2 };

#[test]
fn what_grows_is_refused_while_the_disk_is_full_and_done_by_the_same_planner_when_there_is_room() {
    let mut member = Member::leading();
    let full = Err(Refusal::DiskFull { free_bytes: 1, least_bytes: 2 });
    member.increment(1);
    let (_, before) = member.proposed();
    member.growth = FULL;
    member.increment(2);
    member.ask(3, once(3, Work::Open { timeout_ms: 5_000 }));
    let create = Create::new(path("/m"), Bytes::new());
    member.ask(4, once(4, Work::Op(Op::Create(create.clone()))));
    let (_, meanwhile) = member.proposed();
    member.growth = Growth::Allowed;
    member.ask(5, once(5, Work::Op(Op::Create(create))));
    let (_, after) = member.proposed();
    assert_eq!(answers(&before), [counted(1)]);
    assert_eq!(answers(&meanwhile), [counted(2), full.clone(), full], "the number got no longer");
    assert!(matches!(answers(&after)[..], [Ok(Value::Created { .. })]), "{after:?}");
    for (serial, entry) in (1..).zip([before, meanwhile, after]) {
        assert!(matches!(member.apply(2, &entry), Applied::Done(_)), "a refusal is a transaction like any other");
        member.outcome(serial, Outcome::Done);
    }
    assert_eq!(member.pipeline.resets(), 0);
}

#[test]
fn a_planner_that_begins_on_a_full_disk_knows_it_and_ends_sessions() {
    let mut member = Member::leading();
    member.ask(1, once(1, Work::Open { timeout_ms: 5_000 }));
    let (_, open) = member.proposed();
    let Applied::Done(entry) = member.apply(2, &open) else { panic!("void") };
    member.outcome(1, Outcome::Done);
    let session = SessionId(entry.last().0);
    member.growth = FULL;
    member.lead(None);
    member.lead(Some(3));
    member.blank(3);
    assert_eq!(member.turn(), ["started 3"]);
    member.increment(2);
    member.pipeline.own(Work::Expire { session });
    let (_, payload) = member.proposed();
    let transactions = Entry::decode(&payload).unwrap().transactions;
    assert!(matches!(decode(&transactions[0].outcome), Err(Refusal::DiskFull { .. })));
    assert_eq!(transactions[1].origin, Origin::Leader);
    assert!(matches!(member.apply(3, &payload), Applied::Done(_)));
    assert_eq!(conclave_core::query::session(&member.tables, session).unwrap(), None);
}

#[test]
fn the_leaders_limits_hold() {
    let mut member = Member::leading();
    let check = Step::Check(Check { path: Path::root(), condition: Condition::Exists });
    member.ask(1, once(1, Work::Op(Op::Multi(vec![check; 4]))));
    let (_, payload) = member.proposed();
    assert!(matches!(&answers(&payload)[..], [Err(Refusal::Limit { limit: 3, actual: 4, .. })]));
}
