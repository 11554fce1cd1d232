//! How many calls of `counter increment` a planner does in a second, on a tree in memory.
#![allow(clippy::print_stdout, reason = "its figures are its purpose")]

use std::time::Instant;

use bytes::Bytes;
use conclave_core::memory::MemTables;
use conclave_core::plan::{Procedure, Procedures};
use conclave_core::view::{Tx, View};
use conclave_plugin_host::{Budgets, Host};
use sha2::{Digest, Sha256};

const COUNTER: &[u8] = include_bytes!("../../../plugins/prebuilt/counter.wasm");
const CALLS: u32 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let digest: [u8; 32] = Sha256::digest(COUNTER).into();
    let mut host = Host::new(Budgets::default())?;
    let started = Instant::now();
    host.compile(digest, COUNTER)?;
    println!("compile      {:?}", started.elapsed());

    let tables = MemTables::with_root("bench", Vec::new())?;
    let mut tx = Tx::over(View::new(tables.snapshot()), 1, "spiffe://bench/client/calls", None)?;
    let started = Instant::now();
    for _ in 0..CALLS {
        let call = Procedure {
            plugin: "counter".to_owned(),
            digest,
            settings: Bytes::new(),
            procedure: "increment".to_owned(),
            args: Bytes::from_static(b"\x81\x65/hits"),
        };
        let (after, answer) = host.call(tx, call);
        answer?;
        tx = after;
    }
    let each = started.elapsed() / CALLS;
    println!("increment    {each:?} each, {:.0} calls/s", 1.0 / each.as_secs_f64());
    Ok(())
}
