//! What a call costs a planner: one get and one set on a tree in memory, in a fresh instance; and what an idle instance keeps.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "its figures are its purpose")]

#[path = "../tests/kit/mod.rs"]
mod kit;

use std::time::Instant;

use conclave_core::plugin::Runner;
use conclave_plugin_host::{Budgets, Host};

const CALLS: u32 = 20_000;
const GET_AND_SET: &str = "(func (export \"call\") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (call $get (i32.const 16) (i32.const 7) (i32.const 1024))
    (call $set (i32.const 16) (i32.const 7) (i32.const 16) (i32.const 7) (i32.const 0) (i64.const 0) (i32.const 1024))
    (i32.const 256))";

fn main() {
    let component = kit::procedure(GET_AND_SET);
    let host = Host::new(Budgets::default()).unwrap();
    let started = Instant::now();
    host.compile(kit::digest(&component), &component).unwrap();
    println!("compile        {:?}", started.elapsed());

    let folder = tempfile::tempdir().unwrap();
    host.clone().with_cache(folder.path()).unwrap();
    let mut times = Vec::with_capacity(CALLS as usize);
    let mut tx = kit::tx(&["/victim"], None);
    let before = resident();
    let mut fuel = 0;
    for call in 0..CALLS {
        let started = Instant::now();
        let ran = host.run(tx, kit::run_of(&component, kit::call()));
        times.push(started.elapsed());
        ran.ended.unwrap();
        (tx, fuel) = (ran.tx, ran.fuel);
        if call == 0 {
            println!("first call     {:?}, {} KiB more resident", times[0], resident().saturating_sub(before));
        }
    }
    times.sort();
    let at = |share: usize| times[times.len() * share / 1_000 - 1];
    println!("get and set    p50 {:?}, p99 {:?}, p99.9 {:?}, fuel {fuel}", at(500), at(990), at(999));
    matching();
}

/// What 100 plugins cost a write that none of them is for: planned in turn without and with them.
fn matching() {
    const WRITES: u32 = 4_000;
    const ROUNDS: usize = 15;
    let trigger =
        "(func (export \"call\") (param i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 256))";
    let named: Vec<(String, Vec<u8>)> = (0..100)
        .map(|n| {
            let paths = format!("[\"/app-{n}/**\", \"/many/{n}/*/config\"]");
            let manifest = format!("[[trigger]]\non = \"before\"\npaths = {paths}\n");
            (format!("p{n}"), kit::guest(trigger, &["before"], &manifest))
        })
        .collect();
    let all: Vec<(&str, &[u8])> = named.iter().map(|(name, component)| (name.as_str(), &component[..])).collect();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (plugins, times) in [(&all[..0], &mut without), (&all[..], &mut with)] {
            let mut leader = kit::Leader::new(plugins, Host::new(Budgets::default()).unwrap());
            leader.create("/many").unwrap();
            leader.create("/many/z1").unwrap();
            let started = Instant::now();
            for _ in 0..WRITES {
                leader.set("/many/z1").unwrap();
            }
            times.push(started.elapsed() / WRITES);
        }
    }
    without.sort();
    with.sort();
    let (before, after) = (without[ROUNDS / 2], with[ROUNDS / 2]);
    let ratio = after.as_secs_f64() / before.as_secs_f64();
    println!("a set          {before:?} without plugins, {after:?} beside 100 that it does not match: {ratio:.3}");
    println!("               rounds {without:?}");
    println!("               and    {with:?}");
}

/// KiB of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
