//! When the timers of plugins are due. Pure: time comes in.

use std::collections::BTreeMap;

/// The least time between two ticks of one timer, milliseconds, whatever its manifest says: manifests are looked over by
/// the member that plans their installation, which may be another version.
const LEAST_MS: u64 = 100;

/// A plugin, and its trigger.
type Name = (String, String);

/// The timers of active plugins.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeMap<Name, Timer>);

#[derive(Clone, Copy, Debug)]
struct Timer {
    every_ms: u64,
    due_ms: u64,
    /// It waits to be planned, or its entry is on its way: one at a time.
    is_under_way: bool,
}

impl Timers {
    /// These are the timers from now on: plugin, trigger, milliseconds. A new one is due when its time has passed once;
    /// one that was there keeps its time.
    pub(super) fn set(&mut self, timers: Vec<(String, String, u64)>, now_ms: u64) {
        let mut before = std::mem::take(&mut self.0);
        for (plugin, trigger, every_ms) in timers {
            let name = (plugin, trigger);
            let every_ms = every_ms.max(LEAST_MS);
            let fresh = Timer { every_ms, due_ms: now_ms.saturating_add(every_ms), is_under_way: false };
            let timer = before.remove(&name).filter(|timer| timer.every_ms == every_ms);
            self.0.insert(name, timer.unwrap_or(fresh));
        }
    }

    /// Those that are due: each is under way from now on, until [`Timers::done`].
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Name> {
        let mut due = Vec::new();
        for (name, timer) in &mut self.0 {
            if !timer.is_under_way && timer.due_ms <= now_ms {
                timer.is_under_way = true;
                // What was missed is not made up for.
                timer.due_ms = now_ms.saturating_add(timer.every_ms);
                due.push(name.clone());
            }
        }
        due
    }

    /// A tick is over, or came to nothing.
    pub(super) fn done(&mut self, plugin: &str, trigger: &str) {
        let name = (plugin.to_owned(), trigger.to_owned());
        if let Some(timer) = self.0.get_mut(&name) {
            timer.is_under_way = false;
        }
    }

    /// A tick could not be planned now: it is due again in a moment.
    pub(super) fn put_off(&mut self, plugin: &str, trigger: &str, now_ms: u64) {
        let name = (plugin.to_owned(), trigger.to_owned());
        if let Some(timer) = self.0.get_mut(&name) {
            timer.is_under_way = false;
            timer.due_ms = timer.due_ms.min(now_ms.saturating_add(LEAST_MS));
        }
    }

    /// No tick is under way.
    pub(super) fn reset(&mut self) {
        self.0.values_mut().for_each(|timer| timer.is_under_way = false);
    }

    /// When the next one is due, milliseconds; none when there are none.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.0.values().filter(|timer| !timer.is_under_way).map(|timer| timer.due_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(every_ms: u64) -> Vec<(String, String, u64)> {
        vec![("p".to_owned(), "timer".to_owned(), every_ms)]
    }

    #[test]
    fn a_timer_is_due_once_a_period_and_never_twice_at_a_time() {
        let mut timers = Timers::default();
        timers.set(timer(500), 1_000);
        assert_eq!(timers.due(1_499), []);
        assert_eq!(timers.due(1_500).len(), 1);
        assert_eq!(timers.due(9_000), [], "one is under way");
        timers.done("p", "timer");
        assert_eq!(timers.due(9_000).len(), 1);
        timers.done("p", "timer");
        assert_eq!(timers.due(9_400), [], "what was missed is made up for");
        assert_eq!(timers.next_ms(), Some(9_500));
    }

    #[test]
    fn a_tick_that_is_put_off_is_due_in_a_moment_and_then_keeps_its_period() {
        let mut timers = Timers::default();
        timers.set(timer(3_600_000), 0);
        assert_eq!(timers.due(3_600_000).len(), 1);
        timers.put_off("p", "timer", 3_600_000);
        assert_eq!((timers.due(3_600_099).len(), timers.next_ms()), (0, Some(3_600_100)));
        assert_eq!(timers.due(3_600_100).len(), 1);
        timers.done("p", "timer");
        assert_eq!(timers.next_ms(), Some(7_200_100));
    }

    #[test]
    fn a_timer_that_stays_keeps_its_time_and_one_that_goes_is_forgotten() {
        let mut timers = Timers::default();
        timers.set(timer(500), 1_000);
        timers.set(timer(500), 1_400);
        assert_eq!(timers.due(1_500).len(), 1, "it began anew although nothing of it changed");
        timers.set(timer(300), 1_600);
        assert_eq!(timers.next_ms(), Some(1_900));
        timers.set(Vec::new(), 1_700);
        assert_eq!((timers.due(9_000), timers.next_ms()), (Vec::new(), None));
    }

    #[test]
    fn a_timer_is_never_faster_than_ten_a_second() {
        let mut timers = Timers::default();
        timers.set(timer(0), 1_000);
        assert_eq!(timers.next_ms(), Some(1_100));
    }
}
