//! The change history in memory: what is kept is known exactly, and bounded in transactions and in bytes.
#![allow(clippy::unwrap_used)]

#[path = "history/naive.rs"]
mod naive;
mod support;

use conclave_core::apply::Tables;
use conclave_core::history::Bounds;
use conclave_core::memory::MemTables;
use conclave_core::query::{self, History};
use conclave_core::row::{self, Kept};
use conclave_core::view::Base;
use conclave_core::{Fault, Table, key};
use conclave_protocol::{Create, Op, Path, Set, Step, Zxid, limits};
use proptest::prelude::*;

use naive::{Naive, Room, goes_on_from_before, some_acts, some_bounds};
use support::{Member, once};

/// Nothing of it outlasts a process, so all that can happen to it is a copy.
impl Room for MemTables {
    fn commit(&mut self, batch: &mut dyn FnMut(&mut dyn Tables) -> Result<(), Fault>) {
        batch(self).unwrap();
    }

    fn snapshot(&self) -> Box<dyn Base> {
        Self::snapshot(self)
    }

    fn restart(&mut self) {
        *self = self.clone();
    }

    fn hand_over(&mut self) {
        self.restart();
    }

    fn restore(&mut self) {
        self.restart();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_history_tells_exactly_what_is_kept_or_that_it_is_too_short(bounds in some_bounds(), acts in some_acts()) {
        let mut naive = Naive::new(MemTables::new("test"), bounds);
        acts.iter().for_each(|act| naive.act(act));
    }
}

#[test]
fn a_history_without_a_row_of_what_it_keeps_is_counted_at_the_first_entry() {
    goes_on_from_before(MemTables::new("test"));
}

#[test]
fn large_transactions_are_kept_up_to_so_many_bytes() {
    let mut member = Member::new();
    // The longest path there is.
    let deepest = format!("/{}", "n".repeat(limits::NAME_BYTES)).repeat(limits::DEPTH);
    let path = Path::parse(&deepest).unwrap();
    member.done(&once(1, 2_000, Op::Create(Create { parents: true, ..Create::new(path.clone(), "") })));
    let steps = vec![Step::Set(Set { path, data: "x".into(), if_version: None }); 500];
    let kept = |member: &Member| -> Kept {
        row::decode(Table::Change, &Base::row(&member.tables, Table::Change, &key::KEPT).unwrap().unwrap()).unwrap()
    };
    let mut most = 0;
    for number in 2..12 {
        let before = kept(&member);
        member.done(&once(number, 2_000, Op::Multi(steps.clone())));
        let after = kept(&member);
        most = most.max(after.bytes);
        assert!(after.bytes <= Bounds::default().bytes);
        assert_eq!(after.bytes < before.bytes + 500 * deepest.len() as u64, after.lost > before.lost);
    }
    let one = 500 * (deepest.len() as u64 + 10);
    assert!(most > limits::HISTORY_BYTES as u64 - one, "{most} bytes at most: one more would have had room");
    let (lost, last) = (kept(&member).lost, member.planner.last());
    assert!(Zxid(2) < lost && lost < last);
    let answer = |after| query::history(&member.tables, after, 100).unwrap();
    assert_eq!(answer(Zxid(lost.0 - 1)), History::TooShort { last });
    let transactions = read(&member.tables, lost);
    assert!(transactions.iter().map(|(zxid, _)| zxid.0).eq(lost.0 + 1..=last.0));
    assert!(transactions.iter().all(|(_, changes)| changes.len() == 500));
}

/// All that is kept after a zxid, page by page.
fn read(tables: &MemTables, mut after: Zxid) -> Vec<(Zxid, Vec<row::Recorded>)> {
    let mut all = Vec::new();
    loop {
        let History::Kept { transactions, upto, last } = query::history(tables, after, 1_000).unwrap() else {
            panic!("what is kept is too short")
        };
        let bytes: usize = transactions.iter().map(|(_, changes)| row::encode(changes).len()).sum();
        let largest = transactions.iter().map(|(_, changes)| row::encode(changes).len()).max();
        assert!(bytes < (4 << 20) + largest.unwrap_or_default(), "{bytes} bytes in a page");
        assert!(upto > after, "a page that tells nothing");
        all.extend(transactions);
        after = upto;
        if after == last {
            return all;
        }
    }
}

#[test]
fn a_page_ends_after_some_bytes_too_and_the_next_goes_on_there() {
    const COUNT: u64 = 30;
    let mut tables = MemTables::new("test");
    let state = row::State { zxid: Zxid(COUNT), ..row::State::default() };
    tables.write(Table::State, key::STATE, Some(&row::encode(&state))).unwrap();
    tables.write(Table::Change, &key::KEPT, Some(&row::encode(&Kept::default()))).unwrap();
    let change = |n: usize| row::Recorded {
        change: conclave_protocol::Change {
            kind: conclave_protocol::ChangeKind::Data,
            path: format!("/{n}{}", "/x".repeat(60)).parse().unwrap(),
            version: 1,
        },
        acl: 0,
        beside: 0,
    };
    // The changes of each take 1.3 MB.
    let changes = row::encode(&row::Changes((0..10_000).map(change).collect()));
    for zxid in 1..=COUNT {
        tables.write(Table::Change, &key::change(Zxid(zxid)), Some(&changes)).unwrap();
    }
    assert!(read(&tables, Zxid(0)).iter().map(|(zxid, _)| zxid.0).eq(1..=COUNT));
}
