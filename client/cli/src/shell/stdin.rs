//! Stdin, line by line, from a thread of its own: a runtime that ends would wait for a read of tokio's.

use std::io::{self, BufRead};
use std::sync::Arc;

use futures::executor::block_on;
use futures::stream::{self, Stream};
use tokio::sync::{Semaphore, mpsc};

use super::{LINE_BYTES, Line};

/// Lines that may wait to be served.
const WAITING: usize = 64;
/// Bytes of them; one that is longer waits alone.
const WAITING_BYTES: usize = 1 << 20;

/// The lines of stdin. When it cannot be read any more, that is its end.
pub(super) fn lines() -> impl Stream<Item = Line> + Unpin {
    read(|| io::stdin().lock())
}

/// The lines of an input, which is made and read on a thread of its own, no further ahead than what may wait.
fn read<R: BufRead>(input: impl FnOnce() -> R + Send + 'static) -> impl Stream<Item = Line> + Unpin {
    let (send, receive) = mpsc::channel(WAITING);
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    std::thread::spawn(move || {
        let mut input = input();
        while let Ok(Some(line)) = next(&mut input, LINE_BYTES) {
            let bytes = u32::try_from(line.bytes().min(WAITING_BYTES)).unwrap_or(u32::MAX);
            let Ok(held) = block_on(Arc::clone(&room).acquire_many_owned(bytes)) else { return };
            if send.blocking_send((line, held)).is_err() {
                return;
            }
        }
    });
    Box::pin(stream::unfold(receive, |mut receive| async move {
        let (line, _held) = receive.recv().await?;
        Some((line, receive))
    }))
}

/// The next line, without its end; none at the end. Of a line that is too long nothing is kept.
fn next(input: &mut impl BufRead, most: usize) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let (mut any, mut long) = (false, false);
    loop {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.is_empty() {
            break;
        }
        any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let line = &available[..end.unwrap_or(available.len())];
        long |= bytes.len() + line.len() > most;
        if !long {
            bytes.extend_from_slice(line);
        }
        let used = end.map_or(available.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(match (any, long) {
        (false, _) => None,
        (true, true) => Some(Line::Bad(format!("the line is longer than {most} bytes"))),
        (true, false) => Some(match String::from_utf8(bytes) {
            Ok(text) => Line::Text(text),
            Err(_) => Line::Bad("the line is not UTF-8".to_owned()),
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::StreamExt;

    use super::*;

    /// Lines without end; how many bytes of them were read.
    struct Endless {
        line: Vec<u8>,
        at: usize,
        read: Arc<AtomicUsize>,
    }

    impl io::Read for Endless {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl BufRead for Endless {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            Ok(&self.line[self.at..])
        }

        fn consume(&mut self, used: usize) {
            self.read.fetch_add(used, Ordering::SeqCst);
            self.at = (self.at + used) % self.line.len();
        }
    }

    #[test]
    fn stdin_is_read_no_further_ahead_than_so_many_bytes() {
        let read_bytes = Arc::new(AtomicUsize::new(0));
        let mut line = vec![b'x'; WAITING_BYTES / 2];
        *line.last_mut().unwrap() = b'\n';
        let (bytes, counted) = (line.len(), Arc::clone(&read_bytes));
        let mut lines = read(move || Endless { line, at: 0, read: counted });
        for served in 1..20 {
            assert!(block_on(lines.next()).is_some());
            // Two wait, and one is in the thread's hands. (The line that was just given has made room for one more.)
            let ahead = read_bytes.load(Ordering::SeqCst) / bytes - served;
            assert!(ahead <= 3, "{ahead} lines were read ahead");
        }
    }

    #[test]
    fn lines_end_and_one_that_cannot_be_read_takes_no_other_with_it() {
        let mut input = io::BufReader::with_capacity(3, &b"one\n\nt\xffo\n123456789\nfive\r\nlast"[..]);
        let mut lines = Vec::new();
        while let Some(line) = next(&mut input, 8).unwrap() {
            lines.push(line);
        }
        let text = |text: &str| Line::Text(text.to_owned());
        let bad = |why: &str| Line::Bad(why.to_owned());
        assert_eq!(
            lines,
            [
                text("one"),
                text(""),
                bad("the line is not UTF-8"),
                bad("the line is longer than 8 bytes"),
                text("five\r"),
                text("last"),
            ]
        );
    }
}
