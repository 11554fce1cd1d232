//! `create --ephemeral`: a znode that lives as long as the command line, or as long as a command that is run.

use std::ffi::OsString;
use std::time::Duration;

use conclave_client::{Client, Created, Fence, Outcome};

use crate::failure::{DONE, Failure, While};
use crate::lock::{self, LOST};
use crate::out::Out;
use crate::supervise::{self, Award, Ended, Signals, Standing};

/// The time that a command has between TERM and KILL; as `lock --grace` has it.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Keeps the znode until it is time to go.
pub(crate) async fn ephemeral(
    client: &Client,
    created: &Created,
    command: &[OsString],
    out: Out,
) -> Result<u8, Failure> {
    let mut signals = Signals::listen().map_err(lock::failed)?;
    let session = client.session().await.writing()?;
    let path = &created.path;
    if command.is_empty() {
        out.note(format_args!("{path} is there until Ctrl-C"));
        tokio::select! {
            () = session.lost() => return Err(lost(path)),
            _ = signals.next() => {}
        }
        // Closing the session, which follows, takes the znode away; after a loss it went, or will, by itself.
        return if session.standing() == Standing::Lost { Err(lost(path)) } else { Ok(DONE) };
    }
    let fence = Fence { path: path.clone(), zxid: created.stat.created };
    match supervise::run(&session, command, &lock::variables(&fence), GRACE, &mut signals).await {
        Ok(Ended::Exited(code)) => Ok(code),
        Ok(Ended::Lost) => Err(lost(path)),
        Err(error) => Err(lock::cannot_run(command, &error)),
    }
}

fn lost(path: &conclave_client::Path) -> Failure {
    Failure::Exact {
        code: "session-over",
        exit: LOST,
        outcome: Outcome::Unknown,
        text: format!("lost: the session of {path} is over, or nearly: no member was heard in time. The znode goes."),
    }
}
