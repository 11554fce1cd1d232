//! The change history against a list that keeps everything, in whatever room it lies.

use conclave_core::apply::{Position, Tables};
use conclave_core::digest::{Chain, Digest, RowHash};
use conclave_core::entry::{Entry, Origin, Transaction};
use conclave_core::history::{Bounds, keep};
use conclave_core::query::{self, History};
use conclave_core::row::{self, Changes, Kept, Recorded, State};
use conclave_core::view::Base;
use conclave_core::{Fault, Table, key};
use conclave_protocol::{Change, ChangeKind, Path, Zxid};
use proptest::prelude::*;

/// Where the history lies.
pub(crate) trait Room {
    /// Writes in one transaction.
    fn commit(&mut self, batch: &mut dyn FnMut(&mut dyn Tables) -> Result<(), Fault>);
    fn snapshot(&self) -> Box<dyn Base>;
    /// The process ends, and the next one goes on.
    fn restart(&mut self);
    /// Another member goes on, from what this one hands it.
    fn hand_over(&mut self);
    /// Another cluster goes on, from a backup.
    fn restore(&mut self);
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// An entry of transactions with changes on paths of so many bytes.
    Entry(Vec<Vec<usize>>),
    Restart,
    HandOver,
    Restore,
}

/// Entries of few transactions, of which many change nothing and some change much; now and then one beyond all bounds.
pub(crate) fn some_acts() -> impl Strategy<Value = Vec<Act>> {
    let change = prop_oneof![6 => 2..40_usize, 1 => 200..255_usize];
    let transaction = prop_oneof![
        3 => Just(Vec::new()),
        6 => prop::collection::vec(change, 1..4),
        1 => prop::collection::vec(200..255_usize, 5..12),
    ];
    let act = prop_oneof![
        20 => prop::collection::vec(transaction, 0..6).prop_map(Act::Entry),
        1 => Just(Act::Restart),
        1 => Just(Act::HandOver),
        1 => Just(Act::Restore),
    ];
    prop::collection::vec(act, 1..40)
}

/// Bounds of which now the one and now the other is reached first.
pub(crate) fn some_bounds() -> impl Strategy<Value = Bounds> {
    (1..40_u64, 0..2_000_u64).prop_map(|(transactions, bytes)| Bounds { transactions, bytes })
}

/// A history, and all that ever happened.
pub(crate) struct Naive<R> {
    pub(crate) room: R,
    bounds: Bounds,
    last: Zxid,
    entries: u64,
    /// What ever changed, with the bytes of its row.
    all: Vec<(Zxid, Vec<Recorded>, u64)>,
}

impl<R: Room> Naive<R> {
    /// An empty one.
    pub(crate) fn new(room: R, bounds: Bounds) -> Self {
        Self::after(room, bounds, Zxid(0))
    }

    /// One that begins after this transaction.
    pub(crate) fn after(room: R, bounds: Bounds, last: Zxid) -> Self {
        Self { room, bounds, last, entries: 0, all: Vec::new() }
    }

    /// Does it, and compares.
    pub(crate) fn act(&mut self, act: &Act) {
        match act {
            Act::Entry(transactions) => self.entry(transactions, Some(self.bounds)),
            Act::Restart => self.room.restart(),
            // A member without any state hands over none.
            Act::HandOver | Act::Restore if self.entries == 0 => {}
            Act::HandOver => self.room.hand_over(),
            Act::Restore => self.room.restore(),
        }
        self.compare();
    }

    /// Writes an entry; without bounds as a version did that kept no row of what it keeps.
    pub(crate) fn entry(&mut self, transactions: &[Vec<usize>], bounds: Option<Bounds>) {
        let base = self.last;
        let entry = entry(base, transactions);
        self.last = entry.last();
        self.entries += 1;
        for (zxid, transaction) in entry.numbered().filter(|(_, transaction)| !transaction.changes.is_empty()) {
            let bytes = row::encode(&Changes(transaction.changes.clone())).len() as u64;
            self.all.push((zxid, transaction.changes.clone(), bytes));
        }
        let (last, at) = (self.last, Position { term: 1, index: self.entries });
        let state = row::encode(&State { zxid: last, ..State::default() });
        self.room.commit(&mut |tables| {
            let mut digest = Digest::of(tables.local());
            if let Some(before) = tables.write(Table::State, key::STATE, Some(&state))? {
                digest.remove(before);
            }
            digest.add(RowHash::of(Table::State, key::STATE, &state));
            tables.local().digest = digest.0;
            tables.local().applied = Some(at);
            match bounds {
                Some(bounds) => keep(tables, &entry, bounds),
                None => entry.numbered().filter(|(_, one)| !one.changes.is_empty()).try_for_each(|(zxid, one)| {
                    let row = row::encode(&Changes(one.changes.clone()));
                    tables.write(Table::Change, &key::change(zxid), Some(&row)).map(|_| ())
                }),
            }
        });
    }

    /// Where what must be kept begins: from the end back as far as both bounds allow.
    fn kept(&self) -> usize {
        let (mut from, mut bytes) = (self.all.len(), 0);
        while let Some((zxid, _, more)) = from.checked_sub(1).map(|before| &self.all[before]) {
            bytes += more;
            if zxid.0 + self.bounds.transactions <= self.last.0 || bytes > self.bounds.bytes {
                break;
            }
            from -= 1;
        }
        from
    }

    /// What is kept, what is said of it, and what is answered after each zxid.
    pub(crate) fn compare(&self) {
        let base = self.room.snapshot();
        if self.entries == 0 {
            assert_eq!(base.scan(Table::Change, b"", None, 9).unwrap(), []);
            return;
        }
        let (gone, kept) = self.all.split_at(self.kept());
        let lost = gone.last().map_or(0, |(zxid, ..)| zxid.0);
        let bytes = kept.iter().map(|(_, _, bytes)| bytes).sum::<u64>();
        assert!(bytes <= self.bounds.bytes);
        let rows = base.scan(Table::Change, b"", None, usize::MAX).unwrap();
        let keys: Vec<[u8; 8]> = rows.iter().map(|(key, _)| key.as_slice().try_into().unwrap()).collect();
        let expected = [Zxid(0)].into_iter().chain(kept.iter().map(|(zxid, ..)| *zxid)).map(key::change);
        assert_eq!(keys, expected.collect::<Vec<_>>());
        let said: Kept = row::decode(Table::Change, &rows[0].1).unwrap();
        assert_eq!(said, Kept { lost: Zxid(lost), bytes });
        // All that can be told apart, and what is far off.
        let from = lost.saturating_sub(self.bounds.transactions + 5);
        for after in (from..self.last.0 + 2).chain([0, lost.saturating_sub(1), lost, u64::MAX]) {
            let page = 1 + usize::try_from(after % 5).unwrap();
            self.answered(&*base, Zxid(after), page, (after >= lost).then_some(kept));
        }
    }

    /// Page by page, what is answered after a zxid: of what is kept, or that this is too short.
    fn answered(&self, base: &dyn Base, after: Zxid, page: usize, kept: Option<&[(Zxid, Vec<Recorded>, u64)]>) {
        let Some(kept) = kept else {
            assert_eq!(query::history(base, after, page).unwrap(), History::TooShort { last: self.last });
            return;
        };
        let (mut told, mut at) = (Vec::new(), after);
        loop {
            match query::history(base, at, page).unwrap() {
                History::Kept { transactions, upto, last } => {
                    assert_eq!(last, self.last);
                    assert!(transactions.len() <= page && (upto > at || upto >= last), "it ends");
                    told.extend(transactions);
                    at = upto;
                }
                History::TooShort { .. } => panic!("after {after} all is kept, and it is said to be too short"),
            }
            if at >= self.last {
                break;
            }
        }
        let expected = kept.iter().filter(|(zxid, ..)| *zxid > after);
        assert_eq!(told, expected.map(|(zxid, changes, _)| (*zxid, changes.clone())).collect::<Vec<_>>());
    }
}

/// An entry of transactions with changes on paths of so many bytes.
fn entry(base: Zxid, transactions: &[Vec<usize>]) -> Entry {
    let change = |bytes: &usize| {
        let path = Path::parse(&format!("/{}", "x".repeat(bytes - 1))).unwrap();
        Recorded { change: Change { kind: ChangeKind::Data, path, version: base.0 }, acl: 0, beside: 7 }
    };
    let transactions = transactions.iter().map(|changes| Transaction {
        origin: Origin::Leader,
        changes: changes.iter().map(change).collect(),
        outcome: bytes::Bytes::new(),
    });
    let (prev, transactions) = (Chain::default(), transactions.collect());
    Entry { term: 1, prev, base, time_ms: 0, transactions, rows: Vec::new(), digest: 0 }
}

/// The first entry over a history without a row of what it keeps: from then on it is as if there had always been one.
pub(crate) fn goes_on_from_before(room: impl Room) {
    let bounds = Bounds { bytes: 400, ..Bounds::default() };
    let mut naive = Naive::after(room, bounds, Zxid(bounds.transactions - 5));
    for _ in 0..10 {
        naive.entry(&[vec![50], vec![]], None);
    }
    let answer = |naive: &Naive<_>, after| query::history(&*Room::snapshot(&naive.room), Zxid(after), 100).unwrap();
    let last = naive.last;
    assert_eq!(last.0, bounds.transactions + 15);
    assert_eq!(answer(&naive, 14), History::TooShort { last }, "nobody knows what there was at 15");
    match answer(&naive, 15) {
        History::Kept { transactions, .. } => assert_eq!(transactions.len(), 10),
        History::TooShort { .. } => panic!("all is kept after 15"),
    }
    // An entry without changes counts what is there, and cuts it down.
    naive.act(&Act::Entry(vec![vec![]]));
    assert!(matches!(answer(&naive, last.0 - 14), History::TooShort { .. }));
    assert!(matches!(answer(&naive, last.0 - 13), History::Kept { transactions, .. } if transactions.len() == 6));
    naive.act(&Act::Restart);
    naive.act(&Act::Entry(vec![vec![60], vec![60, 60]]));

    // What was counted in transactions alone, and is within the bytes, stays as it was.
    let bounds = Bounds::default();
    let room = naive.room;
    let mut naive = Naive::after(room, bounds, naive.last);
    naive.entries = 1_000;
    naive.room.commit(&mut |tables| {
        for zxid in 0..=last.0 + 3 {
            tables.write(Table::Change, &key::change(Zxid(zxid)), None)?;
        }
        Ok(())
    });
    naive.entry(&[vec![50], vec![]], None);
    naive.entry(&[vec![50]], Some(bounds));
    let lost = Zxid(naive.last.0 - 1 - bounds.transactions);
    assert!(matches!(answer(&naive, lost.0 - 1), History::TooShort { .. }));
    assert!(matches!(answer(&naive, lost.0), History::Kept { transactions, .. } if transactions.len() == 2));
}
