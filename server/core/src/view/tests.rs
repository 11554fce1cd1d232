//! The merging view against a naive map.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::apply::Tables;
use crate::memory::MemTables;

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// One transaction's writes to one table.
type Writes = Vec<(Vec<u8>, Option<u8>)>;

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few bytes and short keys: prefixes of each other, and many hits.
    vec(0..3_u8, 0..4)
}

fn writes() -> impl Strategy<Value = Vec<Writes>> {
    vec(vec((key(), option::of(any::<u8>())), 0..6), 0..8)
}

fn bytes(value: u8) -> Bytes {
    vec![value; usize::from(value % 5)].into()
}

fn put(rows: &mut Rows, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => rows.insert(key.clone(), bytes(*value)),
            None => rows.remove(key),
        };
    }
}

fn tables(transactions: &[Writes]) -> Box<dyn Base> {
    let mut tables = MemTables::new("test");
    for (key, value) in transactions.iter().flatten() {
        tables.write(Table::Data, key, value.map(bytes).as_deref()).unwrap();
    }
    // Neighbours that no scan of the table in between may show.
    for table in [Table::Znode, Table::Child] {
        tables.write(table, &[1], Some(b"other")).unwrap();
    }
    tables.snapshot()
}

fn over(writes: &Writes) -> Vec<(Table, Vec<u8>, Option<Bytes>)> {
    writes.iter().map(|(key, value)| (Table::Data, key.clone(), value.map(bytes))).collect()
}

fn naive(rows: &Rows, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Row> {
    let rows =
        rows.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_slice() > after));
    rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_view_shows_what_is_applied_and_planned_whatever_is_in_the_base(
        transactions in writes(),
        first in 0..8_usize,
        second in 0..8_usize,
        prefix in key(),
        after in option::of(key()),
        limit in 0..6_usize,
    ) {
        let first = first.min(transactions.len());
        let second = second.min(transactions.len()).max(first);
        let mut all = Rows::new();
        transactions.iter().for_each(|writes| put(&mut all, writes));

        // Some are in the base, the others planned over it; then more of them are applied.
        let mut view = View::new(tables(&transactions[..first]));
        for (zxid, writes) in (1..).map(Zxid).zip(&transactions).skip(first) {
            view.write(zxid, over(writes));
        }
        for applied in [first, second, transactions.len()] {
            if applied > first {
                view.rebase(tables(&transactions[..applied]), Zxid(applied as u64));
            }
            prop_assert_eq!(
                view.scan(Table::Data, &prefix, after.as_deref(), limit).unwrap(),
                naive(&all, &prefix, after.as_deref(), limit)
            );
            prop_assert_eq!(view.row(Table::Data, &prefix).unwrap(), all.get(&prefix).cloned());
        }
        prop_assert_eq!(view.overlay_rows(), 0);
    }

    #[test]
    fn a_transaction_shows_its_own_writes_over_the_view(
        applied in writes(),
        planned in writes(),
        own in writes(),
        prefix in key(),
        after in option::of(key()),
        limit in 0..6_usize,
    ) {
        let mut all = Rows::new();
        applied.iter().chain(&planned).chain(&own).for_each(|writes| put(&mut all, writes));
        let mut view = View::new(tables(&applied));
        for (zxid, writes) in (1..).map(Zxid).zip(&planned) {
            view.write(zxid, over(writes));
        }
        let mut tx = Tx::over(view, 0, "", None).unwrap();
        for (key, value) in own.iter().flatten() {
            match value {
                Some(value) => tx.put(Table::Data, key, bytes(*value)),
                None => tx.remove(Table::Data, key),
            }
        }
        prop_assert_eq!(
            tx.scan(Table::Data, &prefix, after.as_deref(), limit).unwrap(),
            naive(&all, &prefix, after.as_deref(), limit)
        );
        prop_assert_eq!(tx.row(Table::Data, &prefix).unwrap(), all.get(&prefix).cloned());
        let last: Rows = own.iter().flatten().map(|(key, value)| (key.clone(), value.map(bytes).unwrap_or_default())).collect();
        prop_assert_eq!(tx.rows_written(), last.len());
        prop_assert_eq!(tx.bytes_written(), last.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>());
    }
}

#[test]
fn a_rebase_drops_rows_at_or_below_the_bases_zxid_and_no_others() {
    let writes: Vec<Writes> =
        vec![vec![(vec![1], Some(1))], vec![(vec![1], None), (vec![2], Some(2))], vec![(vec![3], Some(3))]];
    let mut view = View::new(tables(&[]));
    for (zxid, writes) in (1..).map(Zxid).zip(&writes) {
        view.write(zxid, over(writes));
    }
    assert_eq!(view.overlay_rows(), 3);
    view.rebase(tables(&writes[..1]), Zxid(1));
    // The row of key 1 was written again, as a tombstone: it must go on hiding the base's.
    assert_eq!(view.overlay_rows(), 3);
    assert_eq!(view.row(Table::Data, &[1]).unwrap(), None);
    view.rebase(tables(&writes[..2]), Zxid(2));
    assert_eq!(view.overlay_rows(), 1);
    view.rebase(tables(&writes), Zxid(3));
    assert_eq!(view.overlay_rows(), 0);
}

#[test]
fn a_first_row_behind_many_deleted_ones_is_found_with_few_looks_below() {
    const DELETED: u32 = 5_000;
    let key = |number: u32| number.to_be_bytes().to_vec();
    let over: Rows = (0..DELETED).map(|number| (key(number), Bytes::new())).collect();
    let mut looks = 0;
    let rows = merge(over.keys().map(|key| (key.as_slice(), None)), 1, |after, count| {
        looks += 1;
        let first = after.map_or(0, |after| u32::from_be_bytes(after.try_into().unwrap()) + 1);
        Ok((first..=DELETED).take(count).map(|number| (key(number), Bytes::new())).collect())
    });
    assert_eq!(rows.unwrap(), [(key(DELETED), Bytes::new())]);
    assert!(looks < 40, "{looks} looks");
}
