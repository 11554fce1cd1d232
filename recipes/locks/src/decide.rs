//! The pure decision of a lock: whose turn is it, and if it is not mine, what do I watch?

use conclave_awards::line::order;
use conclave_awards::wait::On;

use crate::layout::Layout;
use crate::want::Want;

/// What one who stands in line does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is first and nobody keeps it out: take it.
    Mine,
    /// Look again when one of these changes: the place before its own; or, when it is first, what keeps it out.
    Watch {
        /// What to watch.
        on: Vec<On>,
        /// Places before its own.
        ahead: usize,
    },
    /// Its place is not there any more.
    Gone,
}

/// A lock as it was seen, as far as it decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen<'a> {
    /// The names in the line.
    pub(crate) line: Vec<&'a str>,
    /// Somebody holds it alone.
    pub(crate) held: bool,
    /// How many share it, or hold permits.
    pub(crate) sharers: usize,
    /// The permits that they hold together.
    pub(crate) used: u64,
    /// The permits that there are.
    pub(crate) capacity: u64,
}

/// Decides for the one whose place has this name, from the lock as it was at some moment, or at several, since its place was
/// taken. Names that are no places do not count.
pub(crate) fn decide(layout: &Layout, want: Want, seen: &Seen<'_>, me: &str) -> Decision {
    let Some(mine) = order(me) else { return Decision::Gone };
    if !seen.line.contains(&me) {
        return Decision::Gone;
    }
    let places = seen.line.iter().filter_map(|name| order(name));
    let ahead: Vec<_> = places.filter(|other| *other < mine).collect();
    // A name that makes no path is no znode's.
    let before = ahead.iter().max().and_then(|(_, name)| layout.line().join(name).ok());
    let on = match before {
        Some(place) => vec![On::Znode(place)],
        None => in_the_way(layout, want, seen),
    };
    if on.is_empty() { Decision::Mine } else { Decision::Watch { on, ahead: ahead.len() } }
}

/// What keeps this one out if nobody stands before it; nothing: it may have it. As nobody passes the first in line, those
/// that hold it only become fewer.
pub(crate) fn in_the_way(layout: &Layout, want: Want, seen: &Seen<'_>) -> Vec<On> {
    let holder = || vec![On::Znode(layout.holder().clone())];
    let sharers = || On::Children(layout.shared().clone());
    match want {
        Want::Mutex | Want::Read | Want::Write if seen.held => holder(),
        Want::Write if seen.sharers > 0 => vec![sharers()],
        Want::Permits(permits) if seen.used.saturating_add(permits) > seen.capacity => {
            vec![sharers(), On::Znode(layout.lock().clone())]
        }
        Want::Mutex | Want::Read | Want::Write | Want::Permits(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use conclave_client::Path;

    use super::*;

    fn znode(path: &str) -> On {
        On::Znode(Path::parse(path).unwrap())
    }

    fn watch(path: &str, ahead: usize) -> Decision {
        Decision::Watch { on: vec![znode(path)], ahead }
    }

    fn of_mutex(line: &[&str], me: &str, held: bool) -> Decision {
        let seen = Seen { line: line.to_vec(), held, ..Seen::default() };
        decide(&Layout::new("/m").unwrap(), Want::Mutex, &seen, me)
    }

    #[test]
    fn the_first_takes_it_and_each_other_watches_the_one_before() {
        const A: &str = "w-0000000001";
        const B: &str = "w-0000000002";
        const C: &str = "w-0000000005";
        const LAST: &str = "w-9999999999";
        const NEXT: &str = "w-10000000000";
        let holder = || watch("/m/holder", 0);
        for (line, me, held, expected) in [
            (&[A][..], A, false, Decision::Mine),
            (&[A], A, true, holder()),
            (&[A, B, C], A, false, Decision::Mine),
            (&[A, B, C], A, true, holder()),
            // Who is not first does not care who holds it.
            (&[A, B, C], B, false, watch("/m/line/w-0000000001", 1)),
            (&[A, B, C], B, true, watch("/m/line/w-0000000001", 1)),
            (&[A, B, C], C, true, watch("/m/line/w-0000000002", 2)),
            // In whatever order they come.
            (&[C, A, B], C, true, watch("/m/line/w-0000000002", 2)),
            (&[C, B], C, true, watch("/m/line/w-0000000002", 1)),
            // By number, not by name.
            (&[NEXT, LAST], NEXT, false, watch("/m/line/w-9999999999", 1)),
            (&[NEXT, LAST], LAST, false, Decision::Mine),
            // Places of another kind stand in the same line; what is no place does not.
            (&["p-0000000001", B], B, false, watch("/m/line/p-0000000001", 1)),
            (&["note", "a-1", B], B, false, Decision::Mine),
            // Without a place there is no turn.
            (&[], A, false, Decision::Gone),
            (&[B], A, false, Decision::Gone),
            (&[B], A, true, Decision::Gone),
            (&["x"], "x", false, Decision::Gone),
        ] {
            assert_eq!(of_mutex(line, me, held), expected, "{me} in {line:?}, held: {held}");
        }
    }

    #[test]
    fn exactly_one_of_a_line_may_take_it_and_no_two_watch_the_same() {
        for size in 1..20_u64 {
            let line: Vec<String> = (0..size).map(|n| format!("w-{:010}", n * n)).collect();
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let mine = line.iter().filter(|me| of_mutex(&line, me, false) == Decision::Mine);
            assert_eq!(mine.count(), 1);
            let mut watched: Vec<Path> = Vec::new();
            for me in &line {
                match of_mutex(&line, me, true) {
                    Decision::Watch { on, .. } => {
                        watched.extend(on.into_iter().map(|on| match on {
                            On::Znode(path) => path,
                            On::Children(path) => panic!("{path} is the whole herd's"),
                        }));
                    }
                    other => panic!("{other:?} of a lock that is held"),
                }
            }
            watched.sort();
            watched.dedup();
            assert_eq!(watched.len(), line.len());
        }
    }

    #[test]
    fn readers_share_writers_do_not_and_permits_are_counted() {
        let layout = Layout::new("/m").unwrap();
        let holder = || vec![znode("/m/holder")];
        let shared = || On::Children(Path::parse("/m/shared").unwrap());
        let room = || vec![shared(), znode("/m")];
        for (want, held, sharers, used, expected) in [
            (Want::Read, false, 0, 0, vec![]),
            (Want::Read, false, 3, 3, vec![]),
            (Want::Read, true, 0, 0, holder()),
            (Want::Write, false, 0, 0, vec![]),
            (Want::Write, true, 0, 0, holder()),
            (Want::Write, false, 1, 1, vec![shared()]),
            (Want::Write, true, 1, 1, holder()),
            (Want::Permits(1), false, 4, 4, vec![]),
            (Want::Permits(1), false, 5, 5, room()),
            (Want::Permits(2), false, 2, 4, room()),
            (Want::Permits(5), false, 0, 0, vec![]),
            (Want::Permits(6), false, 0, 0, room()),
            (Want::Permits(u64::MAX), false, 1, 1, room()),
        ] {
            let seen = Seen { held, sharers, used, capacity: 5, ..Seen::default() };
            assert_eq!(in_the_way(&layout, want, &seen), expected, "{want:?} of {seen:?}");
            // In line, it is the same for who is first, and of no interest to who is not.
            let seen = Seen { line: vec!["w-0000000001", "r-0000000002"], ..seen };
            let first = if expected.is_empty() { Decision::Mine } else { Decision::Watch { on: expected, ahead: 0 } };
            assert_eq!(decide(&layout, want, &seen, "w-0000000001"), first);
            assert_eq!(decide(&layout, want, &seen, "r-0000000002"), watch("/m/line/w-0000000001", 1));
        }
    }
}
