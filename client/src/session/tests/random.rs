//! Random scripts against a small member: exactly once, in order, and never a false "it did not happen".

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// One step of a script.
#[derive(Clone, Copy, Debug)]
enum Act {
    Write,
    Once,
    Read,
    /// So many frames reach the member; the next may be pushed back.
    Arrive(usize, Option<Push>),
    /// So many frames reach the client.
    Return(usize),
    Cut,
    Connect,
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum Push {
    Busy,
    NotReady,
}

fn act() -> impl Strategy<Value = Act> {
    let push = prop_oneof![4 => Just(None), 1 => Just(Some(Push::Busy)), 1 => Just(Some(Push::NotReady))];
    prop_oneof![
        5 => Just(Act::Write),
        3 => Just(Act::Once),
        3 => Just(Act::Read),
        5 => (1..6_usize, push).prop_map(|(frames, push)| Act::Arrive(frames, push)),
        5 => (1..6_usize).prop_map(Act::Return),
        1 => Just(Act::Cut),
        2 => Just(Act::Connect),
        2 => (1..1_500_u64).prop_map(Act::Pass),
        // Past deadlines, and sometimes past the lease.
        1 => (1_500..6_000_u64).prop_map(Act::Pass),
    ]
}

/// A member with the cluster behind it: carries writes out, remembers replies, speaks in order.
#[derive(Default)]
struct Member {
    /// Tags of the writes that were carried out.
    log: Vec<u64>,
    floor: u64,
    /// Replies of the session from the floor on: zxid by sequence.
    replies: Vec<(u64, u64)>,
    next: u64,
    onces: HashMap<Nonce, u64>,
    opened: Option<Nonce>,
    renewed: Option<Moment>,
    inbox: Vec<ClientMessage>,
    outbox: Vec<ServerMessage>,
    /// How many reads were answered.
    reads: u64,
}

fn tag(op: &Op) -> u64 {
    match op {
        Op::Set(set) => std::str::from_utf8(&set.data).unwrap().parse().unwrap(),
        _ => panic!("{op:?}"),
    }
}

impl Member {
    fn zxid(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    fn carry_out(&mut self, op: &Op) -> u64 {
        self.log.push(tag(op));
        self.zxid()
    }

    fn receive(&mut self, now: Moment, message: &ClientMessage, push: Option<Push>) {
        let id = id(message);
        if let Some(push) = push {
            let why = match push {
                Push::Busy => PushBack::Busy,
                Push::NotReady => PushBack::NotReady,
            };
            return self.outbox.push(ServerMessage::PushBack { id, why });
        }
        let answer = match message {
            ClientMessage::Open { nonce, .. } => {
                let known = *self.opened.get_or_insert(*nonce);
                assert_eq!(known, *nonce, "a second session");
                self.renewed.get_or_insert(now);
                self.next = self.next.max(1);
                reply(id, 1, Ok(Value::Opened { session: SESSION, timeout_ms: 10_000 }))
            }
            ClientMessage::Write { sequence, floor, op, .. } => {
                assert!(*floor >= self.floor, "the floor goes back");
                self.floor = *floor;
                self.replies.retain(|(sequence, _)| sequence >= floor);
                if let Some((_, zxid)) = self.replies.iter().find(|(known, _)| known == sequence) {
                    was_set(id, *zxid)
                } else if *sequence == self.next {
                    self.next += 1;
                    let zxid = self.carry_out(op);
                    self.replies.push((*sequence, zxid));
                    was_set(id, zxid)
                } else {
                    assert!(*sequence > self.next, "a write below the floor is sent again");
                    ServerMessage::PushBack { id, why: PushBack::Expected { next: self.next } }
                }
            }
            ClientMessage::Once { nonce, op, .. } => {
                let zxid = match self.onces.get(nonce) {
                    Some(zxid) => *zxid,
                    None => self.carry_out(op),
                };
                self.onces.insert(*nonce, zxid);
                was_set(id, zxid)
            }
            ClientMessage::Read { .. } => {
                self.reads += 1;
                exists(id, self.zxid())
            }
            ClientMessage::Heartbeat { .. } => {
                self.renewed = Some(now);
                alive(id)
            }
            other => panic!("{other:?}"),
        };
        self.outbox.push(answer);
    }
}

struct World {
    now: Moment,
    machine: Machine,
    member: Member,
    connected: bool,
    /// By ticket: the write's tag, and whether it went through the session; none for a read.
    asked: HashMap<Ticket, Option<(u64, bool)>>,
    done: HashMap<Ticket, Result<Done, Error>>,
    tags: u64,
}

impl World {
    fn new() -> Self {
        Self {
            now: at(0),
            machine: machine(),
            member: Member::default(),
            connected: false,
            asked: HashMap::new(),
            done: HashMap::new(),
            tags: 0,
        }
    }

    fn ask_write(&mut self, in_session: bool) {
        self.tags += 1;
        let through = in_session || self.machine.has_session();
        let ask = if in_session { write(self.tags) } else { once(self.tags) };
        let within = if self.tags.is_multiple_of(3) { WITHIN / 10 } else { WITHIN };
        let ticket = self.machine.handle_request(self.now, ask, within);
        self.asked.insert(ticket, Some((self.tags, through)));
    }

    fn step(&mut self, act: Act) {
        match act {
            Act::Write => self.ask_write(true),
            Act::Once => self.ask_write(false),
            Act::Read => {
                let ticket = self.machine.handle_request(self.now, read(), WITHIN);
                self.asked.insert(ticket, None);
            }
            Act::Arrive(frames, mut push) => {
                for _ in 0..frames.min(self.member.inbox.len()) {
                    let message = self.member.inbox.remove(0);
                    self.member.receive(self.now, &message, push.take());
                }
            }
            Act::Return(frames) => {
                for _ in 0..frames.min(self.member.outbox.len()) {
                    let message = self.member.outbox.remove(0);
                    self.machine.handle_message(self.now, message);
                }
            }
            Act::Cut => self.cut(),
            Act::Connect if !self.connected => {
                connect(&mut self.machine, self.now);
                self.connected = true;
            }
            Act::Connect => {}
            Act::Pass(ms) => {
                self.now = self.now.after(Duration::from_millis(ms));
                self.machine.handle_timeout(self.now);
            }
        }
        self.settle();
    }

    fn cut(&mut self) {
        self.machine.handle_disconnect();
        self.connected = false;
        self.member.inbox.clear();
        self.member.outbox.clear();
    }

    fn settle(&mut self) {
        let mut leave = false;
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Done { ticket, result } => {
                    let before = self.done.insert(ticket, result);
                    assert!(before.is_none(), "ticket {ticket} is done twice");
                }
                Event::Leave { .. } => leave = true,
                other => panic!("{other:?}"),
            }
        }
        if leave {
            self.cut();
        }
        self.member.inbox.extend(sent(&mut self.machine, self.now));
        if let (Some(ends), Some(renewed)) = (self.machine.lease_ends(), self.member.renewed) {
            assert!(ends < renewed.after(TIMEOUT), "the client believes in its session longer than the cluster");
        }
    }

    /// Plays without faults until everything is answered.
    fn calm(&mut self) {
        for _ in 0..500 {
            if self.machine.len() == 0 {
                return;
            }
            for act in [Act::Connect, Act::Arrive(usize::MAX, None), Act::Return(usize::MAX), Act::Pass(50)] {
                self.step(act);
            }
        }
        panic!("{} requests are never answered", self.machine.len());
    }

    fn check(&self) {
        let log = &self.member.log;
        let carried_out: HashSet<_> = log.iter().copied().collect();
        assert_eq!(carried_out.len(), log.len(), "a write was carried out twice: {log:?}");
        let place = |tag| log.iter().position(|one| *one == tag);
        let mut session = Vec::new();
        let mut tickets: Vec<_> = self.asked.iter().collect();
        tickets.sort_unstable_by_key(|(ticket, _)| **ticket);
        for (ticket, asked) in tickets {
            let result = self.done.get(ticket).unwrap_or_else(|| panic!("ticket {ticket} has no end"));
            match (asked, result) {
                (Some((tag, through)), Ok(done)) => {
                    assert_eq!(place(*tag), Some(done.zxid.0 as usize - 2), "its own reply");
                    if *through {
                        session.push(*tag);
                    }
                }
                (Some((tag, through)), Err(error)) => {
                    if error.outcome() == Outcome::NotApplied {
                        assert_eq!(place(*tag), None, "{error}, but it was carried out");
                    } else if *through && place(*tag).is_some() {
                        session.push(*tag);
                    }
                }
                (None, Ok(done)) => {
                    let length = done.zxid.0 as usize - 1;
                    for tag in &session {
                        assert!(place(*tag) < Some(length), "a read does not see write {tag}, issued before it");
                    }
                }
                (None, Err(error)) => assert_eq!(error.outcome(), Outcome::NotApplied),
            }
        }
        let places: Vec<_> = session.iter().map(|tag| place(*tag)).collect();
        assert!(places.is_sorted(), "session writes were carried out out of order: {places:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn writes_are_carried_out_once_in_order_and_reads_see_them(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        for act in acts {
            world.step(act);
        }
        world.calm();
        world.check();
    }
}

#[test]
fn an_undisturbed_script_answers_everything_with_yes() {
    let mut world = World::new();
    for act in [Act::Once, Act::Write, Act::Read, Act::Write, Act::Once, Act::Read] {
        world.step(act);
    }
    world.calm();
    world.check();
    assert!(world.done.values().all(Result::is_ok));
    assert_eq!((world.member.log.len(), world.member.reads), (4, 2));
}
