//! Candidates and leaders: who comes before whom, and the pure decision of one who stands in line on plain znodes.

use std::cmp::Reverse;
use std::fmt;
use std::time::{Duration, SystemTime};

use conclave_awards::line::number;
use conclave_awards::wait::On;
use conclave_client::{Entry, Fence, Path, SessionId, Stat, Zxid};

use crate::layout::{Layout, Who};

/// Who leads. `Display` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its name; its principal, if it has no other.
    pub name: String,
    /// Its principal; empty if its znode does not say.
    pub principal: String,
    /// The priority that it had as a candidate.
    pub priority: i64,
    /// What it says to those who look for the leader.
    pub data: Option<String>,
    /// Of its term: its number is the term's.
    pub fence: Fence,
    /// Since when, in cluster time.
    pub since: SystemTime,
    /// Its session; none when the znode was created by hand and stays until it is deleted.
    pub session: Option<SessionId>,
}

/// One who waits to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name; its principal, if it has no other.
    pub name: String,
    /// Its principal; empty if its place does not say.
    pub principal: String,
    /// Greater ones lead first.
    pub priority: i64,
    /// What it will say to those who look for the leader.
    pub data: Option<String>,
    /// A leader handed over to it: it is the next one.
    pub is_chosen: bool,
    /// Its place.
    pub place: Path,
    /// Since when, in cluster time.
    pub since: SystemTime,
    /// Its session; none when the place was created by hand.
    pub session: Option<SessionId>,
}

impl Leader {
    /// The term: the zxid of the transaction that made it the leader. Later terms have greater ones.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.fence.zxid.0
    }

    pub(crate) fn new(path: &Path, data: &[u8], stat: &Stat) -> Self {
        let who = Who::decode(data);
        Self {
            name: who.called().to_owned(),
            fence: Fence { path: path.clone(), zxid: stat.created },
            since: time(stat),
            session: stat.owner,
            principal: who.principal,
            priority: who.priority,
            data: who.data,
        }
    }
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.name.is_empty() { "somebody who does not say" } else { &self.name })
    }
}

/// A candidate's place as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: Path,
    pub(crate) stat: Stat,
    pub(crate) who: Who,
}

impl Place {
    /// None if it is no place.
    pub(crate) fn new(line: &Path, entry: Entry) -> Option<Self> {
        number(&entry.name)?;
        let path = line.join(&entry.name).ok()?;
        let who = Who::decode(entry.data.as_deref().unwrap_or_default());
        Some(Self { path, stat: entry.stat.unwrap_or_default(), who })
    }

    /// Who comes first: the one that was chosen, then by priority, then by age, as the plugin has it.
    fn rank(&self) -> impl Ord + '_ {
        let name = self.path.name().unwrap_or_default();
        (Reverse(self.who.chosen), Reverse(self.who.priority), number(name), name)
    }

    pub(crate) fn candidate(self) -> Candidate {
        let Self { path, stat, who } = self;
        Candidate {
            name: who.called().to_owned(),
            is_chosen: who.chosen,
            place: path,
            since: time(&stat),
            session: stat.owner,
            principal: who.principal,
            priority: who.priority,
            data: who.data,
        }
    }
}

/// The next one first.
pub(crate) fn sort(line: &mut [Place]) {
    line.sort_by(|a, b| a.rank().cmp(&b.rank()));
}

/// What one who stands in line does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is the next one, and nobody leads.
    Mine,
    /// Look again when one of these changes: the candidate right before it, or the leader when it is the next one; and its
    /// own place, which is how it is told that it was chosen.
    Watch(Vec<On>),
    /// Its place is not there any more.
    Gone,
}

/// Decides for the one whose place is this, created then; from the line as it was when, or after, it was seen whether
/// somebody leads.
pub(crate) fn decide(layout: &Layout, line: &[Place], me: &Path, created: Zxid, is_led: bool) -> Decision {
    let is_mine = |place: &&Place| place.path == *me && place.stat.created == created;
    let Some(mine) = line.iter().find(is_mine) else { return Decision::Gone };
    let ahead = line.iter().filter(|other| other.rank() < mine.rank());
    let before = ahead.max_by(|a, b| a.rank().cmp(&b.rank())).map(|place| place.path.clone());
    match before.or_else(|| is_led.then(|| layout.holder().clone())) {
        None => Decision::Mine,
        Some(other) => Decision::Watch(vec![On::Znode(other), On::Znode(me.clone())]),
    }
}

fn time(stat: &Stat) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(stat.created_ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(n: u64, priority: i64, chosen: bool) -> Place {
        let path = Path::parse(&format!("/e/line/w-{n:010}")).unwrap();
        let who = Who { priority, chosen, ..Who::default() };
        Place { path, stat: Stat { created: Zxid(100 + n), ..Stat::default() }, who }
    }

    fn watch(other: &str, me: u64) -> Decision {
        let on = [other.to_owned(), format!("/e/line/w-{me:010}")];
        Decision::Watch(on.iter().map(|path| On::Znode(Path::parse(path).unwrap())).collect())
    }

    #[test]
    fn who_is_chosen_comes_first_then_the_greater_priority_then_the_older() {
        let layout = Layout::new("/e").unwrap();
        let old_and_low = || place(1, 0, false);
        let young_and_high = || place(2, 5, false);
        let chosen = || place(3, -1, true);
        for (line, me, is_led, expected) in [
            (vec![old_and_low()], 1, false, Decision::Mine),
            (vec![old_and_low()], 1, true, watch("/e/holder", 1)),
            (vec![old_and_low(), young_and_high()], 1, false, watch("/e/line/w-0000000002", 1)),
            (vec![old_and_low(), young_and_high()], 2, false, Decision::Mine),
            (vec![old_and_low(), young_and_high()], 2, true, watch("/e/holder", 2)),
            (vec![old_and_low(), young_and_high(), chosen()], 3, false, Decision::Mine),
            (vec![chosen(), young_and_high(), old_and_low()], 2, false, watch("/e/line/w-0000000003", 2)),
            (vec![chosen(), young_and_high(), old_and_low()], 1, true, watch("/e/line/w-0000000002", 1)),
            // Of the same priority, the older.
            (vec![place(9, 5, false), young_and_high()], 9, false, watch("/e/line/w-0000000002", 9)),
            (vec![], 1, false, Decision::Gone),
            (vec![young_and_high()], 1, false, Decision::Gone),
        ] {
            let path = Path::parse(&format!("/e/line/w-{me:010}")).unwrap();
            assert_eq!(decide(&layout, &line, &path, Zxid(100 + me), is_led), expected, "{me} of {line:?}");
            // Another's place of the same name is not its.
            assert_eq!(decide(&layout, &line, &path, Zxid(7), is_led), Decision::Gone);
        }
    }

    #[test]
    fn exactly_one_of_a_line_is_next_and_nobody_waits_in_a_circle() {
        let layout = Layout::new("/e").unwrap();
        for size in 1..20_u64 {
            // Priorities that repeat, and one that was chosen.
            let mut line: Vec<Place> = (0..size).map(|n| place(n, (n * 7 % 4) as i64, n == size / 2)).collect();
            let decided: Vec<Decision> =
                line.iter().map(|me| decide(&layout, &line, &me.path, me.stat.created, false)).collect();
            assert_eq!(decided.iter().filter(|decision| **decision == Decision::Mine).count(), 1);
            let mut sorted = line.clone();
            sort(&mut sorted);
            for (me, decision) in line.drain(..).zip(decided) {
                let at = sorted.iter().position(|other| other.path == me.path).unwrap();
                match (at, decision) {
                    (0, decision) => assert_eq!(decision, Decision::Mine),
                    (at, Decision::Watch(on)) => assert_eq!(on[0], On::Znode(sorted[at - 1].path.clone())),
                    (_, decision) => panic!("{decision:?}"),
                }
            }
        }
    }
}
