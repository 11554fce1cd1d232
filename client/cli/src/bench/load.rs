//! One client's load: so many requests on their way at a time, each measured from being sent to being answered.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_client::{At, Client, Error, Options, Path};
use conclave_locks::Mutex;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;

use super::ZNODES;
use crate::args::{Bench, Workload};

/// The longest latency that is told apart, microseconds.
const LONGEST_US: u64 = 120_000_000;
/// After an error, before the next attempt: a cluster that refuses at once is not asked a million times a second.
const PAUSE: Duration = Duration::from_millis(5);

/// One run, as all clients see it.
#[derive(Debug)]
pub(super) struct Run {
    options: Options,
    base: Path,
    workload: Workload,
    depth: usize,
    linearizable: bool,
    data: Bytes,
    warmup: Duration,
    total: Duration,
    start: Instant,
    /// When any client last completed a request, microseconds since the start.
    last_us: AtomicU64,
}

/// What one client did while it was measured.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of completed requests, microseconds.
    pub(super) latency_us: Histogram<u64>,
    /// Requests that failed.
    pub(super) errors: u64,
    /// The first failure, in words.
    pub(super) first_error: Option<String>,
    /// The longest time without a completed request of any client, as far as this one has seen.
    pub(super) gap_us: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        // To one in a hundred: a histogram of 20 KB, for a thousand clients in one process.
        let latency_us = Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are in order");
        Self { latency_us, errors: 0, first_error: None, gap_us: 0 }
    }
}

/// Where a client's own znodes are.
pub(super) fn own(base: &Path, index: usize) -> conclave_client::Result<Path> {
    Ok(base.join(&format!("c{index}"))?)
}

impl Run {
    pub(super) fn new(options: Options, base: Path, args: &Bench) -> Self {
        let warmup = Duration::from_secs_f64(args.warmup);
        Self {
            options,
            base,
            workload: args.workload,
            depth: args.depth as usize,
            linearizable: args.linearizable,
            data: vec![b'x'; args.size].into(),
            warmup,
            total: warmup + Duration::from_secs_f64(args.seconds),
            start: Instant::now(),
            last_us: AtomicU64::new(us(warmup)),
        }
    }

    /// It begins now.
    pub(super) fn started(self) -> Self {
        Self { start: Instant::now(), ..self }
    }

    /// Adds the time from the last completed request to the end.
    pub(super) fn finish(&self, tallies: &mut [Tally]) {
        let tail = us(self.total).saturating_sub(self.last_us.load(Ordering::Relaxed));
        if let Some(tally) = tallies.first_mut() {
            tally.gap_us = tally.gap_us.max(tail);
        }
    }

    /// A request was completed; is it counted?
    fn complete(&self, began: Instant, tally: &mut Tally) {
        let now = self.start.elapsed();
        if now < self.warmup || now > self.total {
            return;
        }
        let last = self.last_us.swap(us(now), Ordering::Relaxed);
        tally.gap_us = tally.gap_us.max(us(now).saturating_sub(last));
        tally.latency_us.saturating_record(us(began.elapsed()));
    }

    fn fail(&self, error: &LoadError, tally: &mut Tally) {
        let now = self.start.elapsed();
        if now >= self.warmup && now <= self.total {
            tally.errors += 1;
            tally.first_error.get_or_insert_with(|| error.to_string());
        }
    }
}

/// What a client's requests are made of, prepared once.
enum Requests {
    Set(Vec<At>),
    Get(Vec<At>),
    Create(At),
    Call(Client, Bytes),
    Lock(Mutex),
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Client(#[from] Error),
    #[error(transparent)]
    Lock(#[from] conclave_locks::Error),
}

impl LoadError {
    /// Only a new client helps.
    fn is_final(&self) -> bool {
        match self {
            Self::Client(error) => error.is_session_over() || matches!(error, Error::Closed { .. }),
            Self::Lock(error) => error.is_session_over(),
        }
    }
}

type Request = BoxFuture<'static, Result<(), LoadError>>;

impl Requests {
    fn new(run: &Run, client: &Client, index: usize) -> Result<Self, LoadError> {
        let mine = || -> conclave_client::Result<Vec<At>> {
            let own = own(&run.base, index)?;
            (0..ZNODES).map(|n| Ok(client.at(own.join(&n.to_string())?))).collect()
        };
        let shared = |name: &str| run.base.join(name).map_err(Error::from);
        Ok(match run.workload {
            Workload::Write => Self::Set(mine()?),
            Workload::Read => Self::Get(mine()?),
            Workload::Create => Self::Create(client.at(shared("n-")?)),
            Workload::Counter => {
                Self::Call(client.clone(), conclave_protocol::codec::encode(&[shared("hits")?.as_str()]).into())
            }
            Workload::Lock => Self::Lock(Mutex::new(client, shared("lock")?)?),
        })
    }

    fn next(&self, run: &Run, n: usize) -> Request {
        match self {
            Self::Set(ats) => done(ats[n % ats.len()].set(run.data.clone())),
            Self::Get(ats) => {
                let get = ats[n % ats.len()].get();
                done(if run.linearizable { get.linearizable() } else { get.session() })
            }
            Self::Create(at) => done(at.create(run.data.clone()).sequential()),
            Self::Call(client, args) => done(client.call("counter", "increment").raw_args(args.clone())),
            Self::Lock(mutex) => {
                let mutex = mutex.clone();
                Box::pin(async move { Ok(mutex.acquire().await?.release().await?) })
            }
        }
    }
}

fn done<T>(request: impl IntoFuture<Output = conclave_client::Result<T>, IntoFuture: Send + 'static>) -> Request {
    let request = request.into_future();
    Box::pin(async move { Ok(request.await.map(drop)?) })
}

/// Loads the cluster until the time is over.
pub(super) async fn load(run: std::sync::Arc<Run>, index: usize, mut client: Client) -> (Tally, Client) {
    let mut tally = Tally::new();
    let end = tokio::time::Instant::from_std(run.start + run.total);
    loop {
        match tokio::time::timeout_at(end, until_final(&run, index, &client, &mut tally)).await {
            Err(_) => return (tally, client),
            Ok(error) => run.fail(&error, &mut tally),
        }
        // The session is lost; a program would begin a new one, and so does the load.
        let anew = async {
            loop {
                if let Ok(client) = Client::connect(run.options.clone()).await {
                    return client;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout_at(end, anew).await {
            Ok(new) => client = new,
            Err(_) => return (tally, client),
        }
    }
}

/// Loads the cluster until an error that only a new client helps against.
async fn until_final(run: &Run, index: usize, client: &Client, tally: &mut Tally) -> LoadError {
    let requests = match Requests::new(run, client, index) {
        Ok(requests) => requests,
        Err(error) => return error,
    };
    let timed = |request: Request, pause: Duration| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let began = Instant::now();
        (began, request.await)
    };
    let mut flying = FuturesUnordered::new();
    let mut sent = 0;
    while flying.len() < run.depth {
        flying.push(timed(requests.next(run, sent), Duration::ZERO));
        sent += 1;
    }
    loop {
        let Some((began, result)) = flying.next().await else { continue };
        let pause = match result {
            Ok(()) => {
                run.complete(began, tally);
                Duration::ZERO
            }
            Err(error) if error.is_final() => return error,
            Err(error) => {
                run.fail(&error, tally);
                PAUSE
            }
        };
        flying.push(timed(requests.next(run, sent), pause));
        sent += 1;
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
