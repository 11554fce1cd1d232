//! A pool of worker processes, one of which is killed in the middle: every item is done, and every result counts once.
//!
//! `cargo run --example pool -- [WORKERS [ITEMS]]`, where `conclave dev` runs. It starts itself as the workers, pushes
//! numbers, kills a worker that has one in its hands, and adds up what came out. It fails when an item was left out, or
//! counted twice.
#![allow(clippy::print_stdout)]

use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use conclave_client::{Client, Options};
use conclave_queues::{Error as QueueError, Queue};
use tokio::io::{AsyncBufReadExt, BufReader, copy, sink, stdin};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A worker that takes longer for an item has lost it to another.
const VISIBILITY: Duration = Duration::from_secs(2);
/// What the work on one item takes.
const WORK: Duration = Duration::from_millis(20);
/// All items are done within this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where things are, of one run of this program.
struct Run {
    name: String,
}

impl Run {
    fn queue(&self, client: &Client) -> Result<Queue<i64>, QueueError> {
        Ok(Queue::new(client, format!("/queues/{}", self.name))?.visibility(VISIBILITY))
    }

    /// A znode for each item that is done, by the item's name. Its data: at which delivery.
    fn results(&self) -> String {
        format!("/pool/{}/results", self.name)
    }

    /// The sum of the items, added to when an item is done.
    fn sum(&self) -> String {
        format!("/pool/{}/sum", self.name)
    }

    /// The same, added to when an item is begun: what comes of counting without a transaction or a fence.
    fn careless_sum(&self) -> String {
        format!("/pool/{}/careless-sum", self.name)
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [role, name] if role == "worker" => work(&Run { name: name.clone() }).await,
        numbers => {
            let number = |at: usize, usual: usize| numbers.get(at).map_or(Ok(usual), |text| text.parse());
            pool(number(0, 4)?, number(1, 100)?).await
        }
    }
}

/// One worker: until its stdin is closed, which whoever started it does in the end, or by dying.
async fn work(run: &Run) -> Result<(), Error> {
    let client = Client::connect(Options::load()?).await?;
    let queue = run.queue(&client)?;
    let (mut stdin, mut sink) = (stdin(), sink());
    let mut over = pin!(copy(&mut stdin, &mut sink));
    loop {
        let job = tokio::select! {
            _ = &mut over => break,
            job = queue.take() => job?,
        };
        client.at(run.careless_sum()).add(*job).await?;
        println!("took {}", job.id());
        tokio::time::sleep(WORK).await;
        // The result, the sum and the end of the item are one transaction. It is refused once the item is another's.
        let result = format!("{}/{}", run.results(), job.id());
        let done = client.transaction().create(result, job.deliveries().to_string()).add(run.sum(), *job);
        match job.ack_with(done).await {
            Ok(_) => {}
            Err(QueueError::ClaimOver { .. }) => println!("late"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(client.close().await?)
}

async fn pool(workers: usize, items: usize) -> Result<(), Error> {
    if workers < 2 || items < workers {
        return Err("one worker is killed: there must be another, and an item for each".into());
    }
    let client = Client::connect(Options::load()?).await?;
    let run = Run { name: format!("run-{}", std::process::id()) };
    let queue = run.queue(&client)?;
    client.at(run.results()).create("").parents().await?;
    client.at(run.sum()).create("0").await?;
    client.at(run.careless_sum()).create("0").await?;
    let items = i64::try_from(items)?;
    for item in 1..=items {
        queue.push(&item).await?;
    }
    let (told, mut lines) = unbounded_channel();
    let mut pool = (0..workers).map(|worker| start(worker, &run, told.clone())).collect::<Result<Vec<_>, _>>()?;
    println!("{items} items for {workers} workers");
    tokio::time::timeout(PATIENCE, until_done(&queue, &mut pool, &mut lines, items / 3)).await??;
    let summed = sum_up(&client, &run, items).await;
    client.at(format!("/pool/{}", run.name)).delete_all().await?;
    client.at(queue.path()).delete_all().await?;
    client.close().await?;
    summed
}

/// Starts a worker; what it says comes with its number.
fn start(number: usize, run: &Run, told: UnboundedSender<(usize, String)>) -> Result<Child, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["worker", &run.name]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut worker = command.spawn()?;
    let stdout = worker.stdout.take().ok_or("it has no stdout")?;
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if told.send((number, line)).is_err() {
                return;
            }
        }
    });
    Ok(worker)
}

/// Watches the workers until the queue is empty. The one that takes the item of this number is killed.
async fn until_done(
    queue: &Queue<i64>,
    pool: &mut Vec<Child>,
    lines: &mut UnboundedReceiver<(usize, String)>,
    fatal: i64,
) -> Result<(), Error> {
    let mut taken = 0;
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            Some((worker, line)) = lines.recv() => {
                println!("worker {worker} {line}");
                taken += i64::from(line.starts_with("took "));
                if taken == fatal && line.starts_with("took ") {
                    // With SIGKILL: it says goodbye to nobody, and its item is still its own until the time is over.
                    pool[worker].kill().await?;
                    println!("worker {worker} is killed");
                }
            }
            _ = look.tick() => {
                let stats = queue.stats().await?;
                if stats.ready + stats.delayed + stats.claimed == 0 {
                    break;
                }
            }
        }
    }
    let mut killed = 0;
    for mut worker in pool.drain(..) {
        // Waiting closes its stdin.
        let status = worker.wait().await?;
        match status.code() {
            Some(0) => {}
            None => killed += 1,
            Some(_) => return Err(format!("a worker failed: {status}").into()),
        }
    }
    if killed == 1 { Ok(()) } else { Err(format!("{killed} workers were killed, and not one").into()) }
}

/// Is every item done, and each counted once?
async fn sum_up(client: &Client, run: &Run, items: i64) -> Result<(), Error> {
    let results = client.at(run.results()).children().with_data().await?.children;
    let number = async |path: String| -> Result<i64, Error> {
        let data = client.at(path).get().await?.data;
        Ok(std::str::from_utf8(&data)?.parse()?)
    };
    let (sum, careless) = (number(run.sum()).await?, number(run.careless_sum()).await?);
    let again = results.iter().filter(|result| result.data.as_deref() != Some(&b"1"[..])).count();
    let due = items * (items + 1) / 2;
    println!("{} of {items} items are done; delivered more than once: {again}", results.len());
    println!("the sum is {sum}, as it must be {due}; counted at each delivery it would be {careless}");
    if i64::try_from(results.len())? != items || sum != due {
        return Err("an item was left out, or counted twice".into());
    }
    Ok(())
}
