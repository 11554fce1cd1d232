//! Stdout and stderr: lines for people, JSON for programs, bytes as they are.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::failure::Failure;

/// How often it is looked whether anybody still reads stdout.
const LOOK: Duration = Duration::from_millis(500);

/// Where a command writes what was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// JSON was asked for.
    pub(crate) json: bool,
}

impl Out {
    /// Writes one value: as a line of JSON, or as the text that `human` makes.
    pub(crate) fn show<T: Serialize>(self, value: &T, human: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json { self.json(value) } else { self.text(&human(value)) }
    }

    /// Writes a line of JSON.
    pub(crate) fn json<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::Output(error.into()))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Writes text, ended by a line feed if it has none.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let end: &[u8] = if text.is_empty() || text.ends_with('\n') { b"" } else { b"\n" };
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(end));
        written.and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// Tells people something beside the result, on stderr. Programs are not told.
    pub(crate) fn note(self, text: impl Display) {
        if !self.json {
            complain(text);
        }
    }
}

/// A line on stderr that is written again and again while something takes long, when somebody looks at it. Dropped, it
/// is wiped away.
pub(crate) struct Progress {
    shown: bool,
    next: Instant,
}

impl Progress {
    /// Nothing is shown yet.
    pub(crate) fn new(out: Out) -> Self {
        Self { shown: !out.json && io::stderr().is_terminal(), next: Instant::now() }
    }

    /// Whether anybody looks.
    pub(crate) const fn is_shown(&self) -> bool {
        self.shown
    }

    /// Shows how far it is; often enough, and not more often.
    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        const EVERY: Duration = Duration::from_millis(100);
        let now = Instant::now();
        if self.shown && now >= self.next {
            self.next = now + EVERY;
            let _ = write!(io::stderr().lock(), "\r{}\x1b[K", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// A line on stderr. Nothing can be done when that cannot be written.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Is somebody looking at stdout?
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Waits until nobody can read what is written to stdout any more: the other end of the pipe is closed.
pub(crate) async fn reader_gone() {
    let mut every = tokio::time::interval(LOOK);
    loop {
        every.tick().await;
        // Nothing is asked for: errors and hang-ups are told anyway.
        let stdout = io::stdout();
        let mut looked = [PollFd::new(&stdout, PollFlags::empty())];
        if poll(&mut looked, Some(&Timespec::default())).is_ok_and(|changed| changed > 0)
            && looked[0].revents().contains(PollFlags::ERR)
        {
            return;
        }
    }
}

/// Lays rows out in columns, two spaces apart. `right` says which columns are aligned to the right.
pub(crate) fn table(header: &[&str], right: &[bool], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|title| title.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(right) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            line.push_str(&if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `s` for every number but one.
pub(crate) const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_do_not_end_in_spaces() {
        let rows = [vec!["7".to_owned(), "a".to_owned()], vec!["1234".to_owned(), "long name".to_owned()]];
        let text = table(&["N", "NAME"], &[true, false], &rows);
        assert_eq!(text, "   N  NAME\n   7  a\n1234  long name\n");
    }
}
