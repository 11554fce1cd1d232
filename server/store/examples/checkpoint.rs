//! Times a checkpoint of many znodes: fill, make, install, rebuild. Arguments: a directory, which stays, and is not
//! filled again; how many znodes; bytes of data each.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use conclave_core::apply::{Position, Tables};
use conclave_core::digest::{Digest, RowHash};
use conclave_core::{Fault, Table, ZnodeId, key, row};
use conclave_protocol::{Stat, Zxid};
use conclave_store::{Checkpoints, DirLock, Options, Progress, Store, Writer};

/// Children of one parent, and znodes of one batch.
const BATCH: u64 = 1_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(|| std::env::temp_dir().join("checkpoint-example"), PathBuf::from);
    let znodes = arguments.next().map_or(1_000_000, |n| n.parse().unwrap());
    let bytes = arguments.next().map_or(100, |n| n.parse().unwrap());
    let lock = DirLock::acquire(&dir).unwrap();
    let checkpoints = Checkpoints::open(&lock, "example").unwrap();
    let options = Options::default();
    let mut opened = Store::open(&lock, "example", &checkpoints, &options).unwrap();

    if opened.writer.local().applied.is_none() {
        let began = Instant::now();
        fill(&mut opened.writer, znodes, bytes);
        opened.store.sync().unwrap();
        println!("fill     {:6.2} s", began.elapsed().as_secs_f64());
    }
    let on_disk = opened.store.disk_bytes().unwrap();

    let began = Instant::now();
    let mut written = None;
    let mut progress = |now: Progress| {
        if now.step == conclave_store::Step::Write {
            written = Some(began.elapsed());
        }
        ControlFlow::Continue(())
    };
    let checkpoint = checkpoints.make(&opened.store, &mut progress).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let written = written.map_or(0.0, |written| written.as_secs_f64());
    println!(
        "make     {seconds:6.2} s, {:.0} MB/s of rows; written after {written:.2} s",
        mb(checkpoint.raw_bytes()) / seconds
    );
    println!(
        "         {} rows, {:.1} MB raw, file {:.1} MB, tables {:.1} MB: file is {:.2} of the tables",
        checkpoint.rows(),
        mb(checkpoint.raw_bytes()),
        mb(checkpoint.bytes()),
        mb(on_disk),
        mb(checkpoint.bytes()) / mb(on_disk)
    );

    let began = Instant::now();
    checkpoint.verify(&mut go_on).unwrap();
    println!("verify   {:6.2} s (cached)", began.elapsed().as_secs_f64());

    let began = Instant::now();
    opened.writer.install(&checkpoint, &mut go_on).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let built = opened.store.disk_bytes().unwrap();
    println!(
        "install  {seconds:6.2} s, {:.0} MB/s of file; new tables {:.1} MB",
        mb(checkpoint.bytes()) / seconds,
        mb(built)
    );

    drop((opened.writer, opened.store));
    let began = Instant::now();
    let options = Options { discard: true, ..options };
    let opened = Store::open(&lock, "example", &checkpoints, &options).unwrap();
    assert_eq!(opened.rebuilt_from, Some(checkpoint.position()));
    println!("rebuild  {:6.2} s (open after a discard)", began.elapsed().as_secs_f64());
    opened.writer.close().unwrap();
    drop(opened.store);
    let began = Instant::now();
    let opened = Store::open(&lock, "example", &checkpoints, &Options::default()).unwrap();
    println!("open     {:6.3} s (clean)", began.elapsed().as_secs_f64());
    opened.writer.close().unwrap();
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[allow(clippy::cast_precision_loss)]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn fill(writer: &mut Writer, znodes: u64, bytes: usize) {
    let mut seed = 1_u64;
    for first in (2..znodes + 2).step_by(usize::try_from(BATCH).unwrap()) {
        let batch = |tables: &mut dyn Tables| -> Result<(), Fault> {
            let mut digest = Digest::of(tables.local());
            let mut put = |table: Table, key: &[u8], value: &[u8]| -> Result<(), Fault> {
                if let Some(old) = tables.write(table, key, Some(value))? {
                    digest.remove(old);
                }
                digest.add(RowHash::of(table, key, value));
                Ok(())
            };
            for id in first..(first + BATCH).min(znodes + 2) {
                let (parent, id) = (ZnodeId(first - 1), ZnodeId(id));
                let stat = Stat {
                    created: Zxid(id.0),
                    modified: Zxid(id.0),
                    created_ms: 1_750_000_000_000 + id.0,
                    modified_ms: 1_750_000_000_000 + id.0,
                    data_bytes: bytes as u64,
                    ..Stat::default()
                };
                let znode = row::Znode { stat, next_sequence: 0, acl: 0, parent, expiry_ms: 0 };
                put(Table::Znode, &key::znode(id), &row::encode(&znode))?;
                put(Table::Child, &key::child(parent, &format!("znode-{:010}", id.0)), &row::encode(&id))?;
                // Half of it like text, half like noise.
                let data: Vec<u8> = (0..bytes)
                    .map(|at| {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        if at % 2 == 0 { b'x' } else { seed.to_be_bytes()[0] }
                    })
                    .collect();
                put(Table::Data, &key::znode(id), &data)?;
                if id.0 + 100_000 > znodes {
                    // As if the last ones had been one-shot writes.
                    put(Table::Expiry, &key::expiry(id.0, &[7; 32]), &[])?;
                }
            }
            let state = row::State {
                zxid: Zxid(first),
                next_id: first + BATCH,
                time_ms: 1,
                znodes: first,
                ..row::State::default()
            };
            put(Table::State, key::STATE, &row::encode(&state))?;
            let local = tables.local();
            local.digest = digest.0;
            local.applied = Some(Position { term: 1, index: first });
            Ok(())
        };
        writer.write(batch, |_| Ok(())).unwrap();
    }
}
