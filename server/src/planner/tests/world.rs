//! Two members, their pipelines, and a Raft that does by its dice all that openraft may do to a proposal.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use conclave_core::query::{self, Stored};
use conclave_protocol::Zxid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// One-shot writes come from these "sessions", one for each member.
pub(super) const ONCE: [u64; 2] = [u64::MAX - 1, u64::MAX];
/// Sessions of each member's clients.
const SESSIONS: u64 = 3;
/// Requests of a session that may be unanswered at a time.
const DEPTH: usize = 12;

/// What really happened: a run in which little did is no evidence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) step_downs: u64,
    pub(super) rejected: u64,
    pub(super) void: u64,
    pub(super) unknown: u64,
    /// Of these, how many were committed after they had been called unknown.
    pub(super) unknown_committed: u64,
    pub(super) resets: u64,
    pub(super) resends: u64,
    pub(super) looks: u64,
    pub(super) duplicates: u64,
    pub(super) pushed_back: u64,
    pub(super) refusals: u64,
    pub(super) foreign_bases: u64,
    pub(super) answered: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.step_downs += other.step_downs;
        self.rejected += other.rejected;
        self.void += other.void;
        self.unknown += other.unknown;
        self.unknown_committed += other.unknown_committed;
        self.resets += other.resets;
        self.resends += other.resends;
        self.looks += other.looks;
        self.duplicates += other.duplicates;
        self.pushed_back += other.pushed_back;
        self.refusals += other.refusals;
        self.foreign_bases += other.foreign_bases;
        self.answered += other.answered;
    }
}

/// What is asked of the counter, or what must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Open,
    Count,
    Refuse,
}

pub(super) enum Kind {
    Blank,
    Payload(Bytes),
}

pub(super) struct Logged {
    pub(super) term: u64,
    pub(super) kind: Kind,
    /// Who proposed it, as which serial.
    by: Option<(usize, u64)>,
    called_unknown: bool,
}

struct Waiting {
    token: u64,
    request: Request,
}

enum Command {
    Requests(Vec<(u64, Request)>),
    Applied(Position),
    Leadership(Option<u64>),
    Outcome(u64, Outcome),
    Confirmed(u64, bool),
}

/// A session's client, or the source of one-shot writes.
struct Client {
    session: u64,
    next: u64,
    unanswered: BTreeSet<u64>,
}

struct One {
    tables: MemTables,
    applied: usize,
    pipeline: Pipeline<usize>,
    guests: Arc<Guests>,
    inbox: VecDeque<Command>,
    /// Proposals that Raft has not looked at.
    proposals: VecDeque<(u64, u64, Bytes)>,
    /// Outcomes in the order of the proposals: known, or in the log.
    outcomes: VecDeque<(u64, Option<Outcome>)>,
    confirms: VecDeque<u64>,
    /// That it leads in a term, or none, and has not heard of it.
    news: Option<Option<u64>>,
    // Its clients, and what they wait for.
    clients: Vec<Client>,
    waiting: HashMap<Origin, Waiting>,
    tokens: BTreeMap<u64, Origin>,
    retry: BTreeSet<u64>,
    looks: Vec<(u64, Zxid)>,
    /// Requests on their way to a member.
    sent: VecDeque<(usize, u64, Request)>,
    sees: Option<usize>,
}

pub(super) struct World {
    dice: StdRng,
    members: [One; 2],
    pub(super) log: Vec<Logged>,
    committed: usize,
    term: u64,
    leader: usize,
    now_ms: u64,
    next_token: u64,
    next_nonce: u64,
    /// Answered ones: late duplicates come from here.
    old: Vec<Request>,
    pub(super) asked: BTreeMap<Origin, Ask>,
    pub(super) answers: BTreeMap<Origin, (Zxid, Answer)>,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let member = || One {
            tables: MemTables::new(CLUSTER),
            applied: 0,
            pipeline: Pipeline::new(None, SHARE),
            guests: Arc::default(),
            inbox: VecDeque::new(),
            proposals: VecDeque::new(),
            outcomes: VecDeque::new(),
            confirms: VecDeque::new(),
            news: None,
            clients: Vec::new(),
            waiting: HashMap::new(),
            tokens: BTreeMap::new(),
            retry: BTreeSet::new(),
            looks: Vec::new(),
            sent: VecDeque::new(),
            sees: None,
        };
        let mut world = Self {
            dice: StdRng::seed_from_u64(seed),
            members: [member(), member()],
            log: Vec::new(),
            committed: 0,
            term: 0,
            leader: 0,
            now_ms: 1_000,
            next_token: 1,
            next_nonce: 1,
            old: Vec::new(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            tally: Tally::default(),
        };
        world.elect(0);
        for (member, session) in ONCE.into_iter().enumerate() {
            world.members[member].clients.push(Client { session, next: 1, unanswered: BTreeSet::new() });
            for _ in 0..SESSIONS {
                world.ask_once(member, Ask::Open);
            }
        }
        world
    }

    /// A step-down in mid-pipeline, once entries are on their way.
    pub(super) fn step_down(&mut self) {
        let calm = self.dice.random_range(0..400);
        for step in 0..20_000 {
            self.step(true);
            let one = &self.members[self.leader];
            let is_mid_pipeline = one.pipeline.is_running() && one.outcomes.iter().any(|(_, known)| known.is_none());
            if step >= calm && is_mid_pipeline {
                self.tally.step_downs += 1;
                let next = self.dice.random_range(0..2);
                return self.elect(next);
            }
        }
        panic!("no entry is on its way: {:?}", self.tally);
    }

    /// Lets everything come to its end, without further mishaps.
    pub(super) fn settle(&mut self) {
        for _ in 0..200_000 {
            if self.members.iter().all(|one| one.waiting.is_empty() && one.applied == self.log.len())
                && self.members.iter().all(|one| one.proposals.is_empty() && one.outcomes.is_empty())
            {
                return;
            }
            self.step(false);
        }
        let lost: Vec<_> = self.members.iter().map(|one| one.waiting.keys().collect::<Vec<_>>()).collect();
        panic!("never answered: {lost:?}");
    }

    pub(super) fn tables(&self) -> [&MemTables; 2] {
        [&self.members[0].tables, &self.members[1].tables]
    }

    pub(super) fn count_resets(&mut self) {
        self.tally.resets = self.members.iter().map(|one| one.pipeline.resets()).sum();
    }

    /// One thing happens. `rough`: mishaps too.
    fn step(&mut self, rough: bool) {
        self.now_ms += self.dice.random_range(0..2);
        let member = self.dice.random_range(0..2);
        match self.dice.random_range(0..12) {
            0 if rough => self.ask(member),
            1 | 2 => self.deliver_requests(member),
            3 | 4 => self.plan(member),
            5 => self.take_proposal(member, rough),
            6 => self.commit(),
            7 | 8 => self.apply(member),
            9 if self.dice.random_bool(0.3) => self.deliver_news(member),
            9 => self.deliver_outcomes(member),
            10 => self.confirm(member),
            11 => self.carry(member, rough),
            _ => {}
        }
    }

    // Raft.

    /// A new term. What of the old leader's tail the new leader has, the dice say.
    fn elect(&mut self, next: usize) {
        let old = self.leader;
        let kept = self.committed + self.dice.random_range(0..=self.log.len() - self.committed);
        for lost in self.log.drain(kept..) {
            if let Some((member, serial)) = lost.by {
                self.members[member].resolve(serial, Outcome::Unknown, &mut self.tally);
            }
        }
        for at in self.committed..kept {
            // The old leader may call unknown what the new one commits.
            if let Some((member, serial)) = self.log[at].by
                && self.dice.random_bool(0.5)
            {
                self.log[at].called_unknown = true;
                self.members[member].resolve(serial, Outcome::Unknown, &mut self.tally);
            }
        }
        self.term += 1;
        self.leader = next;
        self.log.push(Logged { term: self.term, kind: Kind::Blank, by: None, called_unknown: false });
        // As in a watch channel, later news replaces what has not been looked at.
        self.members[old].news = Some(None);
        self.members[next].news = Some(Some(self.term));
    }

    fn take_proposal(&mut self, member: usize, rough: bool) {
        let Some((serial, term, payload)) = self.members[member].proposals.pop_front() else { return };
        // A lease that is not valid for a moment rejects one in mid-pipeline, and takes the next.
        let is_rejected = rough && self.dice.random_bool(0.05);
        if member != self.leader || term != self.term || is_rejected {
            self.members[member].resolve(serial, Outcome::Rejected, &mut self.tally);
            return;
        }
        self.log.push(Logged { term, kind: Kind::Payload(payload), by: Some((member, serial)), called_unknown: false });
        if rough && self.dice.random_bool(0.02) {
            // The channel is closed, while leadership goes on: nobody knows what will become of it.
            let at = self.log.len() - 1;
            self.log[at].called_unknown = true;
            self.members[member].resolve(serial, Outcome::Unknown, &mut self.tally);
        }
    }

    fn commit(&mut self) {
        let open = self.log.len() - self.committed;
        self.committed += self.dice.random_range(0..=open);
    }

    fn apply(&mut self, member: usize) {
        let until = self.committed.min(self.members[member].applied + self.dice.random_range(0..4));
        if until <= self.members[member].applied {
            return;
        }
        let mut position = None;
        for index in self.members[member].applied..until {
            let logged = &self.log[index];
            let at = Position { term: logged.term, index: index as u64 + 1 };
            position = Some(at);
            let one = &mut self.members[member];
            one.applied = index + 1;
            let Kind::Payload(payload) = &logged.kind else {
                skip(&mut one.tables, at, None);
                continue;
            };
            let mine = logged.by.filter(|(by, _)| *by == member && !logged.called_unknown);
            match apply(&mut one.tables, at, payload).unwrap() {
                Applied::Done(entry) => {
                    self.tally.unknown_committed += u64::from(logged.called_unknown && member == 0);
                    if let Some((_, serial)) = mine {
                        one.resolve(serial, Outcome::Done, &mut self.tally);
                    }
                    self.publish(member, &entry);
                }
                Applied::Void => {
                    if let Some((_, serial)) = mine {
                        one.resolve(serial, Outcome::Void, &mut self.tally);
                    }
                }
            }
        }
        self.members[member].inbox.extend(position.map(Command::Applied));
        self.look(member);
    }

    fn deliver_outcomes(&mut self, member: usize) {
        let one = &mut self.members[member];
        while let Some((serial, Some(outcome))) = one.outcomes.front() {
            one.inbox.push_back(Command::Outcome(*serial, *outcome));
            one.outcomes.pop_front();
            if self.dice.random_bool(0.5) {
                break;
            }
        }
    }

    fn deliver_news(&mut self, member: usize) {
        let one = &mut self.members[member];
        one.inbox.extend(one.news.take().map(Command::Leadership));
    }

    fn confirm(&mut self, member: usize) {
        let leads = member == self.leader;
        let term = self.term;
        let one = &mut self.members[member];
        if let Some(asked) = one.confirms.pop_front() {
            let leads = leads && asked == term && self.dice.random_bool(0.8);
            one.inbox.push_back(Command::Confirmed(asked, leads));
        }
    }

    // The planner's thread.

    fn plan(&mut self, member: usize) {
        let now_ms = self.now_ms;
        let one = &mut self.members[member];
        let land = Land { tables: &one.tables, now_ms, growth: Growth::Allowed, guests: Arc::clone(&one.guests) };
        let mut rebase = None;
        for _ in 0..self.dice.random_range(0..=one.inbox.len()) {
            match one.inbox.pop_front() {
                None => break,
                Some(Command::Requests(requests)) => {
                    one.pipeline.requests(requests.into_iter().map(|(token, request)| Item {
                        source: Some(member),
                        token,
                        request,
                    }))
                }
                Some(Command::Applied(position)) => rebase = Some(position),
                Some(Command::Leadership(term)) => one.pipeline.leadership(&land, term).unwrap(),
                Some(Command::Outcome(serial, outcome)) => one.pipeline.outcome(&land, serial, outcome).unwrap(),
                Some(Command::Confirmed(term, leads)) => one.pipeline.confirmed(&land, term, leads).unwrap(),
            }
        }
        if let Some(position) = rebase {
            let was_running = one.pipeline.is_running();
            one.pipeline.applied(&land, position).unwrap();
            self.tally.foreign_bases += u64::from(was_running && !one.pipeline.is_running());
        }
        one.pipeline.turn(&land).unwrap();
        for effect in one.pipeline.take_effects() {
            match effect {
                Effect::Propose { serial, term, payload } => {
                    self.members[member].outcomes.push_back((serial, None));
                    self.members[member].proposals.push_back((serial, term, payload));
                }
                Effect::Tell(_, token, told) => self.told(token, told),
                Effect::Confirm { term } => self.members[member].confirms.push_back(term),
                Effect::Started { .. } => {}
                Effect::Lacks { plugin, why, .. } => panic!("{plugin}: {why}"),
            }
        }
    }

    // Members, and their clients.

    fn ask(&mut self, member: usize) {
        let which = self.dice.random_range(0..self.members[member].clients.len());
        let ask = if self.dice.random_bool(0.15) { Ask::Refuse } else { Ask::Count };
        if which == 0 {
            return self.ask_once(member, ask);
        }
        let client = &mut self.members[member].clients[which];
        if client.unanswered.len() >= DEPTH {
            return;
        }
        let (session, sequence) = (SessionId(client.session), client.next);
        client.next += 1;
        client.unanswered.insert(sequence);
        let floor = client.unanswered.first().copied().unwrap();
        let request = write(session, sequence, floor, op(ask));
        self.submit(member, Origin::Session { session, sequence }, request, ask);
    }

    fn ask_once(&mut self, member: usize, ask: Ask) {
        let number = self.next_nonce;
        self.next_nonce += 1;
        let work = if ask == Ask::Open { Work::Open { timeout_ms: 5_000 } } else { Work::Op(op(ask)) };
        let origin = Origin::Once { principal: ALICE.to_owned(), nonce: nonce(number) };
        self.submit(member, origin, once(number, work), ask);
    }

    fn submit(&mut self, member: usize, origin: Origin, request: Request, ask: Ask) {
        let token = self.next_token;
        self.next_token += 1;
        self.asked.insert(origin.clone(), ask);
        let one = &mut self.members[member];
        one.tokens.insert(token, origin.clone());
        one.waiting.insert(origin, Waiting { token, request: request.clone() });
        if let Some(target) = one.sees {
            one.sent.push_back((target, token, request));
        }
    }

    /// The member's forwarder: turns to who leads, repeats what it was told to repeat.
    fn carry(&mut self, member: usize, rough: bool) {
        let leader = self.leader;
        let one = &mut self.members[member];
        let mut again: Vec<u64> = std::mem::take(&mut one.retry).into_iter().collect();
        if one.sees != Some(leader) || self.dice.random_bool(0.01) {
            one.sees = Some(leader);
            again = one.tokens.keys().copied().collect();
        }
        for token in again {
            if let Some(waiting) = one.tokens.get(&token).and_then(|origin| one.waiting.get(origin)) {
                self.tally.resends += 1;
                one.sent.push_back((leader, token, waiting.request.clone()));
            }
        }
        if rough && !self.old.is_empty() && self.dice.random_bool(0.3) {
            // A late duplicate of what was answered long ago.
            let late = self.old[self.dice.random_range(0..self.old.len())].clone();
            self.tally.duplicates += 1;
            self.members[member].sent.push_back((leader, 0, late));
        }
    }

    fn deliver_requests(&mut self, member: usize) {
        let count = self.dice.random_range(0..=self.members[member].sent.len());
        for (target, token, request) in self.members[member].sent.drain(..count).collect::<Vec<_>>() {
            self.members[target].inbox.push_back(Command::Requests(vec![(token, request)]));
        }
    }

    fn told(&mut self, token: u64, told: Told) {
        let Some(member) = (0..2).find(|member| self.members[*member].tokens.contains_key(&token)) else { return };
        let one = &mut self.members[member];
        match told {
            Told::Resend => drop(one.retry.insert(token)),
            Told::PushBack(_) => {
                self.tally.pushed_back += 1;
                one.retry.insert(token);
            }
            Told::Look(zxid) => {
                self.tally.looks += 1;
                one.looks.push((token, zxid));
                self.look(member);
            }
            Told::Dropped => panic!("{:?} is dropped, and waited for", one.tokens[&token]),
        }
    }

    fn look(&mut self, member: usize) {
        let one = &mut self.members[member];
        let zxid = query::state(&one.tables).unwrap().zxid;
        let (now, later): (Vec<_>, Vec<_>) = one.looks.drain(..).partition(|(_, at)| *at <= zxid);
        one.looks = later;
        for (token, _) in now {
            let one = &mut self.members[member];
            let Some(origin) = one.tokens.get(&token).cloned() else { continue };
            match query::stored(&one.tables, &origin).unwrap() {
                Stored::Reply { zxid, outcome } => self.answer(member, &origin, zxid, &outcome),
                Stored::NotYet => drop(one.retry.insert(token)),
                Stored::SessionOver => panic!("{origin:?}: no session ends here"),
            }
        }
    }

    fn publish(&mut self, member: usize, entry: &Entry) {
        for (zxid, transaction) in entry.numbered() {
            if self.members[member].waiting.contains_key(&transaction.origin) {
                self.answer(member, &transaction.origin, zxid, &transaction.outcome);
            }
        }
    }

    fn answer(&mut self, member: usize, origin: &Origin, zxid: Zxid, outcome: &[u8]) {
        let answer = decode(outcome);
        let one = &mut self.members[member];
        let waiting = one.waiting.remove(origin).unwrap();
        one.tokens.remove(&waiting.token);
        match origin {
            Origin::Session { session, sequence } => {
                let client = one.clients.iter_mut().find(|client| client.session == session.0).unwrap();
                client.unanswered.remove(sequence);
            }
            Origin::Once { .. } => {
                if let Ok(Value::Opened { session, .. }) = &answer {
                    one.clients.push(Client { session: session.0, next: 1, unanswered: BTreeSet::new() });
                }
            }
            Origin::Completion { .. } | Origin::Leader => panic!("nobody waits for the leader's own"),
        }
        self.tally.answered += 1;
        self.tally.refusals += u64::from(answer.is_err());
        self.old.push(waiting.request);
        assert_eq!(self.answers.insert(origin.clone(), (zxid, answer)), None, "answered twice");
    }
}

impl One {
    fn resolve(&mut self, serial: u64, outcome: Outcome, tally: &mut Tally) {
        match outcome {
            Outcome::Done => {}
            Outcome::Rejected => tally.rejected += 1,
            Outcome::Void => tally.void += 1,
            Outcome::Unknown => tally.unknown += 1,
        }
        let told = self.outcomes.iter_mut().find(|(told, known)| *told == serial && known.is_none());
        if let Some((_, known)) = told {
            *known = Some(outcome);
        }
    }
}

fn op(ask: Ask) -> Op {
    match ask {
        Ask::Refuse => Op::Set(Set { path: path("/nowhere"), data: Bytes::new(), if_version: None }),
        Ask::Open | Ask::Count => increment("/n"),
    }
}
