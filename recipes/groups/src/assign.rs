//! Whose each item is to be: pure.
//!
//! Every member computes this from the same state of the tree, so all come to the same answer. It is computed from who
//! owns what *now*, because no function of the members' names alone both balances within one and moves as little as
//! can be. What is left open by that is settled by rendezvous hashing (Thaler and Ravishankar, 1998): among those who
//! have room, the item goes to whom a hash of both puts highest.

use std::collections::{BTreeMap, BTreeSet};

/// For each item whose it is to be: balanced within one, with as few owners changed as that takes. Empty without members.
///
/// `owned` says who owns what; items that nobody owns, or somebody who is no member, are not in it or ignored.
pub(crate) fn assign<'a>(
    members: &BTreeSet<&'a str>,
    items: &BTreeSet<&'a str>,
    owned: &BTreeMap<&'a str, &'a str>,
) -> BTreeMap<&'a str, &'a str> {
    let Some(least) = items.len().checked_div(members.len()) else { return BTreeMap::new() };
    let one_more = items.len() % members.len();
    let mut shares: BTreeMap<&str, Vec<&str>> = members.iter().map(|member| (*member, Vec::new())).collect();
    let mut pool = Vec::new();
    for item in items {
        match owned.get(item).and_then(|owner| shares.get_mut(owner)) {
            Some(share) => share.push(item),
            None => pool.push(*item),
        }
    }
    // Who has most may have one more than others: fewer items move then.
    let mut by_size: Vec<&str> = members.iter().copied().collect();
    by_size.sort_by_key(|member| (std::cmp::Reverse(shares[member].len()), *member));
    let mut room: BTreeMap<&str, usize> = BTreeMap::new();
    let mut plan = BTreeMap::new();
    for (n, member) in by_size.into_iter().enumerate() {
        let quota = least + usize::from(n < one_more);
        let mut share = shares.remove(member).unwrap_or_default();
        share.sort_by_key(|item| (std::cmp::Reverse(score(member, item)), *item));
        pool.extend(share.drain(quota.min(share.len())..));
        room.insert(member, quota - share.len());
        plan.extend(share.into_iter().map(|item| (item, member)));
    }
    pool.sort_unstable();
    for item in pool {
        let best = room.iter_mut().filter(|(_, room)| **room > 0).max_by_key(|(member, _)| score(member, item));
        // The quotas are as many as the items.
        if let Some((member, room)) = best {
            *room -= 1;
            plan.insert(item, *member);
        }
    }
    plan
}

/// A hash of both, the same in every program: FNV-1a, mixed as `SplitMix64` does, since FNV's high bits are weak.
fn score(member: &str, item: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in member.bytes().chain([0]).chain(item.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
