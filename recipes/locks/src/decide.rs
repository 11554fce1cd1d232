//! The pure decision of a mutex: whose turn is it, and if it is not mine, what do I watch?

use conclave_client::Path;

use crate::layout::{Layout, number};

/// What one who stands in line does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is first and nobody holds the lock: take it.
    Mine,
    /// Look again when this changes: the place before its own, or the holder when it is first.
    Watch {
        /// What to watch.
        path: Path,
        /// Places before its own.
        ahead: usize,
    },
    /// Its place is not there any more.
    Gone,
}

/// A place's rank in line, lowest first: by number and not by name, as after ten digits come eleven. None if it is no
/// place.
pub(crate) fn order(name: &str) -> Option<(u64, &str)> {
    Some((number(name)?, name))
}

/// Decides for the one whose place has this name, from the names in the line and whether there is a holder, each as
/// they were at some moment since its place was taken. Names that are no places do not count.
pub(crate) fn decide<'a>(layout: &Layout, line: impl IntoIterator<Item = &'a str>, me: &str, held: bool) -> Decision {
    let Some(mine) = order(me) else { return Decision::Gone };
    let mut found = false;
    let mut ahead = 0;
    let mut before: Option<(u64, &str)> = None;
    for name in line {
        if name == me {
            found = true;
        } else if let Some(other) = order(name).filter(|other| *other < mine) {
            ahead += 1;
            before = before.max(Some(other));
        }
    }
    // A name that makes no path is no znode's.
    let before = before.and_then(|(_, name)| layout.line().join(name).ok());
    match before {
        _ if !found => Decision::Gone,
        Some(path) => Decision::Watch { path, ahead },
        None if held => Decision::Watch { path: layout.holder().clone(), ahead },
        None => Decision::Mine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(path: &str, ahead: usize) -> Decision {
        Decision::Watch { path: Path::parse(path).unwrap(), ahead }
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
            let layout = Layout::new("/m").unwrap();
            let decision = decide(&layout, line.iter().copied(), me, held);
            assert_eq!(decision, expected, "{me} in {line:?}, held: {held}");
        }
    }

    #[test]
    fn exactly_one_of_a_line_may_take_it_and_no_two_watch_the_same() {
        let layout = Layout::new("/m").unwrap();
        for size in 1..20_u64 {
            let line: Vec<String> = (0..size).map(|n| crate::layout::place_name(n * n)).collect();
            let decide = |me: &String, held| decide(&layout, line.iter().map(String::as_str), me, held);
            let free: Vec<Decision> = line.iter().map(|me| decide(me, false)).collect();
            assert_eq!(free.iter().filter(|decision| **decision == Decision::Mine).count(), 1);
            let mut watched: Vec<Path> = line
                .iter()
                .map(|me| match decide(me, true) {
                    Decision::Watch { path, .. } => path,
                    other => panic!("{other:?} of a lock that is held"),
                })
                .collect();
            watched.sort();
            watched.dedup();
            assert_eq!(watched.len(), line.len());
        }
    }
}
