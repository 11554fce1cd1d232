//! The registry against the rule: whoever is to be told is found by the index, and nobody else.
#![allow(clippy::unwrap_used)]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const ONE: ConnectionId = ConnectionId(1);

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn change(kind: ChangeKind, at: &str) -> Recorded {
    Recorded { change: Change { kind, path: path(at), version: 0 }, acl: 0, beside: 0 }
}

fn watch(id: u64, at: &str, scope: Scope) -> WatchRequest {
    WatchRequest::new(WatchId(id), path(at), scope)
}

/// The rule as the protocol words it.
fn is_told(watch: &WatchRequest, change: &Change) -> bool {
    let is_there = change.path == watch.path;
    let is_child = change.path.parent().as_ref() == Some(&watch.path);
    let created = change.kind == ChangeKind::Created;
    let deleted = change.kind == ChangeKind::Deleted;
    let is_in_scope = match watch.scope {
        Scope::Data => is_there,
        Scope::Existence => is_there && (created || deleted),
        Scope::Children => is_child && (created || deleted) || is_there && deleted,
        Scope::Subtree => change.path.is_within(&watch.path),
    };
    let is_of_kind = watch.kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind == change.kind));
    let name = change.path.name().unwrap_or("");
    is_in_scope && is_of_kind && watch.names.as_ref().is_none_or(|names| names.matches(name))
}

/// Who is told of which changes, by the index; it must be what the rule says.
fn told(watches: &[WatchRequest], changes: &[Recorded]) -> Vec<(u64, Vec<u32>)> {
    let mut registry = Watches::default();
    for watch in watches {
        registry.add(ConnectionId(watch.watch.0 % 3), watch, Zxid(0));
    }
    let matching = registry.matching(Zxid(1), changes);
    let mut by_index: Vec<_> = matching.into_iter().map(|it| (it.watcher.1.0, it.indices.to_vec())).collect();
    by_index.sort_unstable();
    let indices = |watch: &WatchRequest| -> Vec<u32> {
        (0..).zip(changes).filter(|(_, it)| is_told(watch, &it.change)).map(|(index, _)| index).collect()
    };
    let by_rule = watches.iter().map(|watch| (watch.watch.0, indices(watch)));
    let mut by_rule: Vec<_> = by_rule.filter(|(_, indices)| !indices.is_empty()).collect();
    by_rule.sort_unstable();
    assert_eq!(by_index, by_rule, "the index and the rule agree on {changes:?}");
    by_index
}

#[test]
fn each_scope_is_told_of_what_it_covers() {
    let all = [
        watch(1, "/a", Scope::Data),
        watch(2, "/a", Scope::Children),
        watch(3, "/a", Scope::Subtree),
        watch(4, "/", Scope::Subtree),
        watch(5, "/", Scope::Children),
        watch(6, "/a/b", Scope::Data),
        watch(7, "/a", Scope::Existence),
        watch(8, "/", Scope::Data),
    ];
    let told = |kind, at| told(&all, &[change(kind, at)]).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(told(ChangeKind::Created, "/a"), [1, 3, 4, 5, 7]);
    assert_eq!(told(ChangeKind::Data, "/a"), [1, 3, 4]);
    assert_eq!(told(ChangeKind::Acl, "/a"), [1, 3, 4]);
    assert_eq!(told(ChangeKind::Deleted, "/a"), [1, 2, 3, 4, 5, 7]);
    assert_eq!(told(ChangeKind::Created, "/a/b"), [2, 3, 4, 6]);
    assert_eq!(told(ChangeKind::Data, "/a/b"), [3, 4, 6]);
    assert_eq!(told(ChangeKind::Acl, "/a/b"), [3, 4, 6]);
    assert_eq!(told(ChangeKind::Created, "/a/b/c"), [3, 4]);
    assert_eq!(told(ChangeKind::Created, "/ab"), [4, 5]);
    assert_eq!(told(ChangeKind::Data, "/"), [4, 8]);
}

#[test]
fn kinds_and_names_narrow_what_is_told() {
    let kinds =
        |id, kinds: &[ChangeKind]| WatchRequest { kinds: Some(Kinds::of(kinds)), ..watch(id, "/a", Scope::Subtree) };
    let names =
        |id, pattern: &str| WatchRequest { names: Some(pattern.parse().unwrap()), ..watch(id, "/a", Scope::Subtree) };
    let all = [kinds(1, &[ChangeKind::Data]), kinds(2, &[]), names(3, "*.json"), names(4, "*"), names(5, "a")];
    let changes = [
        change(ChangeKind::Created, "/a/x.json"),
        change(ChangeKind::Data, "/a/x.json/y"),
        change(ChangeKind::Deleted, "/a"),
    ];
    assert_eq!(told(&all, &changes), [(1, vec![1]), (3, vec![0]), (4, vec![0, 1, 2]), (5, vec![2])]);
}

#[test]
fn the_index_and_the_rule_agree_on_random_watches_and_changes() {
    let mut random = StdRng::seed_from_u64(4);
    let mut any = 0;
    for _ in 0..2_000 {
        let mut at = || {
            let names = (0..random.random_range(0..4)).map(|_| ["/a", "/b", "/ab"][random.random_range(0..3)]);
            let text: String = names.collect();
            (path(if text.is_empty() { "/" } else { &text }), random.random::<u64>())
        };
        let watches: Vec<WatchRequest> = (0..12)
            .map(|id| {
                let (path, dice) = at();
                let scopes = [Scope::Data, Scope::Existence, Scope::Children, Scope::Subtree];
                let scope = scopes[dice as usize % 4];
                let kinds: Vec<_> = ChangeKind::ALL.into_iter().filter(|kind| dice >> *kind as u32 & 16 != 0).collect();
                let kinds = (dice & 1 << 20 != 0).then(|| Kinds::of(&kinds));
                let pattern = ["a", "a*", "?", "*b", "*"][(dice >> 24) as usize % 5];
                let names = (dice & 1 << 21 != 0).then(|| pattern.parse().unwrap());
                WatchRequest { kinds, names, ..WatchRequest::new(WatchId(id), path, scope) }
            })
            .collect();
        let changes: Vec<Recorded> = (0..5)
            .map(|_| {
                let (path, dice) = at();
                let change = Change { kind: ChangeKind::ALL[dice as usize % 4], path, version: 0 };
                Recorded { change, acl: 0, beside: 0 }
            })
            .collect();
        any += told(&watches, &changes).len();
    }
    assert!(any > 5_000, "only {any} watches were told anything");
}

#[test]
fn a_watch_is_not_told_of_what_it_was_told_of_already() {
    let mut watches = Watches::default();
    watches.add(ConnectionId(1), &watch(1, "/a", Scope::Data), Zxid(5));
    let changes = [change(ChangeKind::Data, "/a")];
    assert!(watches.matching(Zxid(5), &changes).is_empty());
    assert_eq!(watches.matching(Zxid(6), &changes).len(), 1);
    watches.told((ConnectionId(1), WatchId(1)), Zxid(6));
    assert!(watches.matching(Zxid(6), &changes).is_empty());
    assert_eq!(watches.least_after(), Some(Zxid(6)));
}

#[test]
fn those_behind_are_those_not_told_of_everything_and_one_shot_ones_end() {
    let mut watches = Watches::default();
    let [old, new, once] = [1, 2, 3].map(|n| (ConnectionId(n), WatchId(1)));
    watches.add(old.0, &watch(1, "/a", Scope::Data), Zxid(4));
    watches.add(new.0, &watch(1, "/a", Scope::Data), Zxid(9));
    watches.add(once.0, &WatchRequest { once: true, ..watch(1, "/b", Scope::Data) }, Zxid(4));
    assert_eq!(watches.behind(Zxid(9)), [old, once]);
    assert!(watches.contains(old) && watches.contains(new) && !watches.contains(once));
}

#[test]
fn watchers_of_one_znode_share_what_they_are_told() {
    let mut watches = Watches::default();
    for n in 0..100 {
        watches.add(ConnectionId(n % 8), &watch(n, "/a", Scope::Data), Zxid(0));
    }
    let told = watches.matching(Zxid(1), &[change(ChangeKind::Data, "/a")]);
    assert_eq!(told.len(), 100);
    assert!(told.iter().all(|it| Arc::ptr_eq(&it.indices, &told[0].indices)));
}

#[test]
fn removed_watches_leave_nothing_behind() {
    let mut random = StdRng::seed_from_u64(7);
    let mut watches = Watches::default();
    let mut standing = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let (connection, id) = (ConnectionId(random.random_range(0..4)), random.random_range(0..50));
        match random.random_range(0..40) {
            0 => {
                watches.remove_all(connection);
                standing.retain(|(of, _)| *of != connection);
            }
            1..20 => assert_eq!(watches.remove((connection, WatchId(id))), standing.remove(&(connection, id))),
            _ => {
                let at = format!("/a/b{}", random.random_range(0..5));
                watches.add(connection, &watch(id, &at, Scope::Data), Zxid(0));
                standing.insert((connection, id));
            }
        }
        assert_eq!(watches.len(), standing.len());
        assert_eq!(watches.count(connection), standing.iter().filter(|(of, _)| *of == connection).count());
    }
    let changes: Vec<Recorded> = (0..5).map(|n| change(ChangeKind::Data, &format!("/a/b{n}"))).collect();
    let told = watches.matching(Zxid(1), &changes).into_iter().map(|it| (it.watcher.0, it.watcher.1.0));
    assert_eq!(told.collect::<std::collections::BTreeSet<_>>(), standing, "each is where it was put last");
    watches.retain(|_| false);
    assert!(watches.places.is_empty() && watches.connections.is_empty() && watches.len() == 0);
}

#[test]
fn the_watches_of_another_registry_are_taken_over() {
    let mut watches = Watches::default();
    watches.add(ConnectionId(1), &watch(1, "/a", Scope::Data), Zxid(3));
    let mut other = Watches::default();
    other.add(ConnectionId(1), &watch(1, "/b", Scope::Data), Zxid(3));
    other.add(ConnectionId(1), &watch(2, "/b", Scope::Data), Zxid(3));
    watches.absorb(other, Zxid(9));
    assert_eq!(watches.len(), 2);
    assert!(watches.matching(Zxid(9), &[change(ChangeKind::Data, "/b")]).is_empty());
    assert_eq!(watches.matching(Zxid(10), &[change(ChangeKind::Data, "/b")]).len(), 2);
    assert!(watches.matching(Zxid(10), &[change(ChangeKind::Data, "/a")]).is_empty());
}

#[test]
fn watches_that_want_the_same_get_the_same_list_also_with_patterns() {
    let mut registry = Watches::default();
    let names = |text: &str| Some(text.parse::<Pattern>().unwrap());
    for id in 0..1_000 {
        // Every other one has another pattern.
        let pattern = if id % 2 == 0 { "a*" } else { "b*" };
        registry.add(ONE, &WatchRequest { names: names(pattern), ..watch(id, "/", Scope::Subtree) }, Zxid(0));
    }
    let changes = [change(ChangeKind::Data, "/x/a1"), change(ChangeKind::Data, "/x/b1")];
    let matching = registry.matching(Zxid(1), &changes);
    assert_eq!(matching.len(), 1_000);
    let lists: std::collections::HashSet<*const u32> = matching.iter().map(|it| it.indices.as_ptr()).collect();
    assert_eq!(lists.len(), 2, "each was matched alone");
}

#[test]
fn watches_with_patterns_are_counted_for_as_long_as_they_stand() {
    let mut registry = Watches::default();
    let with = |id| WatchRequest { names: Some("a*".parse().unwrap()), ..watch(id, "/", Scope::Subtree) };
    registry.add(ONE, &with(1), Zxid(0));
    registry.add(ONE, &with(2), Zxid(0));
    registry.add(ONE, &watch(3, "/", Scope::Subtree), Zxid(0));
    assert_eq!((registry.count(ONE), registry.patterns(ONE)), (3, 2));
    // Replaced by one without.
    registry.add(ONE, &watch(2, "/", Scope::Subtree), Zxid(0));
    assert_eq!(registry.patterns(ONE), 1);
    let mut others = Watches::default();
    others.add(ONE, &with(4), Zxid(0));
    registry.absorb(others, Zxid(1));
    assert_eq!(registry.patterns(ONE), 2);
    registry.remove((ONE, WatchId(1)));
    assert_eq!(registry.patterns(ONE), 1);
    registry.remove_all(ONE);
    assert_eq!((registry.count(ONE), registry.patterns(ONE)), (0, 0));
}
