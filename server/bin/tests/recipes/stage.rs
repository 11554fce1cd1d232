//! The cluster that these tests share, and programs that run on it until the test says otherwise.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{DEADLINE, Dev, Ran, base_port, conclave, signal};

/// A profile whose sessions end soon: of those that are killed.
pub(crate) const MORTAL: &str = "mortal";
/// Their session time-out: long enough for heartbeats on a busy machine.
const MORTAL_MS: u64 = 5_000;

/// A command that says `up`, and lives until its stdin is closed: when the test ends, it ends too.
pub(crate) const UP: &str = "echo up; exec cat";

/// A cluster of one member.
pub(crate) struct Cluster {
    dev: Mutex<Option<Dev>>,
    dir: tempfile::TempDir,
}

/// The one that all tests share, as long as one of them runs.
pub(crate) fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(Cluster::up());
    *shared = Arc::downgrade(&cluster);
    cluster
}

impl Cluster {
    fn up() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut dev = Dev::start(dir.path(), &["--members", "1", "--base-port", &base_port().to_string()]);
        dev.ready();
        let profile = std::fs::read_to_string(dir.path().join(".conclave/client.toml")).unwrap();
        let mortal = profile.replace("\"client/", "\"../.conclave/client/");
        std::fs::create_dir(dir.path().join(MORTAL)).unwrap();
        std::fs::write(
            dir.path().join(MORTAL).join("client.toml"),
            format!("{mortal}session_timeout_ms = {MORTAL_MS}\n"),
        )
        .unwrap();
        // A member that is built for debugging takes longer than a cluster in earnest allows.
        for plugin in ["lock", "queue", "barrier", "election", "counter"] {
            crate::common::done(dir.path(), &["plugin", "set", plugin, "--budget", "time_ms=1000"]);
        }
        Self { dev: Mutex::new(Some(dev)), dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        crate::common::run(self.dir(), args)
    }

    /// Runs to its end, which is a good one; gives its stdout.
    pub(crate) fn done(&self, args: &[&str]) -> String {
        crate::common::done(self.dir(), args)
    }

    /// The same, as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[&["--json"], args].concat())).unwrap()
    }

    /// Runs to an end with this exit code, and one line that says why, which it gives.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {}", ran.err);
        assert_eq!(ran.err.matches('\n').count(), 1, "{args:?}: one line: {}", ran.err);
        ran.err.trim_end().to_owned()
    }

    /// The same with `--json`; gives what `error` is.
    pub(crate) fn fails_in_json(&self, code: i32, args: &[&str]) -> Value {
        let line = self.fails(code, &[&["--json"], args].concat());
        let mut error: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(error["error"]["exit"], code, "{args:?}: {error}");
        error["error"].take()
    }

    /// Is not understood: exit code 2, and a first line that says so.
    pub(crate) fn misunderstood(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {}", ran.err);
        let first = ran.err.lines().next().unwrap_or_default();
        assert!(first.starts_with("error: "), "{args:?}: {}", ran.err);
        first.to_owned()
    }

    /// Starts a program.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = conclave();
        command.args(args).current_dir(self.dir());
        Running::start(command)
    }

    /// As [`Cluster::start`], with every signal heard: what these tests were started with may ignore some, as `nohup` and
    /// a shell's background do, and programs keep to that.
    pub(crate) fn start_hearing(&self, args: &[&str]) -> Running {
        let (conclave, mut command) = (conclave(), Command::new("env"));
        conclave.get_envs().for_each(|(name, _)| {
            command.env_remove(name);
        });
        command.arg("--default-signal").arg(conclave.get_program()).args(args).current_dir(self.dir());
        Running::start(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let dev = self.dev.get_mut().unwrap_or_else(PoisonError::into_inner).take();
            dev.unwrap().stop();
        }
    }
}

/// A program that runs. When it is dropped it is killed, and the stdin of what it had started is closed.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdin, out, err) = (child.stdin.take(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, stdin, out: Lines::of(out), err: Lines::of(err) }
    }

    pub(crate) fn signal(&self, with: Signal) {
        signal(self.child.id(), with);
    }

    /// Writes to its stdin.
    pub(crate) fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Kills it, and nothing that it has started; waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        self.stdin = None;
        self.ends()
    }

    /// Waits for its end.
    pub(crate) fn ends(mut self) -> Ran {
        let mut status = None;
        until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.stdin = None;
        let code = status.and_then(|status| status.code()).expect("not killed");
        Ran { code, out: self.out.rest(), err: self.err.rest() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program says, as it says it.
pub(crate) struct Lines {
    coming: Receiver<String>,
    seen: String,
}

impl Lines {
    fn of(from: impl Read + Send + 'static) -> Self {
        let (send, coming) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(from).lines().map_while(Result::ok);
            // Nobody listens any more at the end of a test.
            lines.for_each(|line| drop(send.send(line)));
        });
        Self { coming, seen: String::new() }
    }

    /// Reads until a line that begins so, and gives it.
    pub(crate) fn until(&mut self, begins: &str) -> String {
        let begun = Instant::now();
        loop {
            match self.coming.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    self.see(&line);
                    if line.starts_with(begins) {
                        return line;
                    }
                }
                Err(why) => panic!("no line {begins:?}: {why}, after {:?}", self.seen),
            }
        }
    }

    fn see(&mut self, line: &str) {
        self.seen.push_str(line);
        self.seen.push('\n');
    }

    /// All that was said, to the end.
    fn rest(&mut self) -> String {
        loop {
            match self.coming.recv_timeout(DEADLINE) {
                Ok(line) => self.see(&line),
                Err(RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.seen),
                Err(RecvTimeoutError::Timeout) => panic!("it is never silent: {}", self.seen),
            }
        }
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
