//! One member's connection to another: dialled in the background, dialled again when it ends.

use std::sync::Arc;
use std::time::Duration;

use conclave_link::{Connection, Dialer, FrameReader, FrameWriter};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::wire::{self, Hello, Welcome};
use super::{Error, Identity};

/// One attempt: a lost first packet is worth another attempt rather than a longer wait.
const DIAL: Duration = Duration::from_secs(2);
/// Pauses between attempts: a member that restarts is found within the second one, one that is gone costs little.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What a connection is at the moment.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// The first attempt is under way.
    Dialling,
    /// Both sides know each other.
    Up {
        connection: Connection,
        /// The other process's.
        boot: u64,
    },
    /// The last attempt failed. Another one follows, but nobody needs to wait for it.
    Down(Error),
}

/// A connection that is kept up as long as this lives.
pub(super) struct Link {
    address: String,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts dialling member `to` at `host:port`.
    pub(super) fn start(me: Arc<Identity>, dialer: Arc<Dialer>, to: u64, address: String) -> Self {
        let (tell, state) = watch::channel(State::Dialling);
        let task = tokio::spawn(keep_up(me, dialer, to, address.clone(), tell));
        Self { address, state, task }
    }

    /// Where it dials.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// For waiting for the connection without a lock.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The other side says that its process is `boot`: a connection to an earlier one is dead, and its end would
    /// otherwise be noticed by silence only.
    pub(super) fn process_is(&self, boot: u64) {
        if let State::Up { connection, boot: known } = &*self.state.borrow()
            && *known != boot
        {
            connection.close(super::CLOSE_STALE, "the process was restarted");
        }
    }
}

/// Waits until the first attempt is over.
pub(super) async fn connection(mut state: watch::Receiver<State>) -> Result<Connection, Error> {
    loop {
        match &*state.borrow_and_update() {
            State::Up { connection, .. } => return Ok(connection.clone()),
            State::Down(error) => return Err(error.clone()),
            State::Dialling => {}
        }
        state.changed().await.map_err(|_| Error::Stopped)?;
    }
}

async fn keep_up(me: Arc<Identity>, dialer: Arc<Dialer>, to: u64, address: String, tell: watch::Sender<State>) {
    let mut pause = PAUSE_MIN;
    loop {
        let attempt = timeout(DIAL, dial(&me, &dialer, to, &address)).await;
        let error = match attempt.unwrap_or_else(|_| Err(Error::NoAnswer(DIAL))) {
            Ok((connection, boot)) => {
                tracing::info!(member = to, %address, "connected");
                pause = PAUSE_MIN;
                tell.send_replace(State::Up { connection: connection.clone(), boot });
                Error::Link(connection.closed().await)
            }
            Err(error) => error,
        };
        tracing::info!(member = to, %address, %error, "not connected");
        tell.send_replace(State::Down(error));
        // Without jitter members that lost each other would dial in step.
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn dial(me: &Identity, dialer: &Dialer, to: u64, address: &str) -> Result<(Connection, u64), Error> {
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.ok().and_then(|mut all| all.next()).ok_or_else(|| Error::Address(address.to_owned()))?;
    let connection = dialer.connect(resolved, Some(to)).await?;
    let (send, receive) = connection.open_bi().await?;
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
    let hello = Hello { cluster: me.cluster.clone(), from: me.id, to, boot: me.boot };
    writer.push(&wire::encode(&hello))?;
    writer.flush().await?;
    let answer = reader.next(wire::FRAME_BYTES).await?.ok_or(Error::Ended)?;
    match wire::decode(&answer)? {
        Welcome::Yes { boot } => Ok((connection, boot)),
        Welcome::No(reason) => Err(Error::Refused(reason)),
    }
}
