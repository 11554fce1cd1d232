//! Tables and properties of the division of items among members.

use proptest::prelude::*;

use super::*;

fn set(names: &[String]) -> BTreeSet<&str> {
    names.iter().map(String::as_str).collect()
}

fn sizes<'a>(members: &BTreeSet<&'a str>, plan: &BTreeMap<&'a str, &'a str>) -> Vec<usize> {
    members.iter().map(|member| plan.values().filter(|owner| *owner == member).count()).collect()
}

/// A member lets go and claims by what it has seen, as the tree allows it.
fn act<'a>(
    members: &BTreeSet<&'a str>,
    items: &BTreeSet<&'a str>,
    me: &'a str,
    seen: &BTreeMap<&'a str, &'a str>,
    tree: &mut BTreeMap<&'a str, &'a str>,
) {
    for (item, owner) in assign(members, items, seen) {
        if seen.get(item) == Some(&me) && owner != me && tree.get(item) == Some(&me) {
            tree.remove(item);
        } else if owner == me && !seen.contains_key(item) {
            tree.entry(item).or_insert(me);
        }
    }
}

#[test]
fn what_is_owned_stays_and_what_is_too_much_goes_to_who_has_room() {
    let members = BTreeSet::from(["a", "b"]);
    let items = BTreeSet::from(["1", "2", "3", "4"]);
    // Nobody has anything.
    assert_eq!(sizes(&members, &assign(&members, &items, &BTreeMap::new())), [2, 2]);
    // One has all, and gives half.
    let all: BTreeMap<&str, &str> = items.iter().map(|item| (*item, "a")).collect();
    assert_eq!(sizes(&members, &assign(&members, &items, &all)), [2, 2]);
    // Balanced already: nothing moves.
    let owned = BTreeMap::from([("1", "b"), ("2", "a"), ("3", "b"), ("4", "a")]);
    assert_eq!(assign(&members, &items, &owned), owned);
    // Within one is balanced, whoever has more.
    let three = BTreeSet::from(["1", "2", "3"]);
    let owned = BTreeMap::from([("1", "b"), ("2", "a"), ("3", "b")]);
    assert_eq!(assign(&members, &three, &owned), owned);
    // A member that is gone leaves its items to the others; those keep theirs.
    let owned = BTreeMap::from([("1", "a"), ("2", "a"), ("3", "c"), ("4", "c")]);
    let plan = assign(&members, &items, &owned);
    assert_eq!((plan["1"], plan["2"], plan["3"], plan["4"]), ("a", "a", "b", "b"));
    // More members than items: some have none.
    assert_eq!(assign(&members, &BTreeSet::from(["1"]), &BTreeMap::from([("1", "b")])), BTreeMap::from([("1", "b")]));
    // Nobody is there, or nothing.
    assert!(assign(&BTreeSet::new(), &items, &owned).is_empty());
    assert!(assign(&members, &BTreeSet::new(), &owned).is_empty());
}

#[test]
fn programs_of_all_versions_score_alike() {
    assert_eq!(score("a", "1"), score("a", "1"));
    assert_ne!(score("ab", "1"), score("a", "b1"), "where a name ends counts");
    // Who computes otherwise quarrels with the others for ever: this number never changes.
    assert_eq!(score("worker-1", "item-1"), SCORE);
}

const SCORE: u64 = 13_362_449_571_036_494_287;

proptest! {
    /// Complete, balanced, and no more owners changed than the sizes demand.
    #[test]
    fn it_is_balanced_and_moves_as_little_as_can_be(
        members in 1..9_usize,
        items in 0..40_usize,
        owners in proptest::collection::vec(0..12_usize, 40),
    ) {
        let names: Vec<String> = (0..12).map(|n| format!("m{n:02}")).collect();
        let all: Vec<String> = (0..items).map(|n| format!("i{n:02}")).collect();
        let (members, items) = (set(&names[..members]), set(&all));
        // Some are owned by members, some by who is none, some by nobody.
        let owned: BTreeMap<&str, &str> = all.iter().zip(&owners).filter(|(_, owner)| **owner != 11)
            .map(|(item, owner)| (item.as_str(), names[*owner].as_str())).collect();
        let plan = assign(&members, &items, &owned);
        prop_assert_eq!(plan.keys().copied().collect::<BTreeSet<_>>(), items.clone());
        let sizes = sizes(&members, &plan);
        let (least, most) = (sizes.iter().min().copied().unwrap_or(0), sizes.iter().max().copied().unwrap_or(0));
        prop_assert!(most - least <= 1, "{sizes:?}");
        let kept = plan.iter().filter(|(item, owner)| owned.get(*item) == Some(owner)).count();
        // The most that can be kept: the largest may keep one more, as many of them as there is a remainder.
        let mut held: Vec<usize> =
            members.iter().map(|member| owned.values().filter(|owner| *owner == member).count()).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        let (floor, rest) = (items.len() / members.len(), items.len() % members.len());
        let best: usize = held.iter().enumerate().map(|(n, held)| (*held).min(floor + usize::from(n < rest))).sum();
        prop_assert_eq!(kept, best);
    }

    /// Members who act one after the other in any order, each on what it saw a while ago, come to rest, and then it is
    /// balanced. A claim fails when there is one.
    #[test]
    fn whatever_the_order_and_however_old_the_views_it_comes_to_rest(
        moves in proptest::collection::vec((0..4_usize, 0..4_usize), 0..80),
        joined in 1..5_usize,
    ) {
        let names: Vec<String> = (0..4).map(|n| format!("m{n}")).collect();
        let all: Vec<String> = (0..9).map(|n| format!("i{n}")).collect();
        let (members, items) = (set(&names[..joined]), set(&all));
        // The first one had everything.
        let mut tree: BTreeMap<&str, &str> = items.iter().map(|item| (*item, "m0")).collect();
        let mut past = vec![tree.clone()];
        for (who, age) in moves {
            let seen = past[past.len().saturating_sub(1 + age)].clone();
            act(&members, &items, &names[who % joined], &seen, &mut tree);
            past.push(tree.clone());
        }
        // From now on all see what there is.
        for _ in 0..6 {
            for name in &members {
                let seen = tree.clone();
                act(&members, &items, name, &seen, &mut tree);
            }
        }
        prop_assert_eq!(&assign(&members, &items, &tree), &tree, "it is not at rest");
        let sizes = sizes(&members, &tree);
        let (least, most) = (sizes.iter().min().copied().unwrap_or(0), sizes.iter().max().copied().unwrap_or(0));
        prop_assert!(most - least <= 1, "{sizes:?}");
    }
}
