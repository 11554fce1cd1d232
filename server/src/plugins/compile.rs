//! The compile thread: has every component ready that a row of a plugin names, before anybody waits for it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conclave_core::Fault;
use conclave_core::plan::Install;
use conclave_core::query;
use conclave_core::view::Base;

use super::Readiness;
use super::readiness::{Component, components};

/// The thread's niceness: everybody else comes first. What somebody waits for, a new leader, is compiled on its own thread.
const NICE: i32 = 10;
/// How long the thread sleeps when nobody tells it of anything. What was not there to be read is looked for again then.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Opens the applied state.
type Open = Box<dyn Fn() -> Result<Box<dyn Base>, Fault> + Send>;

/// Starts the thread; it ends with [`Readiness::stop`].
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn spawn(
    readiness: Arc<Readiness>,
    built_in: Vec<Install>,
    open: Open,
    fault: Box<dyn Fn(&Fault) + Send>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("compile".to_owned()).spawn(move || {
        // It is only politeness: without it the thread does the same.
        let _ = rustix::process::nice(NICE);
        if let Err(error) = first(&readiness, &built_in, &open) {
            return fault(&error);
        }
        while readiness.wait(LOOK_EVERY) {
            if let Err(error) = look(&readiness, &open) {
                return fault(&error);
            }
        }
    })
}

/// Before there is any state, the plugins of a new cluster: its first leader is not to wait for them.
fn first(readiness: &Readiness, built_in: &[Install], open: &Open) -> Result<(), Fault> {
    if query::state(&*open()?)?.zxid.0 > 0 {
        return Ok(());
    }
    for install in built_in {
        if readiness.is_stopping() {
            break;
        }
        // Why it can't be, the first transaction says.
        drop(readiness.engine().prepare(install.digest, &install.component));
    }
    Ok(())
}

/// Makes ready what is wanted and is not, until something else is wanted.
pub(super) fn look(readiness: &Readiness, open: &Open) -> Result<(), Fault> {
    // Not held while something is compiled: the tables could not let go of what is written meanwhile.
    readiness.want(components(&*open()?)?);
    for component in readiness.to_do() {
        if readiness.is_stale() {
            // At once again, with what is wanted then.
            readiness.look();
            return Ok(());
        }
        let Component { digest, bytes, .. } = &component;
        let Some(found) = query::component(&*open()?, digest, *bytes)? else {
            // Removed meanwhile.
            continue;
        };
        let began = Instant::now();
        let prepared = readiness.engine().prepare(*digest, &found);
        readiness.done(&component, prepared.map(|_| ()), began.elapsed());
    }
    Ok(())
}
