//! What the tests of the log share: small sizes, records, and short cuts.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    io,
    sync::{Arc, Mutex},
};

use conclave_log::{Bytes, Done, Log, MemDisk, Options, Record};

/// Sizes that make segments end and zeros run out within a test.
pub fn small() -> Options {
    Options {
        segment_bytes: 2048,
        ahead_bytes: 1024,
        step_bytes: 512,
        payload_limit_bytes: 4096,
        cache_bytes: 600,
        salt: 0x1234_5678,
    }
}

/// One segment, little space ahead.
pub fn single() -> Options {
    Options { segment_bytes: 1 << 20, ..small() }
}

pub fn record(index: u64, term: u64, length: usize) -> Record {
    let payload: Vec<u8> = (0..length).map(|i| (index as usize * 7 + i * 3 + 1) as u8 | 1).collect();
    Record { index, term, kind: (index % 5) as u8, payload: Bytes::from(payload) }
}

pub fn open(disk: &MemDisk, options: Options) -> Result<(Log, conclave_log::Recovered), conclave_log::Error> {
    Log::open(Arc::new(disk.clone()), options)
}

pub fn all(log: &Log) -> Vec<Record> {
    log.reader().read(0..u64::MAX, usize::MAX).unwrap()
}

/// Gathers what callbacks are told, in order.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Call>>>);

/// Name and result.
type Call = (u64, io::Result<()>);

impl Told {
    pub fn done(&self, name: u64) -> Done {
        let told = self.0.clone();
        Box::new(move |result| told.lock().unwrap().push((name, result)))
    }

    pub fn good(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().filter(|(_, r)| r.is_ok()).map(|(n, _)| *n).collect()
    }

    pub fn bad(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().filter(|(_, r)| r.is_err()).map(|(n, _)| *n).collect()
    }
}

pub fn nothing() -> Done {
    Box::new(|_| {})
}

/// Whether `condition` came true before a long time had passed.
pub fn eventually(condition: impl Fn() -> bool) -> bool {
    let start = std::time::Instant::now();
    while !condition() {
        if start.elapsed().as_secs() > 20 {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// SplitMix64, so that runs repeat.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
