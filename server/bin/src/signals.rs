//! The signals that ask a process to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::out::{Failure, Outcome};

/// SIGINT, SIGTERM and SIGHUP (the terminal was closed), from now on.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Stop {
    /// Within a Tokio runtime.
    pub(crate) fn new() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(|error| Failure::broken("cannot listen for signals", error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            // Under `nohup` it is to be ignored, and stays so.
            hang_up: if ignored(SignalKind::hangup()) { None } else { Some(listen(SignalKind::hangup())?) },
        })
    }

    /// Waits for the next one, and names it.
    pub(crate) async fn asked(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hang_up => "SIGHUP",
        }
    }
}

/// Whether this process was started with a signal ignored: the mask is hexadecimal in `/proc/self/status` (proc(5)).
fn ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}
