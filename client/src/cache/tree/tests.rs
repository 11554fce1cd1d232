//! The machine against a naive model: random histories, told late and from newer states, show only states that there were.

use proptest::prelude::*;

use super::*;
use crate::fake::World;
use conclave_protocol::{Create, Delete, Op, Set, Stat, Step};

type State = BTreeMap<Path, Present>;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

/// One step of a script.
#[derive(Clone, Debug)]
enum Act {
    Write(Vec<Step>),
    /// The next so many events are told, from the state that there is then.
    Tell(usize),
    /// A new snapshot is taken and told.
    Snapshot,
    /// Everything is told, and a question to the cluster answered.
    Reach,
}

fn step() -> impl Strategy<Value = Step> {
    const PLACES: [&str; 8] = ["/t", "/t/a", "/t/b", "/t/a/x", "/t/a/y", "/t/b/x", "/t/a/x/z", "/o"];
    let place = || prop::sample::select(&PLACES[..]).prop_map(path);
    prop_oneof![
        5 => (place(), any::<u8>()).prop_map(|(path, data)| {
            Step::Create(Create { parents: true, ..Create::new(path, vec![data]) })
        }),
        4 => (place(), any::<u8>()).prop_map(|(path, data)| {
            Step::Set(Set { path, data: vec![data].into(), if_version: None })
        }),
        4 => place().prop_map(|path| Step::Delete(Delete { path, recursive: true, ..Delete::default() })),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop::collection::vec(step(), 1..4).prop_map(Act::Write),
        5 => (1..5_usize).prop_map(Act::Tell),
        1 => Just(Act::Snapshot),
        1 => Just(Act::Reach),
    ]
}

/// A tree, the history that it is told, and every state that there was.
struct Play {
    tree: Tree,
    world: World,
    /// By zxid.
    states: Vec<State>,
    /// How much of the world's history was told.
    told: usize,
    /// What the changes come to.
    mirror: State,
    shown: usize,
}

impl Play {
    fn new() -> Self {
        let mut world = World::default();
        world.silent = true;
        let root = Present { data: bytes::Bytes::new(), stat: Stat::default() };
        world.znodes.insert(Path::root(), root);
        let states = vec![world.znodes.clone()];
        let tree = Tree::new(path("/t"), usize::MAX);
        let mut play = Self { tree, world, states, told: 0, mirror: State::new(), shown: 0 };
        play.snapshot();
        play
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write(steps) => {
                // Refused or not: a transaction, and a state.
                let _ = self.world.write(Op::Multi(steps));
                self.states.push(self.world.znodes.clone());
            }
            Act::Tell(events) => {
                for _ in 0..events {
                    self.tell();
                }
            }
            Act::Snapshot => self.snapshot(),
            Act::Reach => {
                while self.tell() {}
                let set = self.tree.reached(Zxid(self.world.zxid)).unwrap();
                self.check(set);
                assert_eq!(self.tree.shown(), Some(Zxid(self.world.zxid)));
            }
        }
    }

    /// Tells the next event, from the present state; false when there is none.
    fn tell(&mut self) -> bool {
        let Some((zxid, changes)) = self.world.history.get(self.told).cloned() else { return false };
        self.told += 1;
        let ours = |change: &Change| change.path.is_within(&path("/t"));
        let changes: Vec<Change> = changes.into_iter().filter(ours).collect();
        if !changes.is_empty() {
            let present = changes.iter().map(|change| self.world.znodes.get(&change.path).cloned()).collect();
            let set = self.tree.take(WatchEvent::Changes { zxid, changes, present }).unwrap();
            assert!(!self.tree.needs_snapshot(), "nothing is hidden here");
            self.check(set);
        }
        true
    }

    fn snapshot(&mut self) {
        let zxid = Zxid(self.world.zxid);
        let entry = |(path, znode): (&Path, &Present)| TreeEntry {
            path: path.clone(),
            stat: znode.stat,
            data: Some(znode.data.clone()),
        };
        let entries: Vec<TreeEntry> =
            self.world.znodes.iter().filter(|(other, _)| other.is_within(&path("/t"))).map(entry).collect();
        let mut part = 0;
        for entries in entries.chunks(2) {
            let event = WatchEvent::Snapshot { zxid, part, entries: entries.to_vec(), more: true };
            assert!(self.tree.take(event).unwrap().is_none(), "half a snapshot is not seen");
            part += 1;
        }
        let set = self.tree.take(WatchEvent::Snapshot { zxid, part, entries: Vec::new(), more: false }).unwrap();
        self.told = self.world.history.len();
        self.check(set);
        assert_eq!(self.tree.shown(), Some(zxid));
    }

    /// What is seen is what was, and the changes come to it.
    fn check(&mut self, set: Option<Arc<ChangeSet>>) {
        let shown = self.tree.shown().unwrap();
        if let Some(set) = set {
            assert!(set.from <= set.to && set.to == shown && !set.changes.is_empty());
            for CacheChange { path, before, after } in &set.changes {
                assert_eq!(self.mirror.get(path), before.as_ref());
                match after {
                    Some(after) => self.mirror.insert(path.clone(), after.clone()),
                    None => self.mirror.remove(path),
                };
            }
            self.shown += 1;
        }
        let seen: State = self.tree.view().nodes().map(|(path, node)| (path.clone(), node.present.clone())).collect();
        assert_eq!(seen, self.mirror);
        let was = self.states[usize::try_from(shown.0).unwrap()].iter();
        let was: State =
            was.filter(|(other, _)| other.is_within(&path("/t"))).map(|(p, z)| (p.clone(), z.clone())).collect();
        assert_eq!(timeless(seen), timeless(was), "at {shown}");
        let below: Vec<Path> = self.tree.view().below(&path("/t")).map(|(path, _)| path.clone()).collect();
        let mut listed: Vec<Path> = self.mirror.keys().cloned().collect();
        listed.sort_by(|a, b| a.names().cmp(b.names()));
        assert_eq!(below, listed, "the children are those of the znodes");
    }
}

/// Without the one time that is not kept.
fn timeless(mut state: State) -> State {
    for znode in state.values_mut() {
        znode.stat.children_modified_ms = 0;
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_seen_is_always_a_state_that_there_was(acts in prop::collection::vec(act(), 1..60)) {
        let mut play = Play::new();
        for act in acts {
            play.act(act);
        }
        // The moment at which all is visible comes by itself.
        while play.tell() {}
        assert!(!play.tree.is_waiting());
        let last = play.world.history.iter().rev().find(|(_, changes)| {
            changes.iter().any(|change| change.path.is_within(&path("/t")))
        });
        assert!(last.is_none_or(|(zxid, _)| play.tree.shown() >= Some(*zxid)));
    }
}

fn create(at: &str) -> Act {
    Act::Write(vec![Step::Create(Create::new(path(at), ""))])
}

fn delete(at: &str) -> Act {
    Act::Write(vec![Step::Delete(Delete { path: path(at), recursive: true, ..Delete::default() })])
}

#[test]
fn events_told_from_a_newer_state_are_seen_when_that_state_is_told() {
    let mut play = Play::new();
    let set =
        |data: &'static str| Act::Write(vec![Step::Set(Set { path: path("/t"), data: data.into(), if_version: None })]);
    for act in [create("/t"), set("1"), create("/t/a"), delete("/t/a"), set("2")] {
        play.act(act);
    }
    for _ in 0..4 {
        play.act(Act::Tell(1));
        assert_eq!(play.tree.shown(), Some(Zxid(0)), "its znode is that of a later zxid");
        assert!(play.tree.is_waiting());
    }
    play.act(Act::Tell(1));
    assert_eq!((play.tree.shown(), play.shown), (Some(Zxid(5)), 1));
    let stat = play.tree.view().get(&path("/t")).unwrap().present.stat;
    assert_eq!((stat.version, stat.children, stat.children_version), (2, 0, 2));
}

/// A tree that shows `/t` and `/t/a`, as of 10.
fn shown() -> Tree {
    let mut tree = Tree::new(path("/t"), 10_000);
    let stat = |children| Stat {
        created: Zxid(5),
        modified: Zxid(5),
        children_modified: Zxid(5),
        children,
        ..Stat::default()
    };
    let entry = |at, children| TreeEntry { path: path(at), stat: stat(children), data: Some("d".into()) };
    let entries = vec![entry("/t", 1), entry("/t/a", 0)];
    tree.take(WatchEvent::Snapshot { zxid: Zxid(10), part: 0, entries, more: false }).unwrap().unwrap();
    tree
}

fn tell(tree: &mut Tree, zxid: u64, kind: ChangeKind, at: &str, present: bool) -> Option<Arc<ChangeSet>> {
    let changes = vec![Change { kind, path: path(at), version: 0 }];
    let stat = Stat { created: Zxid(5), modified: Zxid(5), children_modified: Zxid(5), ..Stat::default() };
    let present = vec![present.then(|| Present { data: "e".into(), stat })];
    tree.take(WatchEvent::Changes { zxid: Zxid(zxid), changes, present }).unwrap()
}

#[test]
fn what_cannot_be_read_any_more_is_taken_away_once_that_is_clear() {
    let mut tree = shown();
    assert_eq!(tell(&mut tree, 11, ChangeKind::Acl, "/t/a", false), None);
    assert!(tree.is_waiting() && tree.view().get(&path("/t/a")).is_some(), "gone, or not to be read?");
    let set = tree.reached(Zxid(12)).unwrap().unwrap();
    assert!(matches!(&set.changes[..], [CacheChange { before: Some(_), after: None, .. }]));
    assert_eq!((set.from, set.to), (Zxid(10), Zxid(12)));
    assert!(!tree.needs_snapshot() && !tree.is_waiting());
    // What happens below it does not show.
    assert_eq!(tell(&mut tree, 13, ChangeKind::Created, "/t/a/b", true), None);
    assert_eq!(tell(&mut tree, 14, ChangeKind::Data, "/t/a/b", true), None);
    assert_eq!((tree.view().len(), tree.shown()), (1, Some(Zxid(14))));
    assert!(!tree.needs_snapshot());
}

#[test]
fn what_has_become_readable_takes_a_new_snapshot() {
    let mut tree = shown();
    assert_eq!(tell(&mut tree, 11, ChangeKind::Acl, "/t/b", true), None);
    assert_eq!(tree.shown(), Some(Zxid(10)));
    assert!(tree.needs_snapshot() && !tree.needs_snapshot());

    let mut tree = shown();
    tell(&mut tree, 11, ChangeKind::Acl, "/t/a", false);
    tell(&mut tree, 12, ChangeKind::Acl, "/t/a", true);
    assert!(!tree.needs_snapshot(), "it may be another one, whose creation is told next");
    assert_eq!(tree.reached(Zxid(13)).unwrap(), None);
    assert!(tree.needs_snapshot());
}

#[test]
fn a_tree_that_outgrows_its_limit_is_refused() {
    let mut tree = Tree::new(path("/t"), 1_500);
    let entry =
        |at: &str, bytes| TreeEntry { path: path(at), stat: Stat::default(), data: Some(vec![0; bytes].into()) };
    let snapshot =
        |bytes| WatchEvent::Snapshot { zxid: Zxid(1), part: 0, entries: vec![entry("/t", bytes)], more: true };
    assert!(tree.take(snapshot(1_000)).is_ok());
    let refusal = tree.take(snapshot(1_200)).unwrap_err();
    assert!(matches!(refusal, Refusal::Limit { limit: 1_500, .. }), "{refusal}");

    let mut tree = shown();
    let changes = vec![Change { kind: ChangeKind::Data, path: path("/t"), version: 1 }];
    let stat = Stat { modified: Zxid(11), ..Stat::default() };
    let present = vec![Some(Present { data: vec![0; 10_000].into(), stat })];
    assert!(tree.take(WatchEvent::Changes { zxid: Zxid(11), changes, present }).is_err());
}
