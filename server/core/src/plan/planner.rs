//! The planner: one for each term that its member leads, from the first request to the entries that it cuts.

use std::sync::Arc;

use bytes::Bytes;
use conclave_protocol::limits::{self, Limits};
use conclave_protocol::{Nonce, Op, Outcome, PushBack, Refusal, SessionId, Value, Zxid, codec};

use super::pending::Pending;
use super::{Asked, Growth, Request, Verdict, Work, plugins, replies};
use crate::apply::Local;
use crate::digest::{Chain, Digest, RowHash};
use crate::entry::Origin;
use crate::op::park::{self, Next};
use crate::op::trigger::{self, Binding};
use crate::op::{fence, genesis, growth, install, perform, session, sweep};
use crate::plugin::Runner;
use crate::plugins::Plugins;
use crate::row::{self, Once, Remembered, Reply, Session, State};
use crate::tree::typed;
use crate::view::{Base, Stop, Tx, View};
use crate::{Fault, Table, key, query};

/// An entry, ready to be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The entry's bytes.
    pub payload: Bytes,
    /// Its last transaction.
    pub last: Zxid,
    /// How many transactions are in it.
    pub transactions: usize,
}

/// Plans transactions one after the other over an applied state, and cuts them into entries.
///
/// When an entry of it is rejected or void, or a fault comes up, the planner is done for: make a new one.
pub struct Planner {
    term: u64,
    /// None once there was a fault.
    tx: Option<Tx>,
    runner: Arc<dyn Runner>,
    /// After the last planned transaction. Its row is written once an entry.
    state: State,
    /// After the last cut.
    chain: Chain,
    digest: Digest,
    /// The last transaction, and the state's row, before the pending entry.
    base: Zxid,
    state_row: Option<RowHash>,
    pending: Pending,
    time_ms: u64,
    growth: Growth,
    /// There may be parked calls to run again.
    may_wake: bool,
    /// The plugin of the last of them that was run.
    woken: Option<String>,
    /// Calls that were not planned before are pushed back.
    holds_calls: bool,
    failures: plugins::Failures,
}

/// What a new planner came to.
pub enum Begin {
    /// It plans.
    Planner(Box<Planner>),
    /// An active plugin can't be run here: this member must not lead, as no trigger is ever skipped.
    Missing {
        /// Which plugin.
        plugin: String,
        /// Why not.
        why: String,
    },
}

impl Planner {
    /// A planner of this term over a state that holds all earlier terms' entries (design rule 2), with what is kept
    /// beside that state. Makes every component ready that it may have to run, unless it is.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn begin_term(term: u64, base: Box<dyn Base>, local: &Local, runner: Arc<dyn Runner>) -> Result<Begin, Fault> {
        if let Some((plugin, why)) = plugins::missing(&*base, &*runner)? {
            return Ok(Begin::Missing { plugin, why });
        }
        Self::new(term, base, local, runner).map(|planner| Begin::Planner(Box::new(planner)))
    }

    /// As [`Planner::begin_term`], with whatever components are ready: for tests and for trying things out.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn new(term: u64, base: Box<dyn Base>, local: &Local, runner: Arc<dyn Runner>) -> Result<Self, Fault> {
        let state_row = base.row(Table::State, key::STATE)?.map(|row| RowHash::of(Table::State, key::STATE, &row));
        let state = query::state(&*base)?;
        let plugins = Plugins::of(&*base, Arc::clone(&runner))?;
        Ok(Self {
            term,
            tx: Some(Tx::new(View::new(base), plugins)),
            runner,
            state,
            chain: local.chain,
            digest: Digest::of(local),
            base: state.zxid,
            state_row,
            pending: Pending::default(),
            time_ms: state.time_ms,
            growth: Growth::Allowed,
            may_wake: true,
            woken: None,
            holds_calls: false,
            failures: plugins::Failures::default(),
        })
    }

    /// From now on these limits hold. A new planner has the default ones.
    pub fn set_limits(&mut self, limits: Limits) {
        if let Some(tx) = &mut self.tx {
            tx.limits = limits;
        }
    }

    /// From now on the tree may grow, or not. A new planner lets it.
    pub fn set_growth(&mut self, growth: Growth) {
        self.growth = growth;
    }

    /// From now on calls of procedures that were not planned before are pushed back, or not. A new planner lets them.
    pub fn hold_calls(&mut self, hold: bool) {
        self.holds_calls = hold;
    }

    /// Plans a request, at this cluster time (milliseconds; an earlier one than before is taken as the last one).
    ///
    /// # Errors
    /// A fault of this member; the planner is done for.
    pub fn plan(&mut self, request: &Request, now_ms: u64) -> Result<Verdict, Fault> {
        self.time_ms = self.time_ms.max(now_ms);
        self.failures.latest.clear();
        if self.state.zxid == Zxid(0) && !matches!(request.work, Work::Genesis { .. }) {
            return Ok(Verdict::PushBack(PushBack::NotReady));
        }
        match &request.asked {
            Asked::Session { session, sequence, floor, completed } => {
                let acknowledged = replies::Acknowledged { floor: *floor, completed };
                self.in_session(request, *session, *sequence, acknowledged)
            }
            Asked::Once { nonce, until_ms } => self.once(request, *nonce, *until_ms),
            Asked::Leader => self.own(&request.work),
        }
    }

    /// Transactions that are planned and not yet cut.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.transactions.len()
    }

    /// Bytes that the next entry will have, about.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes
    }

    /// Makes one entry of what is planned; none when nothing is.
    pub fn cut(&mut self) -> Option<Cut> {
        let transactions = self.pending();
        if transactions == 0 {
            return None;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let state: Bytes = row::encode(&self.state).into();
        let hash = RowHash::of(Table::State, key::STATE, &state);
        pending.put(Table::State, key::STATE, self.state_row.replace(hash), state);
        let entry = pending.entry(self.term, self.chain, self.base, self.state.time_ms, &mut self.digest);
        let payload = entry.encode();
        self.chain = Chain::after(&payload);
        self.base = self.state.zxid;
        Some(Cut { payload, last: self.base, transactions })
    }

    /// Puts a newer applied state below what is planned, and drops the planned rows that it holds (design rule 4: the
    /// zxid is read inside it). The caller has seen that all it holds beyond the last base is of this planner: that the
    /// last entry applied there has this planner's term.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn rebase(&mut self, base: Box<dyn Base>) -> Result<(), Fault> {
        let zxid = query::state(&*base)?.zxid;
        let mut tx = self.take()?;
        tx.view_mut().rebase(base, zxid);
        self.tx = Some(tx);
        Ok(())
    }

    /// The last planned transaction.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.state.zxid
    }

    /// The latest cluster time that it was given, or found in the state, milliseconds.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Rows that are planned and not yet in the base.
    #[must_use]
    pub fn overlay_rows(&self) -> usize {
        self.tx.as_ref().map_or(0, |tx| tx.view().overlay_rows())
    }

    /// The sessions of a state with their timeouts in milliseconds.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn sessions(base: &dyn Base) -> Result<Vec<(SessionId, u64)>, Fault> {
        query::sessions(base)
    }

    fn take(&mut self) -> Result<Tx, Fault> {
        self.tx.take().ok_or_else(|| Fault::Invariant("the planner goes on after a fault".to_owned()))
    }

    fn begin(&mut self, principal: &str, session: Option<SessionId>) -> Result<Tx, Fault> {
        let mut tx = self.take()?;
        tx.begin(self.state, self.time_ms, principal, session);
        Ok(tx)
    }

    /// Leaves without a transaction.
    fn unplanned(&mut self, mut tx: Tx, verdict: Verdict) -> Result<Verdict, Fault> {
        // Of a timer's trigger that came to nothing.
        self.failures.count(tx.runs.drain(..));
        self.tx = Some(tx);
        Ok(verdict)
    }

    fn in_session(
        &mut self,
        request: &Request,
        id: SessionId,
        sequence: u64,
        acknowledged: replies::Acknowledged<'_>,
    ) -> Result<Verdict, Fault> {
        let mut tx = self.begin(&request.principal, Some(id))?;
        let row: Option<Session> = query::session(&tx, id)?;
        let Some(row) = row.filter(|row| row.principal == request.principal) else {
            return self.unplanned(tx, Verdict::Look(self.last()));
        };
        if let Some(verdict) = replies::known(&tx, id, &row, sequence, acknowledged.floor)? {
            return self.unplanned(tx, verdict);
        }
        if self.is_held(&request.work) {
            return self.unplanned(tx, Verdict::PushBack(PushBack::Busy));
        }
        tx.sequence = Some(sequence);
        let (mut tx, outcome) = self.carry_out(tx, request)?;
        let reply = Reply { zxid: tx.zxid(), outcome: codec::encode(&outcome).into() };
        replies::keep(&mut tx, id, acknowledged, reply.clone())?;
        self.commit(tx, Origin::Session { session: id, sequence }, reply.outcome)
    }

    fn once(&mut self, request: &Request, nonce: Nonce, until_ms: u64) -> Result<Verdict, Fault> {
        let tx = self.begin(&request.principal, None)?;
        let key = key::once(&request.principal, &nonce);
        if let Some(Once { reply, .. }) = typed(&tx, Table::Once, &key)? {
            return self.unplanned(tx, Verdict::Look(reply.zxid));
        }
        let now_ms = tx.now_ms();
        if until_ms <= now_ms || until_ms > now_ms.saturating_add(limits::ONCE_AHEAD_MS) {
            return self.unplanned(tx, Verdict::PushBack(PushBack::Until { now_ms }));
        }
        let of = key::once_of(&request.principal);
        let Remembered { count, bytes } = typed(&tx, Table::Once, &of)?.unwrap_or_default();
        if self.is_held(&request.work) || count >= tx.limits.once_rows || bytes >= limits::ONCE_REPLY_BYTES as u64 {
            return self.unplanned(tx, Verdict::PushBack(PushBack::Busy));
        }
        let (mut tx, outcome) = self.carry_out(tx, request)?;
        let outcome: Bytes = codec::encode(&outcome).into();
        let length = outcome.len() as u64;
        tx.put_row(Table::Once, &of, &Remembered { count: count + 1, bytes: bytes + length });
        let reply = Reply { zxid: tx.zxid(), outcome: outcome.clone() };
        tx.put_row(Table::Once, &key, &Once { until_ms, reply });
        // So that it can be forgotten without being read.
        tx.put_row(Table::Expiry, &key::expiry(until_ms, &key), &length);
        self.commit(tx, Origin::Once { principal: request.principal.clone(), nonce }, outcome)
    }

    fn is_held(&self, work: &Work) -> bool {
        self.holds_calls && matches!(work, Work::Op(Op::Call(_)))
    }

    /// The leader's own: nothing is planned when there is nothing to do.
    fn own(&mut self, work: &Work) -> Result<Verdict, Fault> {
        let mut tx = self.begin("", None)?;
        let planned = match work {
            Work::Genesis { plugins } => {
                let first = self.state.zxid == Zxid(0);
                if first {
                    genesis::genesis(&mut tx, plugins);
                }
                first
            }
            Work::Expire { session } => replies::expire(&mut tx, *session)?,
            Work::Stamp => true,
            Work::Sweep => sweep::sweep(&mut tx)? > 0,
            Work::Activate { plugin, digest } => install::activate(&mut tx, plugin, *digest)?,
            Work::Reject { plugin, digest, why } => install::reject(&mut tx, plugin, *digest, why)?,
            Work::Suspend { plugin, why } => install::suspend(&mut tx, plugin, why)?,
            Work::Tick { plugin, trigger } => plugins::tick(&mut tx, plugin, trigger)?,
            Work::Wake => return self.wake(tx),
            // They have somebody who waits: never the leader's own.
            Work::Op(_) | Work::Open { .. } => false,
        };
        if !planned {
            return self.unplanned(tx, Verdict::Dropped);
        }
        match trigger::after(&mut tx, Binding::Certain) {
            Ok(()) => self.commit(tx, Origin::Leader, Bytes::new()),
            Err(Stop::Fault(fault)) => Err(fault),
            Err(Stop::Refused(refusal)) => {
                Err(Fault::Invariant(format!("the leader's own work was refused: {refusal}")))
            }
        }
    }

    /// Carries a client's work out, if its fence holds. After a refusal nothing of it is left in the transaction.
    fn carry_out(&mut self, tx: Tx, request: &Request) -> Result<(Tx, Outcome), Fault> {
        let mut tx = tx;
        let held = request.fence.as_ref().map_or(Ok(()), |wanted| fence::holds(&tx, wanted));
        let done = held.and_then(|()| work(&mut tx, request));
        // Last of all: whatever else there is to say against it, is said on a full disk too.
        let done = done.and_then(|value| growth::within(&tx, &value, self.growth).map(|()| value));
        match done {
            Ok(value) => Ok((tx, Ok(value))),
            Err(Stop::Refused(refusal)) => {
                let (session, sequence) = (tx.session(), tx.sequence);
                tx.begin(self.state, self.time_ms, &request.principal, session);
                tx.sequence = sequence;
                Ok((tx, Err(refusal)))
            }
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    /// Runs the next parked call that was woken, a transaction of its own.
    fn wake(&mut self, tx: Tx) -> Result<Verdict, Fault> {
        self.woken = None;
        let Next { over, call } = park::next(&tx)?;
        if over.is_empty() && call.is_none() {
            self.may_wake = false;
            return self.unplanned(tx, Verdict::Dropped);
        }
        let mut tx = tx;
        let Some(due) = call else {
            over.iter().for_each(|key| tx.remove(Table::Wake, key));
            return self.commit(tx, Origin::Leader, Bytes::new());
        };
        self.woken = Some(due.row.plugin.clone());
        let session = due.session;
        let owner = query::session(&tx, session)?;
        let owner =
            owner.ok_or_else(|| Fault::Invariant(format!("session {session} is gone, and a call of it waits")))?;
        tx.begin(self.state, self.time_ms, &owner.principal, Some(session));
        let ran = plugins::run_again(&mut tx, &due, self.growth);
        let ran = match ran {
            Err(Stop::Refused(refusal)) => {
                tx.begin(self.state, self.time_ms, &owner.principal, Some(session));
                Err(refusal)
            }
            Err(Stop::Fault(fault)) => return Err(fault),
            Ok(came) => Ok(came),
        };
        over.iter().for_each(|key| tx.remove(Table::Wake, key));
        let (origin, outcome) = plugins::end_or_park(&mut tx, due, ran)?;
        self.commit(tx, origin, outcome)
    }

    /// Whether there may be parked calls that were woken: [`Work::Wake`] runs the next.
    #[must_use]
    pub fn may_wake(&self) -> bool {
        self.may_wake
    }

    /// Of which plugin the call was that the last [`Work::Wake`] ran; none if it ran none.
    #[must_use]
    pub fn woken(&self) -> Option<&str> {
        self.woken.as_deref()
    }

    /// Plugins that failed in what was planned last: trapped, or exceeded a budget.
    #[must_use]
    pub fn failed(&self) -> &[String] {
        &self.failures.latest
    }

    /// Plugins that have failed too often since this was asked last, and how.
    pub fn failing(&mut self) -> Vec<(String, String)> {
        self.failures.take()
    }

    /// Timers of active plugins: plugin, trigger, and how often in milliseconds.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn timers(base: &dyn Base) -> Result<Vec<(String, String, u64)>, Fault> {
        plugins::timers(base)
    }

    /// Makes what was written the next transaction.
    fn commit(&mut self, mut tx: Tx, origin: Origin, outcome: Bytes) -> Result<Verdict, Fault> {
        tx.wake()?;
        let state = tx.state;
        self.failures.count(tx.runs.drain(..));
        let written = tx.take();
        self.may_wake |= !written.rows.table(Table::Wake).is_empty();
        let is_new_set = !written.rows.table(Table::Plugin).is_empty();
        self.pending.add(tx.view_mut(), state.zxid, written, origin, outcome)?;
        self.state = state;
        if is_new_set {
            tx.plugins = Plugins::of(tx.view(), Arc::clone(&self.runner))?;
        }
        self.tx = Some(tx);
        Ok(Verdict::Planned(state.zxid))
    }
}

fn work(tx: &mut Tx, request: &Request) -> Result<Value, Stop> {
    let wrong = |why: &str| Err(Refusal::BadRequest { why: why.to_owned() }.into());
    match &request.work {
        Work::Op(op) => perform(tx, op),
        Work::Open { .. } if tx.session().is_some() => wrong("a session is not opened inside a session"),
        Work::Open { timeout_ms } => Ok(session::open(tx, *timeout_ms)),
        Work::Expire { .. }
        | Work::Stamp
        | Work::Sweep
        | Work::Activate { .. }
        | Work::Reject { .. }
        | Work::Suspend { .. }
        | Work::Tick { .. }
        | Work::Wake
        | Work::Genesis { .. } => wrong("only the leader itself plans that"),
    }
}
