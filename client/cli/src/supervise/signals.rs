//! INT, TERM and HUP: taken up so that something orderly can be done.

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// The signals that ask a program to end.
#[derive(Debug)]
pub(crate) struct Signals {
    listening: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Listens from now on. What was being ignored, as under `nohup` or in a shell's background, stays so.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        let wanted = [
            (Signal::INT, SignalKind::interrupt()),
            (Signal::TERM, SignalKind::terminate()),
            (Signal::HUP, SignalKind::hangup()),
        ];
        let mut listening = Vec::new();
        for (signal, kind) in wanted {
            if ignored >> (signal.as_raw() - 1) & 1 == 0 {
                listening.push((signal, unix::signal(kind)?));
            }
        }
        Ok(Self { listening })
    }

    /// The next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (signal, stream) in &mut self.listening {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// The exit code of one that a signal ended.
pub(crate) fn exit_code(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}

/// Which signals are ignored, by Linux's /proc/PID/status: bit N - 1 stands for signal N.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let mask = ignored("Name:\tx\nSigIgn:\t0000000000000003\nSigCgt:\t00ff\n");
        assert_eq!(mask, 3);
        assert_eq!(ignored(""), 0);
    }

    #[test]
    fn a_signal_is_told_as_shells_do() {
        assert_eq!([Signal::INT, Signal::TERM, Signal::HUP].map(exit_code), [130, 143, 129]);
    }
}
