//! A rolling restart that loses no request: `cargo run --example rolling [WORKERS]`; ends with 1 when one was lost.
//!
//! Workers are drained, stopped and started again as the next version, one after the other, while clients that pick from
//! views call them all the time.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_client::{Client, Options};
use conclave_discovery::{Discovery, Error as DiscoveryError, Instance, Pick, Registration, View};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

type Error = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: &str = "rolling";
const CLIENTS: usize = 4;
/// A worker that drains stops when nobody has called it for so long: longer than views are behind.
const IDLE: Duration = Duration::from_secs(1);
/// Between the calls of a client: each is a connection, and ports are few.
const PACE: Duration = Duration::from_millis(5);
/// A call that has no answer by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a worker is asked whether it can serve.
const CHECK: Duration = Duration::from_millis(100);

/// What the clients of a rolling restart have seen.
#[derive(Debug)]
pub(crate) struct Report {
    /// Calls that were answered, by the version of the worker that did.
    pub(crate) answered: BTreeMap<String, u64>,
    /// Calls that were not, and why.
    pub(crate) lost: Vec<String>,
    /// Calls that a worker refused, and another one was picked for: the view was behind.
    pub(crate) again: u64,
    /// The fewest workers that could be picked at any moment.
    pub(crate) least: usize,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let workers = std::env::args().nth(1).map_or(Ok(3), |text| text.parse())?;
    let client = Client::connect(Options::load()?).await?;
    let begun = Instant::now();
    let Report { answered, lost, again, least } = roll(&Discovery::new(&client, "/services")?, workers).await?;
    client.close().await?;
    println!("{workers} workers restarted in {:.1} s, {least} or more of them up", begun.elapsed().as_secs_f64());
    for (version, calls) in answered {
        println!("{calls} calls answered by version {version}");
    }
    println!("{again} calls sent again, {} lost", lost.len());
    for why in &lost {
        println!("lost: {why}");
    }
    Ok(if lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts so many workers as version 1, and restarts each as version 2, while clients call them.
pub(crate) async fn roll(services: &Discovery, workers: usize) -> Result<Report, Error> {
    let view = services.view(SERVICE).await?;
    let mut running = Vec::new();
    for n in 0..workers {
        running.push(Worker::start(services, n, "1").await?);
    }
    until_healthy(&view, workers, "1").await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CLIENTS {
        // Each its own, as in programs of their own; all show what the first one does before anybody is restarted.
        let own = services.view(SERVICE).await?;
        own.reached(view.instances().zxid).await?;
        callers.spawn(call_all_the_time(own, Arc::clone(&is_over)));
    }
    for (n, worker) in running.iter_mut().enumerate() {
        let old = worker.take().ok_or("each is restarted once")?;
        old.stop().await?;
        *worker = Worker::start(services, n, "2").await?;
        until_healthy(&view, n + 1, "2").await?;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut report = Report { answered: BTreeMap::new(), lost: Vec::new(), again: 0, least: workers };
    while let Some(seen) = callers.join_next().await {
        let seen = seen?;
        for (version, calls) in seen.answered {
            *report.answered.entry(version).or_default() += calls;
        }
        report.lost.extend(seen.lost);
        report.again += seen.again;
        report.least = report.least.min(seen.least);
    }
    for worker in running.into_iter().flatten() {
        worker.stop().await?;
    }
    Ok(report)
}

/// Waits until so many workers of this version can be picked.
async fn until_healthy(view: &View, count: usize, version: &str) -> Result<(), DiscoveryError> {
    let mut seen = view.instances();
    while seen.healthy.iter().filter(|found| found.version.as_deref() == Some(version)).count() < count {
        seen = view.changed(&seen).await?;
    }
    Ok(())
}

/// Calls one worker after the other.
async fn call_all_the_time(view: View, is_over: Arc<AtomicBool>) -> Report {
    let mut report = Report { answered: BTreeMap::new(), lost: Vec::new(), again: 0, least: usize::MAX };
    let mut pace = tokio::time::interval(PACE);
    while !is_over.load(Ordering::Relaxed) {
        pace.tick().await;
        report.least = report.least.min(view.instances().healthy.len());
        match tokio::time::timeout(PATIENCE, call_any(&view, &mut report.again)).await {
            Ok(Ok(version)) => *report.answered.entry(version).or_default() += 1,
            Ok(Err(error)) => report.lost.push(error.to_string()),
            Err(_) => report.lost.push("no answer".to_owned()),
        }
    }
    report
}

/// Calls one that can be picked; gives its version. Who refuses the connection was asked nothing, so another one can be.
async fn call_any(view: &View, again: &mut u64) -> Result<String, Error> {
    loop {
        let picked = view.pick(Pick::RoundRobin)?;
        match picked.call(async |worker| call(&worker.address).await).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => *again += 1,
            done => return Ok(done?),
        }
    }
}

async fn call(address: &str) -> io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(b"hello\n").await?;
    let mut version = String::new();
    match stream.read_line(&mut version).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(version.trim_end().to_owned()),
    }
}

/// A worker: in a real service, a process.
struct Worker {
    registration: Registration,
    /// Dropped, it ends once nobody calls it any more.
    goes_on: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Worker {
    /// Starts it, and registers it; it is healthy when its own check says so.
    async fn start(services: &Discovery, n: usize, version: &'static str) -> Result<Option<Self>, Error> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let instance = Instance::new(SERVICE, listener.local_addr()?).id(format!("worker-{n}")).version(version);
        let is_up = Arc::new(AtomicBool::new(false));
        let check = {
            let is_up = Arc::clone(&is_up);
            move || {
                let is_up = is_up.load(Ordering::Relaxed);
                async move { if is_up { Ok(()) } else { Err("it is starting") } }
            }
        };
        let (goes_on, is_to_end) = oneshot::channel();
        let registration = services.register(instance).check(CHECK, check).await?;
        let serving = tokio::spawn(serve(listener, version, is_up, is_to_end));
        Ok(Some(Self { registration, goes_on, serving }))
    }

    /// Drains it, waits until it has done what came all the same, and takes it away.
    async fn stop(self) -> Result<(), Error> {
        self.registration.drain().await?;
        drop(self.goes_on);
        self.serving.await??;
        Ok(self.registration.deregister().await?)
    }
}

async fn serve(
    listener: TcpListener,
    version: &'static str,
    is_up: Arc<AtomicBool>,
    mut is_to_end: oneshot::Receiver<()>,
) -> io::Result<()> {
    is_up.store(true, Ordering::Relaxed);
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            call = listener.accept() => drop(answers.spawn(answer(call?.0, version))),
            _ = &mut is_to_end => break,
        }
    }
    // Views are a while behind: who comes is served, until nobody does.
    while let Ok(call) = tokio::time::timeout(IDLE, listener.accept()).await {
        answers.spawn(answer(call?.0, version));
    }
    drop(listener);
    while let Some(answered) = answers.join_next().await {
        answered??;
    }
    Ok(())
}

async fn answer(stream: TcpStream, version: &str) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.read_line(&mut String::new()).await?;
    stream.write_all(format!("{version}\n").as_bytes()).await
}
