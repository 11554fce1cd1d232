//! Plugins without wasm: a component is its manifest, and what it does is written here.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conclave_core::plugin::{Ended, Park, Ran, Run, Runner, Test, Wake, Wanted, What};
use conclave_core::view::Stop;
use conclave_protocol::plugin::{ComponentDigest, Manifest};

use super::*;

/// Adds one to what a znode holds, and gives what it is then.
const COUNTER: &str = "[[procedure]]\nname = \"increment\"\n";
/// Waits until a znode is there.
const WAITER: &str = "[[procedure]]\nname = \"wait\"\nparks = true\n[[procedure]]\nname = \"increment\"\n";
/// Counts at `/ticks`, twice a second.
const CLOCK: &str = "[[trigger]]\non = \"timer\"\nevery-ms = 500\n";
/// Never ends well.
const BROKEN: &str = "[[procedure]]\nname = \"fail\"\n[[trigger]]\non = \"timer\"\nevery-ms = 3600000\n";

/// The plugins of every test's cluster.
pub(super) fn plugins() -> Vec<Install> {
    let all = [("counter", COUNTER), ("waiter", WAITER), ("clock", CLOCK), ("broken", BROKEN)];
    let install = |((name, rest), number): ((&str, &str), u8)| Install {
        name: name.to_owned(),
        digest: ComponentDigest([number; 32]),
        component: Bytes::from(format!("name = \"{name}\"\nversion = \"1\"\nworld = \"w\"\n{rest}")),
    };
    all.into_iter().zip(1..).map(install).collect()
}

/// Runs them.
#[derive(Default)]
pub(super) struct Guests {
    ready: Mutex<BTreeSet<ComponentDigest>>,
    /// They can't be run here.
    pub(super) unfit: Mutex<BTreeSet<ComponentDigest>>,
    /// The monotonic clock, microseconds; it goes on while something runs.
    pub(super) clock_us: AtomicU64,
    /// What a run takes.
    pub(super) run_us: AtomicU64,
    /// What a run takes of cluster time, and what all have taken, milliseconds.
    pub(super) run_ms: AtomicU64,
    pub(super) late_ms: AtomicU64,
}

impl Guests {
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_micros(self.clock_us.load(Ordering::Relaxed))
    }
}

impl Runner for Guests {
    fn inspect(&self, _: ComponentDigest, component: &[u8]) -> Result<Manifest, String> {
        toml::from_str(std::str::from_utf8(component).unwrap()).map_err(|error| error.to_string())
    }

    fn prepare(&self, digest: ComponentDigest, component: &[u8]) -> Result<Manifest, String> {
        if self.unfit.lock().unwrap().contains(&digest) {
            return Err("it needs what this machine lacks".to_owned());
        }
        self.ready.lock().unwrap().insert(digest);
        self.inspect(digest, component)
    }

    fn is_ready(&self, digest: ComponentDigest) -> bool {
        self.ready.lock().unwrap().contains(&digest)
    }

    fn run(&self, mut tx: Tx, run: Run) -> Ran {
        assert!(self.is_ready(run.digest), "{} runs and is not ready", run.plugin);
        self.clock_us.fetch_add(self.run_us.load(Ordering::Relaxed), Ordering::Relaxed);
        self.late_ms.fetch_add(self.run_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        let ended = match &run.what {
            What::Procedure { name, args, .. } => {
                let at = || path(std::str::from_utf8(args).unwrap());
                match name.as_str() {
                    "increment" => count(&mut tx, at()),
                    "wait" => wait(&mut tx, at()),
                    _ => Err(Refusal::PluginFailed { plugin: run.plugin, why: "as ever".to_owned() }.into()),
                }
            }
            What::Timer { .. } if run.plugin == "broken" => {
                Err(Refusal::PluginFailed { plugin: run.plugin, why: "as ever".to_owned() }.into())
            }
            What::Timer { .. } => count(&mut tx, path("/ticks")),
            other => panic!("{other:?}"),
        };
        let ended = ended.map_err(|stop| match stop {
            Stop::Refused(refusal) => refusal,
            Stop::Fault(fault) => panic!("{fault}"),
        });
        Ran { tx, ended, fuel: 1, args: None }
    }

    fn compared(&self, _: &str, _: Option<String>) {}
}

fn count(tx: &mut Tx, at: Path) -> Result<Ended, Stop> {
    let before = tx.get(&at)?;
    let value: u64 = before.as_ref().map_or(0, |(data, _)| String::from_utf8_lossy(data).parse().unwrap());
    let data = Bytes::from((value + 1).to_string());
    if before.is_some() {
        tx.set(&Set { path: at, data: data.clone(), if_version: None })?;
    } else {
        tx.create(&Create::new(at, data.clone()))?;
    }
    Ok(Ended::Done(data))
}

fn wait(tx: &mut Tx, at: Path) -> Result<Ended, Stop> {
    if tx.stat(&at)?.is_some() {
        return Ok(Ended::Done(Bytes::from_static(b"there")));
    }
    let any_of = vec![Wanted { path: at, test: Test::Exists }];
    Ok(Ended::Park(Park { any_of, wake: Wake::All, until_ms: None, state: Bytes::new() }))
}
