//! Which instance is taken: pure.

use rand::Rng;

use crate::instance::Instance;

/// How an instance is picked (Curator's `ProviderStrategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pick<'a> {
    /// One after the other, in order of their ids.
    RoundRobin,
    /// Any, all as often.
    Random,
    /// Any, each as often as its weight says.
    Weighted,
    /// The same for the same key, as long as it is there: when instances come and go, few keys move. Weights count.
    Sticky(&'a str),
    /// In one's own zone if there is one, else in one's own region, else anywhere: by weight. What is one's own is said
    /// by [`Discovery::locality`](crate::Discovery::locality).
    Locality,
}

/// Where one stands oneself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locality {
    pub(crate) region: Option<String>,
    pub(crate) zone: Option<String>,
}

/// Picks one of these, which are in order of their ids; gives its place among them. None only if there is none.
pub(crate) fn choose(
    from: &[&Instance],
    pick: Pick<'_>,
    turn: usize,
    here: &Locality,
    random: &mut impl Rng,
) -> Option<usize> {
    if from.is_empty() {
        return None;
    }
    match pick {
        Pick::RoundRobin => Some(turn % from.len()),
        Pick::Random => Some(random.random_range(0..from.len())),
        Pick::Weighted => weighted(from, &(0..from.len()).collect::<Vec<_>>(), random),
        Pick::Sticky(key) => sticky(from, key),
        Pick::Locality => weighted(from, &nearest(from, here), random),
    }
}

/// The places of those that are nearest.
fn nearest(from: &[&Instance], here: &Locality) -> Vec<usize> {
    let is = |mine: &Option<String>, its: &Option<String>| mine.is_some() && mine == its;
    // Zones of different regions can have the same name.
    let in_region = |instance: &&Instance| here.region.is_none() || is(&here.region, &instance.region);
    let in_zone = |instance: &&Instance| is(&here.zone, &instance.zone) && in_region(instance);
    let places = |fits: &dyn Fn(&&Instance) -> bool| -> Vec<usize> {
        from.iter().enumerate().filter(|(_, instance)| fits(instance)).map(|(place, _)| place).collect()
    };
    let tiers: [&dyn Fn(&&Instance) -> bool; 3] = [&in_zone, &|instance| is(&here.region, &instance.region), &|_| true];
    tiers.into_iter().map(places).find(|places| !places.is_empty()).unwrap_or_default()
}

/// One of these places, by weight; if none weighs anything, all as often.
fn weighted(from: &[&Instance], places: &[usize], random: &mut impl Rng) -> Option<usize> {
    let weight = |place: usize| from.get(place).map_or(0, |instance| u128::from(instance.weight));
    let total: u128 = places.iter().map(|place| weight(*place)).sum();
    if total == 0 {
        return places.get(random.random_range(0..places.len().max(1))).copied();
    }
    let mut point = random.random_range(0..total);
    places.iter().copied().find(|place| {
        let weight = weight(*place);
        let here = point < weight;
        point = point.saturating_sub(weight);
        here
    })
}

/// Weighted rendezvous hashing: each instance draws a number from the key and its id, and the highest wins; with
/// `ln(draw) / weight` as the number, each wins as often as its weight says.
fn sticky(from: &[&Instance], key: &str) -> Option<usize> {
    let none_weighs = from.iter().all(|instance| instance.weight == 0);
    let score = |instance: &Instance| {
        let weight = if none_weighs { 1 } else { instance.weight };
        // 53 bits are what a float holds; half a step up, so that it is never 0.
        #[allow(clippy::cast_precision_loss)]
        let (draw, weight) = (((hash(key, &instance.id) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64, weight as f64);
        if weight == 0.0 { f64::NEG_INFINITY } else { draw.ln() / weight }
    };
    let scores = from.iter().enumerate().map(|(place, instance)| (place, score(instance)));
    scores.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place)
}

/// The same in every program and version: FNV-1a, mixed as `SplitMix64` does, since FNV's high bits are weak.
fn hash(key: &str, id: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.bytes().chain([0]).chain(id.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn instances(weights: &[u64]) -> Vec<Instance> {
        let named = |(n, weight): (usize, &u64)| Instance::new("api", "h:1").id(format!("i{n}")).weight(*weight);
        weights.iter().enumerate().map(named).collect()
    }

    /// How often each is picked.
    fn counts(instances: &[Instance], pick: Pick<'_>, here: &Locality) -> Vec<usize> {
        let from: Vec<&Instance> = instances.iter().collect();
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = vec![0; from.len()];
        for turn in 0..10_000 {
            counts[choose(&from, pick, turn, here, &mut random).unwrap()] += 1;
        }
        counts
    }

    fn assert_about(counts: &[usize], expected: &[usize]) {
        let near = |(count, expected): (&usize, &usize)| count.abs_diff(*expected) <= 200;
        assert!(counts.len() == expected.len() && counts.iter().zip(expected).all(near), "{counts:?} {expected:?}");
    }

    #[test]
    fn each_is_picked_as_often_as_it_should_be() {
        let here = Locality::default();
        assert_eq!(counts(&instances(&[1, 9, 1, 1]), Pick::RoundRobin, &here), [2_500; 4]);
        assert_about(&counts(&instances(&[1, 9, 1, 1]), Pick::Random, &here), &[2_500; 4]);
        assert_about(&counts(&instances(&[1, 3, 0, 6]), Pick::Weighted, &here), &[1_000, 3_000, 0, 6_000]);
        assert_about(&counts(&instances(&[0, 0]), Pick::Weighted, &here), &[5_000; 2]);
        assert_about(&counts(&instances(&[u64::MAX, u64::MAX]), Pick::Weighted, &here), &[5_000; 2]);
        let mut random = StdRng::seed_from_u64(7);
        for pick in [Pick::RoundRobin, Pick::Random, Pick::Weighted, Pick::Sticky("k"), Pick::Locality] {
            assert_eq!(choose(&[], pick, 3, &here, &mut random), None);
        }
    }

    #[test]
    fn a_key_stays_where_it_is_and_moves_only_with_its_instance() {
        let all = instances(&[1, 3, 0, 6]);
        let from: Vec<&Instance> = all.iter().collect();
        let place = |from: &[&Instance], key: &str| sticky(from, key).map(|place| from[place].id.clone()).unwrap();
        let keys: Vec<String> = (0..10_000).map(|n| format!("key-{n}")).collect();
        let mut counts = [0; 4];
        for key in &keys {
            let at = place(&from, key);
            counts[from.iter().position(|instance| instance.id == at).unwrap()] += 1;
            // Without one that it was not at, it stays.
            let without: Vec<&Instance> = from.iter().copied().filter(|instance| instance.id != "i1").collect();
            assert!(at == "i1" || place(&without, key) == at, "{key} moved for nothing");
        }
        assert_about(&counts, &[1_000, 3_000, 0, 6_000]);
        let none = instances(&[0, 0]);
        assert!(sticky(&none.iter().collect::<Vec<_>>(), "k").is_some());
        // Who computes otherwise sends a key elsewhere: this never changes.
        assert_eq!(place(&from, "key-1"), PLACE);
    }

    const PLACE: &str = "i3";

    #[test]
    fn the_nearest_are_taken_and_others_only_if_there_are_none() {
        let place = |region: &str, zone: &str| Instance::new("api", "h:1").region(region).zone(zone);
        let all = [place("eu", "a"), place("eu", "b"), place("us", "a"), place("us", "c")];
        let from: Vec<&Instance> = all.iter().collect();
        let here = |region: Option<&str>, zone: Option<&str>| Locality {
            region: region.map(str::to_owned),
            zone: zone.map(str::to_owned),
        };
        for (region, zone, expected) in [
            (Some("eu"), Some("a"), &[0][..]),
            (Some("eu"), Some("z"), &[0, 1]),
            (Some("eu"), None, &[0, 1]),
            (Some("asia"), Some("a"), &[0, 1, 2, 3]),
            (None, Some("a"), &[0, 2]),
            (None, None, &[0, 1, 2, 3]),
        ] {
            assert_eq!(nearest(&from, &here(region, zone)), expected, "{region:?} {zone:?}");
        }
        assert_about(&counts(&all, Pick::Locality, &here(Some("eu"), None)), &[5_000, 5_000, 0, 0]);
    }
}
