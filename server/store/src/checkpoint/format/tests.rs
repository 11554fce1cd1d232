//! Bytes that are no checkpoint, however well their hashes fit, are refused: no panic, no large allocation.

use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header { cluster: "c".to_owned(), local: Local::default(), zxid: Zxid(7), time_ms: 9 }
}

/// A file of these rows; the header tells their digest.
fn file(rows: &[(Table, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut header = header();
    let mut digest = Digest::default();
    let hash = |(table, key, value): &(Table, Vec<u8>, Vec<u8>)| RowHash::of(*table, key, value);
    rows.iter().filter(|(table, ..)| table.is_digested()).for_each(|row| digest.add(hash(row)));
    header.local.digest = digest.0;
    let mut encoder = Encoder::begin(Vec::new(), &header).unwrap();
    for row in rows {
        encoder.row(row.0, &row.1, &row.2, hash(row)).unwrap();
    }
    encoder.finish().unwrap().0
}

type Read = Result<(Vec<(Table, Vec<u8>, Vec<u8>)>, Trailer), Wrong>;

fn read(bytes: &[u8]) -> Read {
    let mut decoder = Decoder::begin(bytes, bytes.len() as u64)?;
    let mut rows = Vec::new();
    let mut take = |table, key: &[u8], value: &[u8], _| {
        rows.push((table, key.to_vec(), value.to_vec()));
        Ok::<_, Wrong>(())
    };
    while decoder.block(&mut take)?.is_some() {}
    Ok((rows, decoder.end()))
}

/// Rows that fill several blocks, and pack well.
fn several_blocks() -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    (0..40_u8).map(|at| (Table::Data, vec![at + 1], vec![at; 20_000])).collect()
}

/// Where the blocks of a file are.
fn blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = HEAD_BYTES + u32_of(&bytes[12..16]) as usize + HASH_BYTES;
    let mut found = Vec::new();
    while at + TRAILER_BYTES < bytes.len() {
        let end = at + BLOCK_HEAD_BYTES + HASH_BYTES + u32_of(&bytes[at + 8..at + 12]) as usize;
        found.push(at..end);
        at = end;
    }
    found
}

/// A file whose only block has this head and this content, with hashes that fit.
fn crafted(raw: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = file(&[]);
    bytes.truncate(bytes.len() - TRAILER_BYTES);
    let last = u128_of(&bytes[bytes.len() - HASH_BYTES..]);
    let mut head = [0; BLOCK_HEAD_BYTES];
    head[4..8].copy_from_slice(&raw.to_le_bytes());
    head[8..].copy_from_slice(&length(content.len()));
    let last = block_hash(last, &head, content);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&last.to_le_bytes());
    bytes.extend_from_slice(content);
    let trailer = Trailer { rows: 1, raw_bytes: u64::from(raw), digest: Digest::default(), last, id: 0 };
    let signed = trailer.unsigned();
    bytes.extend_from_slice(&signed);
    bytes.extend_from_slice(&xxh3_128(&signed).to_le_bytes());
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    match read(bytes) {
        Err(Wrong::Damaged(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_come_back_as_they_went_in() {
    for rows in [vec![], vec![(Table::Znode, vec![1], vec![])], several_blocks()] {
        let (back, trailer) = read(&file(&rows)).unwrap();
        assert_eq!(back, rows);
        assert_eq!(trailer.rows, rows.len() as u64);
        let raw: usize = rows.iter().map(|(_, key, value)| ROW_HEAD_BYTES + key.len() + value.len()).sum();
        assert_eq!(trailer.raw_bytes, raw as u64);
    }
}

#[test]
fn what_does_not_get_smaller_is_stored_as_it_is() {
    let mut seed = 1_u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    };
    let rows = vec![(Table::Data, vec![1], (0..3_000).map(|_| noise()).collect::<Vec<_>>())];
    let bytes = file(&rows);
    let block = blocks(&bytes).remove(0);
    assert_eq!(bytes[block.start + 4..block.start + 8], bytes[block.start + 8..block.start + 12]);
    assert_eq!(read(&bytes).unwrap().0, rows);
}

#[test]
fn the_id_tells_files_apart() {
    let ids: Vec<_> = [vec![], several_blocks(), several_blocks()[1..].to_vec()]
        .iter()
        .map(|rows| read(&file(rows)).unwrap().1.id)
        .collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    assert_eq!(read(&file(&several_blocks())).unwrap().1.id, ids[1]);
}

#[test]
fn a_block_in_anothers_place_twice_or_missing_is_refused() {
    let bytes = file(&several_blocks());
    let blocks = blocks(&bytes);
    assert!(blocks.len() >= 3, "{} blocks", blocks.len());
    let built = |order: &[usize]| {
        let mut built = bytes[..blocks[0].start].to_vec();
        order.iter().for_each(|block| built.extend_from_slice(&bytes[blocks[*block].clone()]));
        built.extend_from_slice(&bytes[blocks.last().unwrap().end..]);
        built
    };
    let all: Vec<_> = (0..blocks.len()).collect();
    assert_eq!(built(&all), bytes);
    for at in 0..blocks.len() {
        let mut missing = all.clone();
        missing.remove(at);
        refusal(&built(&missing));
        let mut twice = all.clone();
        twice.insert(at, at);
        refusal(&built(&twice));
        for other in at + 1..blocks.len() {
            let mut swapped = all.clone();
            swapped.swap(at, other);
            refusal(&built(&swapped));
        }
    }
}

#[test]
fn a_block_of_another_file_with_the_same_number_is_refused() {
    let mut rows = several_blocks();
    let one = file(&rows);
    rows[0].2[0] ^= 1;
    let other = file(&rows);
    let (mine, theirs) = (blocks(&one).remove(1), blocks(&other).remove(1));
    let mixed = [&one[..mine.start], &other[theirs], &one[mine.end..]].concat();
    assert_eq!(refusal(&mixed), "block 1 is damaged");
}

#[test]
fn lengths_are_bounded_before_anything_is_allocated() {
    for raw in [0, 1, u32::MAX, u32::try_from(RAW_BYTES).unwrap()] {
        assert_eq!(refusal(&crafted(raw, &[0; 9])), "the lengths of block 0 are impossible", "{raw}");
    }
    let mut long = file(&[]);
    long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(refusal(&long), "its header is damaged");
}

#[test]
fn rows_out_of_order_or_of_no_table_are_refused() {
    let row = |table: u8, key: &[u8], value: &[u8]| {
        [&[table, u8::try_from(key.len()).unwrap(), 0][..], &length(value.len()), key, value].concat()
    };
    let crafted = |rows: &[Vec<u8>]| crafted(u32::try_from(rows.concat().len()).unwrap(), &rows.concat());
    let sorted = "its rows are not sorted, each once";
    assert_eq!(refusal(&crafted(&[row(2, b"b", b""), row(2, b"a", b"")])), sorted);
    assert_eq!(refusal(&crafted(&[row(2, b"a", b""), row(2, b"a", b"x")])), sorted);
    assert_eq!(refusal(&crafted(&[row(2, b"a", b""), row(1, b"b", b"")])), sorted);
    let unreadable = "a row in it can't be read";
    let beyond = Table::ALL.map(Table::number).into_iter().max().unwrap() + 1;
    for bad in [row(0, b"a", b""), row(beyond, b"a", b""), row(1, b"", b""), row(1, b"a", b"x")[..7].to_vec()] {
        assert_eq!(refusal(&crafted(&[bad])), unreadable);
    }
    // Of the history, which no digest covers: the one file of this kind that is good.
    assert_eq!(read(&crafted(&[row(9, b"a", b"")])).unwrap().1.rows, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_content_with_fitting_hashes_is_read_or_refused(
        raw in 0..3_000_u32,
        content in prop::collection::vec(any::<u8>(), 0..600),
        plain in any::<bool>(),
    ) {
        let raw = if plain { u32::try_from(content.len()).unwrap() } else { raw };
        // Good it can be only by saying that it holds one row of the history.
        if let Ok((rows, _)) = read(&crafted(raw, &content)) {
            prop_assert!(matches!(rows.as_slice(), [(Table::Change, ..)]));
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn any_rows_come_back(
        rows in prop::collection::btree_map(
            (prop::sample::select(Table::ALL.to_vec()), prop::collection::vec(any::<u8>(), 1..500)),
            prop::collection::vec(any::<u8>(), 0..5_000),
            0..40,
        ),
    ) {
        let rows: Vec<_> = rows.into_iter().map(|((table, key), value)| (table, key, value)).collect();
        prop_assert_eq!(read(&file(&rows)).unwrap().0, rows);
    }
}
