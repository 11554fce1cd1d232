//! Tests that DISK.md tells of every table and every format as the code has them.

use conclave_core::digest::Chain;
use conclave_core::entry::Entry;
use conclave_core::{Table, row};
use conclave_protocol::Zxid;

use crate::checkpoint::format;

const PAGE: &str = include_str!("../../../DISK.md");

/// The rows of the table below a heading: their cells.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let below = PAGE.split_once(&format!("\n### {heading}\n"));
    let (_, below) = below.unwrap_or_else(|| panic!("DISK.md has no section {heading}"));
    let lines = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    // The first two are the columns' names and a line.
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_page_tells_of_every_table_by_name_and_number() {
    let told: Vec<_> = rows("Names").iter().map(|cells| (cells[0].to_owned(), cells[1].to_owned())).collect();
    let all = Table::ALL.map(|table| (format!("`{}`", table.name()), table.number().to_string()));
    assert_eq!(told, all);
}

#[test]
fn the_page_tells_the_number_of_every_format() {
    let told = |format: &str| {
        let rows = rows("Numbers");
        let row = rows.iter().find(|cells| cells[0].trim_matches('`') == format);
        row.unwrap_or_else(|| panic!("DISK.md does not tell of the format {format}"))[1].parse::<u32>().unwrap()
    };
    let entry = Entry {
        term: 1,
        prev: Chain::default(),
        base: Zxid(0),
        time_ms: 0,
        transactions: Vec::new(),
        rows: Vec::new(),
        digest: 0,
    };
    assert_eq!(told("tables"), crate::FORMAT);
    assert_eq!(told("checkpoint"), format::FORMAT);
    assert_eq!(told("row"), u32::from(row::encode(&row::State::default())[0]));
    assert_eq!(told("entry"), u32::from(entry.encode()[0]));
}
