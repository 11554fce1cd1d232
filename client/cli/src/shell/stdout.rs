//! Stdout, written from a thread of its own: a reader that takes nothing holds up the shell, and not its end.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

/// Lines that may wait to be written.
const WAITING: usize = 16;

/// Writes lines.
pub(super) struct Writer {
    lines: mpsc::Sender<Vec<u8>>,
    /// How the writing ended.
    ended: oneshot::Receiver<io::Result<()>>,
    /// Whether the shell was told to stop.
    stopped: watch::Receiver<bool>,
    grace: Duration,
}

impl Writer {
    /// Writes to an output, which is made on the thread. Once `stopped` is true, it is given up when it takes nothing for
    /// the grace.
    pub(super) fn new<W: Write>(
        output: impl FnOnce() -> W + Send + 'static,
        stopped: watch::Receiver<bool>,
        grace: Duration,
    ) -> Self {
        let (lines, waiting) = mpsc::channel(WAITING);
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            // Nobody waits for it any more: it was given up.
            let _ = end.send(write(output(), waiting));
        });
        Self { lines, ended, stopped, grace }
    }

    /// Writes a line, or has it wait.
    ///
    /// # Errors
    /// `BrokenPipe` when the writing has ended, of which [`Writer::end`] tells why; `TimedOut` when it is given up.
    pub(super) async fn say(&self, line: &Value) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        tokio::select! {
            biased;
            sent = self.lines.send(bytes) => sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
            error = given_up(self.stopped.clone(), self.grace) => Err(error),
        }
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// What it was that could not be written; `TimedOut` when it is given up.
    pub(super) async fn end(self) -> io::Result<()> {
        let Self { lines, ended, stopped, grace } = self;
        drop(lines);
        tokio::select! {
            biased;
            ended = ended => ended.unwrap_or_else(|_| Err(io::Error::other("the writing ended early"))),
            error = given_up(stopped, grace) => Err(error),
        }
    }
}

/// Waits for the grace after the shell is told to stop; for ever if it is not.
async fn given_up(mut stopped: watch::Receiver<bool>, grace: Duration) -> io::Error {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // Nobody can tell it to stop any more.
        std::future::pending::<()>().await;
    }
    sleep(grace).await;
    io::Error::new(io::ErrorKind::TimedOut, "nobody reads it")
}

/// Writes what comes; flushes when there is no more for now.
fn write(mut output: impl Write, mut lines: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(line) = lines.blocking_recv() {
        output.write_all(&line)?;
        while let Ok(line) = lines.try_recv() {
            output.write_all(&line)?;
        }
        output.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use serde_json::json;

    use super::*;

    /// No test waits for it to be over.
    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn lines_are_written_in_order_and_the_end_waits_for_the_last() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let writer = Writer::new(|| ours, stopped, LONG);
        for n in 0..100 {
            writer.say(&json!(n)).await.unwrap();
        }
        writer.end().await.unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_holds_up_the_lines_and_is_given_up_after_a_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (stop, stopped) = watch::channel(false);
        let writer = Writer::new(|| ours, stopped, Duration::from_millis(1));
        let line = json!("x".repeat(1 << 20));
        // None of them fits the socket's buffer: one is being written, and as many as may wait do.
        for _ in 0..=WAITING {
            writer.say(&line).await.unwrap();
        }
        let mut said = Box::pin(writer.say(&line));
        assert!(futures::poll!(&mut said).is_pending());
        stop.send_replace(true);
        assert_eq!((&mut said).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(said);
        assert_eq!(writer.end().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }

    #[tokio::test]
    async fn why_nothing_can_be_written_is_told_at_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let (_stop, stopped) = watch::channel(false);
        let writer = Writer::new(|| ours, stopped, LONG);
        while writer.say(&json!(1)).await.is_ok() {}
        assert_eq!(writer.end().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
