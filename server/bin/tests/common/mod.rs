//! What the tests of the binary share: running it, and reading what it says as it says it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Everything that is waited for comes within this time, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The binary, without what the environment of the tests says about clusters.
pub fn conclave() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONCLAVE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a run gave.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs the binary to its end.
pub fn run(dir: &Path, args: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = conclave().current_dir(dir).args(args).output().unwrap();
    Ran {
        code: status.code().expect("not killed"),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// Runs the binary; it has to succeed. Gives its stdout.
pub fn done(dir: &Path, args: &[&str]) -> String {
    let ran = run(dir, args);
    assert_eq!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.err);
    ran.out
}

/// First of the ports of a cluster, which are below those that the system gives to clients' sockets and that the tests of
/// other packages take. No other test gets one of them before this process ends, also while nobody listens on them.
pub fn base_port() -> u16 {
    static HELD: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    for base in (10_000..19_800).step_by(300) {
        // Between the ports that members have, which are up to 5 from `base`, from 100 above it and from 200 above it.
        let Ok(holder) = TcpListener::bind(("127.0.0.1", base + 299)) else { continue };
        let free = (0..5).all(|n| {
            UdpSocket::bind(("127.0.0.1", base + n)).is_ok()
                && UdpSocket::bind(("127.0.0.1", base + 100 + n)).is_ok()
                && TcpListener::bind(("127.0.0.1", base + 200 + n)).is_ok()
        });
        if free {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(holder);
            return base;
        }
    }
    panic!("no free ports");
}

pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Whether the process runs; one that ended and that nobody has asked about yet has no command line any more.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// A `conclave dev` that runs.
pub struct Dev {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: Option<JoinHandle<String>>,
}

impl Dev {
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = conclave();
        command.arg("dev").args(args).current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut err = child.stderr.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, lines, seen: Vec::new(), errors: Some(errors) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads stdout until a line that fits, and gives it.
    pub fn line(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if fits(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} within {DEADLINE:?}: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.child.wait();
                    let errors = self.errors.take().unwrap().join().unwrap();
                    panic!("it ended without {what}: {:#?}\n{errors}", self.seen);
                }
            }
        }
    }

    /// Waits for the line that begins with `ready`; gives the one before, which says what runs where.
    pub fn ready(&mut self) -> String {
        let line = self.line("introduction", |line| line.starts_with("cluster "));
        self.line("ready", |line| line.starts_with("ready"));
        line
    }

    /// Waits for its end: with it, its stdout is closed.
    pub fn end(mut self) -> (ExitStatus, String) {
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    return (self.child.wait().unwrap(), self.errors.take().unwrap().join().unwrap());
                }
            }
        }
    }

    /// Asks it to stop; it has to do so cleanly.
    pub fn stop(self) {
        signal(self.pid(), Signal::TERM);
        let (status, errors) = self.end();
        assert_eq!(status.code(), Some(0), "{errors}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its members end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
