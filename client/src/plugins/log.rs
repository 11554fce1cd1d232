//! A plugin's log, line by line, also when another member leads.

use std::collections::VecDeque;
use std::time::Duration;

use conclave_protocol::plugin::LogLine;
use conclave_protocol::{MemberId, SideMessage, SideRequest};

use crate::client::Client;
use crate::error::{Error, Result};

/// How often it is asked whether there is more.
const LOOK: Duration = Duration::from_millis(250);

/// A plugin's log; made by [`Plugins::log`](super::Plugins::log). The member that leads keeps its last lines in memory:
/// when another leads, that one's follow.
#[derive(Debug)]
pub struct PluginLog {
    client: Client,
    plugin: String,
    /// Whose numbers the lines have.
    member: Option<MemberId>,
    after: u64,
    lines: VecDeque<LogLine>,
}

impl PluginLog {
    pub(super) const fn new(client: Client, plugin: String) -> Self {
        Self { client, plugin, member: None, after: 0, lines: VecDeque::new() }
    }

    /// The next line that is there already; none when there is no more for now.
    ///
    /// # Errors
    /// As every read; [`Error::Interrupted`] when the connection broke. It can be asked again.
    pub async fn present(&mut self) -> Result<Option<LogLine>> {
        if self.lines.is_empty() {
            self.read().await?;
        }
        Ok(self.lines.pop_front())
    }

    /// The next line, whenever it comes. Dropping the future loses none.
    ///
    /// # Errors
    /// As [`PluginLog::present`]; broken connections are waited out.
    pub async fn next(&mut self) -> Result<LogLine> {
        loop {
            match self.present().await {
                Ok(Some(line)) => return Ok(line),
                Ok(None) | Err(Error::Interrupted { .. }) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        let request = SideRequest::PluginLog { plugin: self.plugin.clone(), after: self.after };
        let mut talk = self.client.talk(&request, self.client.request_timeout()).await?;
        match talk.hear().await? {
            SideMessage::PluginLog { member, lines } => {
                self.heard(member, lines);
                Ok(())
            }
            _ => Err(Error::Mismatch { question: "a plugin's log" }),
        }
    }

    fn heard(&mut self, member: MemberId, lines: Vec<LogLine>) {
        if self.member.replace(member).is_some_and(|before| before != member) {
            // Its numbers are its own: what it said was asked for by another's.
            self.after = 0;
            return;
        }
        self.after = lines.last().map_or(self.after, |line| line.number);
        self.lines.extend(lines);
    }
}

#[cfg(test)]
mod tests {
    use conclave_protocol::Zxid;

    use super::*;
    use crate::fake::Fake;

    fn line(number: u64) -> LogLine {
        LogLine { number, at_ms: 0, zxid: Zxid(number), level: "info".into(), line: "x".into() }
    }

    #[tokio::test]
    async fn another_members_lines_are_read_from_their_beginning() {
        let client = Fake::new().client().await;
        let mut log = PluginLog::new(client, "p".into());
        log.heard(MemberId(1), vec![line(7), line(8)]);
        assert_eq!(log.after, 8);
        log.heard(MemberId(1), Vec::new());
        assert_eq!((log.after, log.lines.len()), (8, 2));
        // What it has after 8 leaves out what it said before.
        log.heard(MemberId(2), vec![line(9)]);
        assert_eq!((log.after, log.lines.len()), (0, 2));
        log.heard(MemberId(2), vec![line(1), line(9)]);
        assert_eq!((log.after, log.lines.len()), (9, 4));
    }
}
