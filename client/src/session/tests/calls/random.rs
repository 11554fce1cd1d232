//! Random scripts of calls against a small member: what it has given away is exactly what callers have.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Act {
    Call {
        bounded: bool,
    },
    Write,
    /// Of the calls that wait: the future is dropped.
    Drop(usize),
    /// Of the results that were delivered: it is taken, or its future dropped.
    Take(usize, bool),
    /// So many frames reach the member; calls are done at once, or park.
    Arrive(usize, bool),
    /// Of the parked calls: it is done.
    Complete(usize),
    Return(usize),
    Push,
    Cut,
    Connect,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => any::<bool>().prop_map(|bounded| Act::Call { bounded }),
        2 => Just(Act::Write),
        2 => any::<usize>().prop_map(Act::Drop),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, taken)| Act::Take(which, taken)),
        6 => (1..5_usize, any::<bool>()).prop_map(|(frames, parks)| Act::Arrive(frames, parks)),
        3 => any::<usize>().prop_map(Act::Complete),
        6 => (1..5_usize).prop_map(Act::Return),
        1 => Just(Act::Push),
        1 => Just(Act::Cut),
        2 => Just(Act::Connect),
        2 => (1..700_u64).prop_map(Act::Pass),
    ]
}

/// What the member knows of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Answered,
    Completed,
}

/// A member, as far as calls go.
#[derive(Default)]
struct Member {
    next: u64,
    zxid: u64,
    replies: BTreeMap<u64, Stored>,
    calls: BTreeMap<u64, Phase>,
    /// Tags of calls by their sequence.
    tags: BTreeMap<u64, u64>,
    /// Tags of the calls that have what they asked for.
    held: BTreeSet<u64>,
    inbox: Vec<ClientMessage>,
    outbox: Vec<ServerMessage>,
}

impl Member {
    fn receive(&mut self, message: &ClientMessage, parks: bool) {
        let id = id(message);
        match message {
            ClientMessage::Heartbeat { .. } => self.outbox.push(alive(id)),
            ClientMessage::Write { sequence, floor, completed, op, .. } => {
                if *sequence > self.next {
                    let why = PushBack::Expected { next: self.next };
                    return self.outbox.push(ServerMessage::PushBack { id, why });
                }
                if *sequence == self.next {
                    self.next += 1;
                    self.zxid += 1;
                    let outcome = self.carry_out(*sequence, op, parks);
                    self.acknowledge(*floor, completed);
                    self.replies.insert(*sequence, outcome);
                }
                let outcome = self.replies.get(sequence).expect("a reply that was given up is asked for").clone();
                self.outbox.push(reply(id, self.zxid, outcome));
            }
            other => panic!("{other:?}"),
        }
    }

    fn acknowledge(&mut self, floor: u64, completed: &[u64]) {
        self.replies.retain(|sequence, _| *sequence >= floor);
        self.calls.retain(|sequence, phase| match phase {
            Phase::Waiting => true,
            Phase::Answered => *sequence >= floor,
            Phase::Completed => !completed.contains(sequence),
        });
    }

    fn carry_out(&mut self, sequence: u64, op: &Op, parks: bool) -> Stored {
        match op {
            Op::Call(call) => {
                let tag = std::str::from_utf8(&call.args).unwrap().parse().unwrap();
                self.tags.insert(sequence, tag);
                self.calls.insert(sequence, if parks { Phase::Waiting } else { Phase::Answered });
                if parks {
                    return Ok(Value::Parked);
                }
                self.held.insert(tag);
                value("mine")
            }
            Op::Cancel { sequence } => match self.calls.remove(sequence) {
                Some(_) => {
                    self.held.remove(&self.tags[sequence]);
                    Ok(Value::Cancelled)
                }
                None => Err(Refusal::AlreadyDone { sequence: *sequence }),
            },
            _ => Ok(Value::Checked),
        }
    }

    fn complete(&mut self, which: usize) {
        let waiting: Vec<u64> = self.calls.iter().filter(|(_, p)| **p == Phase::Waiting).map(|(s, _)| *s).collect();
        if let Some(sequence) = waiting.get(which % waiting.len().max(1)) {
            self.zxid += 1;
            self.calls.insert(*sequence, Phase::Completed);
            self.held.insert(self.tags[sequence]);
            self.outbox.push(completed(*sequence, self.zxid, value("mine")));
        }
    }

    /// The session is attached: completions are told again.
    fn attached(&mut self) {
        self.inbox.clear();
        self.outbox.clear();
        for (sequence, phase) in &self.calls {
            if *phase == Phase::Completed {
                self.outbox.push(completed(*sequence, self.zxid, value("mine")));
            }
        }
    }
}

struct Play {
    machine: Machine,
    member: Member,
    now: Moment,
    tag: u64,
    /// Tags of calls whose callers wait.
    waiting: BTreeMap<Ticket, u64>,
    /// Tags of those that were told, and have not taken it.
    delivered: Vec<(Ticket, u64)>,
    /// Tags of those who have what they asked for.
    have: BTreeSet<u64>,
    /// Tags of those of whom nothing is known.
    unknown: BTreeSet<u64>,
}

impl Play {
    fn new() -> Self {
        let member = Member { next: 1, ..Member::default() };
        let (waiting, delivered, have, unknown) = Default::default();
        Self { machine: open(), member, now: at(10), tag: 0, waiting, delivered, have, unknown }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Call { bounded } => {
                self.tag += 1;
                let within = Duration::from_millis(if bounded { 600 } else { 60_000 });
                let ticket = self.machine.handle_request(self.now, call(self.tag, true, bounded), within);
                self.waiting.insert(ticket, self.tag);
            }
            Act::Write => {
                self.machine.handle_request(self.now, write(0), WITHIN);
            }
            Act::Drop(which) => {
                let tickets: Vec<Ticket> = self.waiting.keys().copied().collect();
                if let Some(ticket) = tickets.get(which % tickets.len().max(1)) {
                    self.waiting.remove(ticket);
                    self.machine.handle_withdrawn(*ticket);
                }
            }
            Act::Take(which, taken) => {
                if !self.delivered.is_empty() {
                    let (ticket, tag) = self.delivered.remove(which % self.delivered.len());
                    if taken {
                        self.machine.handle_taken(ticket);
                        self.have.insert(tag);
                    } else {
                        self.machine.handle_withdrawn(ticket);
                    }
                }
            }
            Act::Arrive(frames, parks) => {
                self.member.inbox.extend(sent(&mut self.machine, self.now));
                let frames = frames.min(self.member.inbox.len());
                for frame in self.member.inbox.drain(..frames).collect::<Vec<_>>() {
                    self.member.receive(&frame, parks);
                }
            }
            Act::Push => {
                self.member.inbox.extend(sent(&mut self.machine, self.now));
                if !self.member.inbox.is_empty() {
                    let id = id(&self.member.inbox.remove(0));
                    self.member.outbox.push(ServerMessage::PushBack { id, why: PushBack::Busy });
                }
            }
            Act::Complete(which) => self.member.complete(which),
            Act::Return(frames) => {
                let frames = frames.min(self.member.outbox.len());
                for frame in self.member.outbox.drain(..frames).collect::<Vec<_>>() {
                    self.machine.handle_message(self.now, frame);
                }
            }
            Act::Cut => {
                self.machine.handle_disconnect();
                self.member.inbox.clear();
                self.member.outbox.clear();
            }
            Act::Connect => {
                if !self.machine.is_connected() {
                    connect(&mut self.machine, self.now);
                    self.member.attached();
                }
            }
            Act::Pass(ms) => self.now = self.now.after(Duration::from_millis(ms)),
        }
        self.machine.handle_timeout(self.now);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            let Event::Done { ticket, result } = event else { continue };
            let Some(tag) = self.waiting.remove(&ticket) else { continue };
            match result {
                Ok(_) => self.delivered.push((ticket, tag)),
                Err(Error::TimedOut { .. }) => {}
                Err(Error::Unknown { .. }) => drop(self.unknown.insert(tag)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Everything that is on its way arrives, and the member renews the lease meanwhile.
    fn quiet(&mut self) {
        self.act(Act::Connect);
        for _ in 0..200 {
            self.act(Act::Pass(20));
            self.act(Act::Arrive(100, false));
            self.act(Act::Return(200));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_member_has_given_away_is_what_callers_have(script in proptest::collection::vec(act(), 1..80)) {
        let mut play = Play::new();
        for act in script {
            play.act(act);
            // The lease is not what this is about.
            prop_assume!(play.now < at(8_500));
        }
        play.quiet();
        while !play.member.calls.values().all(|phase| *phase != Phase::Waiting) {
            play.act(Act::Complete(0));
            play.quiet();
        }
        while !play.delivered.is_empty() {
            play.act(Act::Take(0, true));
        }
        play.quiet();
        prop_assert!(play.waiting.is_empty(), "calls without an end: {:?}", play.waiting);
        prop_assert_eq!(&play.member.held, &play.have, "given away, and had; unknown: {:?}", play.unknown);
    }
}
