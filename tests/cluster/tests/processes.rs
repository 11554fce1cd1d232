//! Members as processes of the real binary, killed and stopped: increments, locks and watches go on, and none is wrong.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use conclave_client::Client;
use conclave_cluster_tests::increments::{Plan, run};
use conclave_cluster_tests::{Processes, Weather};
use conclave_testing::eventually;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::sync::Mutex;

/// One cluster at a time: on a small machine two would starve each other's elections and sessions.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Everything that is waited for comes within this time, or the test fails.
const DEADLINE: Duration = Duration::from_secs(60);
/// The session time-out that clients ask for when nobody says.
const USUAL: Duration = Duration::from_secs(10);

/// A program whose output is read line by line, as it comes.
struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = reader(child.stdout.take().unwrap());
        let errors = reader(child.stderr.take().unwrap());
        Self { child, lines, errors }
    }

    fn line(&mut self) -> String {
        self.lines.recv_timeout(DEADLINE).unwrap_or_else(|error| {
            let said: Vec<String> = self.errors.try_iter().collect();
            panic!("no line: {error}: {:?} {said:?}", self.child.try_wait())
        })
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    async fn end(&mut self) -> Option<i32> {
        let mut ended = None;
        eventually("the program ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        })
        .await
        .unwrap();
        ended.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(from).lines().map_while(Result::ok);
        // Nobody listens any more at the end of a test.
        lines.for_each(|line| drop(send.send(line)));
    });
    lines
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

fn cli(cluster: &Processes, name: &str, session: Duration, args: &[&str]) -> Command {
    let mut command = cluster.cli(name, session).unwrap();
    command.args(args);
    command
}

async fn ran(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// `/path@zxid`, as the number that must rise.
fn token(fence: &str) -> u64 {
    fence.rsplit_once('@').unwrap().1.parse().unwrap()
}

async fn kill_leader_and_restart(cluster: &mut Processes, client: &Client) {
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).unwrap();
    // Carried out by the next leader.
    client.at("/alive").set("").within(DEADLINE).await.unwrap();
    cluster.launch(leader).unwrap();
    cluster.ready(leader).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_on_processes_are_neither_lost_nor_done_twice() {
    let _alone = ALONE.lock().await;
    let weather = Weather { lost: 5, twice: 5, late: 5, delay: Duration::from_millis(20) };
    let report = run(Plan { increments: 5_000, kills: 6, clients: 2, depth: 8, weather }).await.unwrap();
    println!("{report}");
    assert_eq!(report.missing(), Vec::<&str>::new(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_slept_through_its_time_is_fenced_off_and_its_command_killed() {
    let _alone = ALONE.lock().await;
    let cluster = Processes::start(3, None).await.unwrap();
    let client = cluster.client("setup").await.unwrap();
    client.at("/app/release").create("before").parents().await.unwrap();
    let hold = ["lock", "/locks/deploy", "--", "sh", "-c", "echo $CONCLAVE_FENCE; echo $$; exec sleep 1000"];
    let mut old = Running::start(cli(&cluster, "old", Duration::from_secs(2), &hold));
    let (old_fence, old_command) = (old.line(), pid(old.line().parse().unwrap()));
    // The one that would kill the command in time.
    old.signal(Signal::STOP);
    let mut new = Running::start(cli(&cluster, "new", USUAL, &hold));
    let (new_fence, _) = (new.line(), new.line());
    assert!(token(&new_fence) > token(&old_fence), "{new_fence} after {old_fence}");
    // The danger that fences are for: the old command runs on, and does not know.
    assert!(test_kill_process(old_command).is_ok());
    let set = |fence: &str, data: &str| {
        cli(&cluster, "old", USUAL, &["set", "/app/release", data, "--fence", fence, "--json"])
    };
    let refused = ran(set(&old_fence, "too late")).await;
    let error: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!((refused.status.code(), &error["error"]["code"]), (Some(1), &Value::from("fenced")), "{error}");
    let allowed = ran(set(&new_fence, "in time")).await;
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
    old.signal(Signal::CONT);
    assert_eq!(old.end().await, Some(123));
    eventually("the old command is dead", || test_kill_process(old_command).is_err()).await.unwrap();
    assert_eq!(client.at("/app/release").get().await.unwrap().data, "in time");
    let shown = ran(cli(&cluster, "old", USUAL, &["lock", "--show", "/locks/deploy", "--json"])).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["holder"]["fence"], Value::from(new_fence), "{shown}");
    new.signal(Signal::TERM);
    assert_eq!(new.end().await, Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_and_a_lock_outlive_three_leaders() {
    let _alone = ALONE.lock().await;
    let mut cluster = Processes::start(3, None).await.unwrap();
    let client = cluster.client("writer").await.unwrap();
    for path in ["/app", "/alive"] {
        client.at(path).create("").await.unwrap();
    }
    let since = client.zxid().to_string();
    let watch = ["watch", "/app", "--recursive", "--json", "--since", &since];
    let mut watch = Running::start(cli(&cluster, "watcher", USUAL, &watch));
    // It runs until its stdin is closed.
    let hold = ["lock", "/locks/one", "--", "sh", "-c", "echo $CONCLAVE_FENCE; exec cat"];
    let mut command = cli(&cluster, "holder", USUAL, &hold);
    command.stdin(Stdio::piped());
    let mut holder = Running::start(command);
    let stdin = holder.child.stdin.take().unwrap();
    let fence = holder.line();
    let wait = ["lock", "/locks/one", "--wait", "120s", "--", "sh", "-c", "echo $CONCLAVE_FENCE"];
    let mut waiter = Running::start(cli(&cluster, "waiter", USUAL, &wait));

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writing = tokio::spawn({
        let client = client.clone();
        async move {
            let mut written = Vec::new();
            for n in 0.. {
                let at = format!("/app/{}", n % 50);
                let (kind, stat) = if n < 50 {
                    let created = client.at(&at).create("").within(DEADLINE).await.unwrap();
                    ("created", created.stat)
                } else {
                    ("data", client.at(&at).set(n.to_string()).within(DEADLINE).await.unwrap())
                };
                written.push((kind.to_owned(), at, stat.version, stat.modified.0));
                if *stopped.borrow() {
                    break;
                }
            }
            written
        }
    });
    for _ in 0..3 {
        kill_leader_and_restart(&mut cluster, &client).await;
        let tried = ran(cli(&cluster, "other", USUAL, &["lock", "/locks/one", "--wait", "0", "--", "true"])).await;
        assert_eq!(tried.status.code(), Some(124), "it is held by one: {tried:?}");
    }
    stop.send(true).unwrap();
    let written = writing.await.unwrap();
    for wanted in &written {
        let line: Value = serde_json::from_str(&watch.line()).unwrap();
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let told = (text("kind"), text("path"), line["version"].as_u64().unwrap(), line["zxid"].as_u64().unwrap());
        assert_eq!(&told, wanted, "of {} changes", written.len());
    }
    // Nothing came twice at the end either.
    let last = client.at("/app").set("last").await.unwrap();
    let line: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!((line["path"].as_str(), line["zxid"].as_u64()), (Some("/app"), Some(last.modified.0)), "{line}");

    assert!(waiter.lines.try_recv().is_err(), "nobody had the lock beside its holder");
    let shown = ran(cli(&cluster, "other", USUAL, &["lock", "--show", "/locks/one", "--json"])).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["holder"]["fence"], Value::from(fence.clone()), "{shown}");
    drop(stdin);
    assert_eq!(holder.end().await, Some(0), "it was never lost");
    let next = waiter.line();
    assert!(token(&next) > token(&fence), "{next} after {fence}");
    assert_eq!(waiter.end().await, Some(0));
}
