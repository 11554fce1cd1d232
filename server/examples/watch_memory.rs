//! What watches cost: bytes of memory each, and the time of a change, of a disconnect, of an end.
//!
//! `cargo run --release -p conclave-server --example watch_memory [WATCHES]`
#![expect(clippy::print_stdout, reason = "that is what it is for")]
#![allow(unreachable_pub, dead_code, reason = "a room of the server, opened from the side")]

#[path = "../src/watches.rs"]
mod watches;

use std::time::{Duration, Instant};

use conclave_core::row::Recorded;
use conclave_protocol::{Change, ChangeKind, Path, Scope, WatchId, WatchRequest, Zxid};
use watches::{ConnectionId, Watches};

const CONNECTIONS: u64 = 64;

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * 4096
}

/// The path as the codec makes it: of a text that was just read.
fn path(text: &str) -> Path {
    Path::parse(text).expect("it is one")
}

fn changed(at: &str) -> [Recorded; 1] {
    [Recorded { change: Change { kind: ChangeKind::Data, path: path(at), version: 1 }, acl: 0, beside: 0 }]
}

fn fill(watches: &mut Watches, count: u64, at: impl Fn(u64) -> String) {
    for n in 0..count {
        let request = WatchRequest::new(WatchId(n), path(&at(n)), Scope::Data);
        watches.add(ConnectionId(n % CONNECTIONS), &request, Zxid(0));
    }
}

fn took<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = what();
    (done, began.elapsed())
}

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let deep =
        |n: u64| format!("/services/region-{}/cluster-{}/group-{}/instances/node-{n:08}", n % 7, n % 31, n % 101);
    let before = resident();
    let mut watches = Watches::default();
    fill(&mut watches, count, deep);
    let bytes = resident().saturating_sub(before);
    println!("{count} watches on paths of {} bytes: {} bytes each", deep(0).len(), bytes / count);
    let (told, time) = took(|| (1..=1_000).map(|n| watches.matching(Zxid(n), &changed("/a/b/c")).len()).sum::<usize>());
    println!("a change elsewhere: {:?} ({told} told)", time / 1_000);
    let (told, time) = took(|| watches.matching(Zxid(1), &changed(&deep(5))).len());
    println!("a change that one watch is told of: {time:?} ({told} told)");
    drop(watches);

    let mut watches = Watches::default();
    fill(&mut watches, 10_000, |_| "/one".to_owned());
    let (told, time) = took(|| watches.matching(Zxid(1), &changed("/one")).len());
    println!("a change that {told} watches are told of: {time:?} to find them");
    let ((), time) = took(|| watches.remove_all(ConnectionId(0)));
    println!("the end of one of {CONNECTIONS} connections with watches there: {time:?}");
}
