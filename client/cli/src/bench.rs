//! `bench`: closed-loop load from many clients, and what the cluster made of it.

mod load;
mod report;

use std::sync::Arc;
use std::time::Duration;

use conclave_client::{Client, CreateStep, Error, Options, Path, Refusal, Step, limits};
use futures::{StreamExt, TryStreamExt, stream};

use crate::args::{self, Workload};
use crate::connect::goodbye;
use crate::failure::{DONE, Failure, While};
use crate::out::Out;

use load::{Run, Tally};
use report::Report;

/// Znodes of each client, which it takes in turn.
const ZNODES: usize = 10;
/// Clients that connect, or say goodbye, at a time: a handshake costs both sides some milliseconds of a core.
const AT_A_TIME: usize = 16;

/// Measures. `client` makes and deletes what the load is about.
pub(crate) async fn run(client: &Client, args: &args::Bench, out: Out) -> Result<u8, Failure> {
    if args.workload == Workload::Lock && args.depth > 1 {
        let why = "a lock's holder cannot wait for itself: with --workload lock, --depth is 1; use more --clients";
        return Err(Failure::Usage(why.to_owned()));
    }
    if args.seconds <= 0.0 {
        return Err(Failure::Usage("--seconds must be more than 0".to_owned()));
    }
    let base = Path::parse(&format!("/bench-{:08x}", rand::random::<u32>())).map_err(Error::from).writing()?;
    client.at(&base).create("").await.writing()?;
    let done = measure(client.options(), &base, args, out).await;
    if args.keep {
        out.note(format_args!("kept: {base}"));
    } else if let Err(error) = remove(client, &base).await {
        out.note(format_args!("{base} is not deleted: {error}"));
    }
    let report = Report::new(args, &done?);
    out.show(&report, Report::text)?;
    if let Some(error) = &report.first_error {
        out.note(format_args!("\nthe first error: {error}"));
    }
    Ok(DONE)
}

async fn measure(options: &Options, base: &Path, args: &args::Bench, out: Out) -> Result<Vec<Tally>, Failure> {
    let run = Run::new(options.clone().pipelined(), base.clone(), args);
    let connect = |index: usize| {
        let options = options.clone().pipelined();
        async move {
            let client = Client::connect(options).await?;
            client.session().await?;
            prepare(&client, base, index, args).await?;
            Ok::<_, Error>((index, client))
        }
    };
    let clients: Vec<(usize, Client)> = stream::iter(0..args.clients as usize)
        .map(connect)
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await
        .writing()?;
    out.note(format_args!(
        "{} clients below {base}: {} s, after {} s of warm-up …",
        args.clients, args.seconds, args.warmup
    ));
    let run = Arc::new(run.started());
    let loads = clients.into_iter().map(|(index, client)| tokio::spawn(load::load(Arc::clone(&run), index, client)));
    let mut tallies = Vec::new();
    let mut left = Vec::new();
    for task in loads.collect::<Vec<_>>() {
        let (tally, client) = task.await.map_err(|error| Failure::Output(std::io::Error::other(error)))?;
        tallies.push(tally);
        left.push(client);
    }
    run.finish(&mut tallies);
    stream::iter(&left).for_each_concurrent(AT_A_TIME, goodbye).await;
    Ok(tallies)
}

/// Makes a client's own znodes.
async fn prepare(client: &Client, base: &Path, index: usize, args: &args::Bench) -> conclave_client::Result<()> {
    if !matches!(args.workload, Workload::Write | Workload::Read) {
        return Ok(());
    }
    let mine = load::own(base, index)?;
    let create = |path: Path, data: Vec<u8>| Step::Create(CreateStep::new(path, data));
    let mut steps = vec![create(mine.clone(), Vec::new())];
    for n in 0..ZNODES {
        // Data that large comes with each write anyway; together it might not fit one transaction.
        let data = if args.size * ZNODES <= limits::DATA_BYTES { vec![b'x'; args.size] } else { Vec::new() };
        steps.push(create(mine.join(&n.to_string())?, data));
    }
    client.multi(steps).await?;
    if args.size * ZNODES > limits::DATA_BYTES {
        for n in 0..ZNODES {
            client.at(mine.join(&n.to_string())?).set(vec![b'x'; args.size]).await?;
        }
    }
    Ok(())
}

/// Deletes everything: at once, or in parts if it is too much for one transaction.
async fn remove(client: &Client, base: &Path) -> conclave_client::Result<()> {
    let at = client.at(base);
    match at.delete().recursive().within(Duration::from_secs(30)).await {
        Err(Error::Refused(Refusal::Limit { .. })) => at.delete_all().await.map(drop),
        done => done.map(drop),
    }
}
