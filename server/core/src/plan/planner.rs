//! The planner: one for each term that its member leads, from the first request to the entries that it cuts.

use bytes::Bytes;
use conclave_protocol::{Nonce, Outcome, PushBack, Refusal, SessionId, Value, Zxid, codec, limits};

use super::pending::Pending;
use super::{Asked, Growth, Procedures, Request, Verdict, Work, replies};
use crate::apply::Local;
use crate::digest::{Chain, Digest, RowHash};
use crate::entry::Origin;
use crate::op::call::Plugins;
use crate::op::{fence, forget, genesis, growth, perform, session};
use crate::row::{self, Once, Reply, Session, State};
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
    plugins: Plugins,
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
}

impl Planner {
    /// A planner of this term over a state that holds all earlier terms' entries (design rule 2), with what is kept
    /// beside that state. Makes every installed plugin ready; one that can't be run is remembered, its calls are
    /// refused.
    ///
    /// # Errors
    /// A fault of this member.
    pub fn new(term: u64, base: Box<dyn Base>, local: &Local, procedures: Box<dyn Procedures>) -> Result<Self, Fault> {
        let state_row = base.row(Table::State, key::STATE)?.map(|row| RowHash::of(Table::State, key::STATE, &row));
        let state = query::state(&*base)?;
        let plugins = Plugins::prepare(&*base, procedures)?;
        Ok(Self {
            term,
            tx: Some(Tx::new(View::new(base))),
            plugins,
            state,
            chain: local.chain,
            digest: Digest::of(local),
            base: state.zxid,
            state_row,
            pending: Pending::default(),
            time_ms: state.time_ms,
            growth: Growth::Allowed,
        })
    }

    /// From now on the tree may grow, or not. A new planner lets it.
    pub fn set_growth(&mut self, growth: Growth) {
        self.growth = growth;
    }

    /// Plans a request, at this cluster time (milliseconds; an earlier one than before is taken as the last one).
    ///
    /// # Errors
    /// A fault of this member; the planner is done for.
    pub fn plan(&mut self, request: &Request, now_ms: u64) -> Result<Verdict, Fault> {
        self.time_ms = self.time_ms.max(now_ms);
        if self.state.zxid == Zxid(0) && !matches!(request.work, Work::Genesis { .. }) {
            return Ok(Verdict::PushBack(PushBack::NotReady));
        }
        match &request.asked {
            Asked::Session { session, sequence, floor } => self.in_session(request, *session, *sequence, *floor),
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
    fn unplanned(&mut self, tx: Tx, verdict: Verdict) -> Result<Verdict, Fault> {
        self.tx = Some(tx);
        Ok(verdict)
    }

    fn in_session(&mut self, request: &Request, id: SessionId, sequence: u64, floor: u64) -> Result<Verdict, Fault> {
        let tx = self.begin(&request.principal, Some(id))?;
        let row: Option<Session> = query::session(&tx, id)?;
        let Some(row) = row.filter(|row| row.principal == request.principal) else {
            return self.unplanned(tx, Verdict::Look(self.last()));
        };
        if let Some(verdict) = replies::known(&tx, id, &row, sequence, floor)? {
            return self.unplanned(tx, verdict);
        }
        let (mut tx, outcome) = self.carry_out(tx, request)?;
        let reply = Reply { zxid: tx.zxid(), outcome: codec::encode(&outcome).into() };
        replies::keep(&mut tx, id, floor, reply.clone())?;
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
        let (mut tx, outcome) = self.carry_out(tx, request)?;
        let outcome: Bytes = codec::encode(&outcome).into();
        let reply = Reply { zxid: tx.zxid(), outcome: outcome.clone() };
        tx.put_row(Table::Once, &key, &Once { until_ms, reply });
        tx.put(Table::Expiry, &key::expiry(until_ms, &key), Bytes::new());
        self.commit(tx, Origin::Once { principal: request.principal.clone(), nonce }, outcome)
    }

    /// The leader's own: nothing is planned when there is nothing to do.
    fn own(&mut self, work: &Work) -> Result<Verdict, Fault> {
        let mut tx = self.begin("", None)?;
        let planned = match work {
            Work::Genesis { plugins } => {
                let first = self.state.zxid == Zxid(0);
                if first {
                    genesis::genesis(&mut tx, plugins, &mut self.plugins);
                }
                first
            }
            Work::Expire { session } => replies::expire(&mut tx, *session)?,
            Work::Stamp => true,
            Work::Forget => forget::forget(&mut tx)? > 0,
            // They have somebody who waits: never the leader's own.
            Work::Op(_) | Work::Open { .. } => false,
        };
        if planned { self.commit(tx, Origin::Leader, Bytes::new()) } else { self.unplanned(tx, Verdict::Dropped) }
    }

    /// Carries a client's work out, if its fence holds. After a refusal nothing of it is left in the transaction.
    fn carry_out(&mut self, tx: Tx, request: &Request) -> Result<(Tx, Outcome), Fault> {
        let held = request.fence.as_ref().map_or(Ok(()), |wanted| fence::holds(&tx, wanted));
        let (mut tx, done) = match held {
            Ok(()) => self.work(tx, request),
            Err(stop) => (tx, Err(stop)),
        };
        // Last of all: whatever else there is to say against it, is said on a full disk too.
        let done = done.and_then(|value| growth::within(&tx, &value, self.growth).map(|()| value));
        match done {
            Ok(value) => Ok((tx, Ok(value))),
            Err(Stop::Refused(refusal)) => {
                let session = tx.session();
                tx.begin(self.state, self.time_ms, &request.principal, session);
                Ok((tx, Err(refusal)))
            }
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    fn work(&mut self, mut tx: Tx, request: &Request) -> (Tx, Result<Value, Stop>) {
        let wrong = |why: &str| Err(Refusal::BadRequest { why: why.to_owned() }.into());
        let done = match &request.work {
            Work::Op(op) => return perform(tx, op, &mut self.plugins),
            Work::Open { .. } if tx.session().is_some() => wrong("a session is not opened inside a session"),
            Work::Open { timeout_ms } => Ok(session::open(&mut tx, *timeout_ms)),
            Work::Expire { .. } | Work::Stamp | Work::Forget | Work::Genesis { .. } => {
                wrong("only the leader itself plans that")
            }
        };
        (tx, done)
    }

    /// Makes what was written the next transaction.
    fn commit(&mut self, mut tx: Tx, origin: Origin, outcome: Bytes) -> Result<Verdict, Fault> {
        let state = tx.state;
        let written = tx.take();
        self.pending.add(tx.view_mut(), state.zxid, written, origin, outcome)?;
        self.state = state;
        self.tx = Some(tx);
        Ok(Verdict::Planned(state.zxid))
    }
}
