//! `conclave server`: runs one member until it is asked to stop, or until a fault stops it.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use conclave_server::{Config, Member, StartError, Stopped};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::sync::oneshot;

use crate::out::{self, Failure, Outcome};
use crate::signals::Stop;
use crate::{check, replace};

/// The time that a member without a parent may take to stop: less than `dev` gives it, after which it kills.
const ORPHAN_STOPS_WITHIN: Duration = Duration::from_secs(9);

/// What is logged when `CONCLAVE_LOG` does not say: the engine's own information is for those who work on it.
const LOG: &str = "info,openraft=error";

/// Run one member of a cluster
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The member's configuration
    #[arg(long, value_name = "FILE", required_unless_present = "print_defaults")]
    config: Option<PathBuf>,
    /// Say what would be used, certificates included, and whether it fits together; start nothing
    #[arg(long)]
    check_config: bool,
    /// Say what to do when this member's log or disk is lost, step by step; do nothing
    #[arg(long, conflicts_with = "check_config")]
    replace: bool,
    /// Print a configuration with every key and its default
    #[arg(long, conflicts_with_all = ["config", "check_config", "replace"])]
    print_defaults: bool,
    /// Stop when the process of this id, which started this one, ends: `dev` says so to its members.
    #[arg(long, value_name = "PID", hide = true)]
    parent_pid: Option<i32>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, json: bool) -> Outcome {
    let Some(path) = &args.config else {
        out::line(Config::example().trim_end());
        return Ok(());
    };
    let config = Config::load(path, variables()).map_err(|error| Failure::Usage(error.to_string()))?;
    if args.check_config {
        return check::run(path, &config, json);
    }
    if args.replace {
        return replace::run(path, &config, json);
    }
    start_log()?;
    if let Some(parent) = args.parent_pid {
        follow(parent)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::broken("cannot start a runtime", error))?;
    runtime.block_on(serve(path, config, args.parent_pid.is_some()))
}

/// The environment, as far as it is text: other programs' variables need not be.
pub(crate) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn start_log() -> Outcome {
    let wanted = std::env::var("CONCLAVE_LOG").unwrap_or_default();
    let wanted = if wanted.is_empty() { LOG } else { &wanted };
    let filter = tracing_subscriber::EnvFilter::try_new(wanted)
        .map_err(|error| Failure::Usage(format!("CONCLAVE_LOG is {wanted:?}: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

/// Has the kernel ask this process to stop when its parent dies, however that happens.
fn follow(parent: i32) -> Outcome {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Failure::broken("cannot follow the parent process", error))?;
    // It may have died before the line above; then nobody would ever tell.
    if getppid() == Pid::from_raw(parent) {
        Ok(())
    } else {
        Err(Failure::Broken(format!("the process {parent} that this member was started for is gone")))
    }
}

async fn serve(path: &Path, config: Config, followed: bool) -> Outcome {
    let mut stop = Stop::new()?;
    let id = config.member;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(cluster = config.cluster, member = id, data = %config.data.display(), version, "starting");
    let mut starting = pin!(elsewhere("start", move || Member::start(&config))?);
    let mut asked = false;
    let started = loop {
        tokio::select! {
            started = &mut starting => break started,
            signal = stop.asked() => {
                if std::mem::replace(&mut asked, true) {
                    return Err(Failure::Broken(format!("{signal} again while starting; ended at once")));
                }
                tracing::info!(signal, "stopping as soon as it has started");
            }
        }
    };
    let member = started
        .map_err(|_| Failure::Broken("starting panicked; see the log".to_owned()))?
        .map_err(|error| Failure::Broken(cannot_start(path, &error)))?;
    if !asked {
        tracing::info!("started");
        tokio::select! {
            stopped = member.stopped() => {
                // After a fault its threads are in no state to be waited for; the end of the process ends them.
                std::mem::forget(member);
                return match stopped {
                    Stopped::Clean => Ok(()),
                    Stopped::Fault(why) | Stopped::Quarantine(why) => Err(Failure::Broken(format!("member {id} stopped by a fault: {why}"))),
                };
            }
            signal = stop.asked() => tracing::info!(signal, "stopping"),
        }
    }
    halt(member, &mut stop, followed).await
}

/// Why it does not start; with what to do, where the log is lost.
fn cannot_start(path: &Path, error: &StartError) -> String {
    let is_lost = match error {
        StartError::Log { source, .. } => source.is_corrupt(),
        StartError::Torn { .. } => true,
        _ => false,
    };
    if is_lost {
        let text = error.to_string();
        let text = text.trim_end_matches('.');
        return format!("{text}. `conclave server --config {} --replace` says how, step by step", path.display());
    }
    error.to_string()
}

/// Stops the member cleanly. Asked once more, or too long about it with nobody left to kill it: at once.
async fn halt(member: Member, stop: &mut Stop, followed: bool) -> Outcome {
    let stopped = elsewhere("stop", move || member.stop())?;
    let limit = async {
        if followed {
            tokio::time::sleep(ORPHAN_STOPS_WITHIN).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        done = stopped => {
            done.map_err(|_| Failure::Broken("stopping panicked; see the log".to_owned()))?
                .map_err(|fault| Failure::broken("the next start counts as one after a crash", fault))?;
            tracing::info!("stopped");
            Ok(())
        }
        signal = stop.asked() => Err(Failure::Broken(format!("{signal} again while stopping; ended at once"))),
        () = limit => {
            Err(Failure::Broken(format!("still stopping after {} s; ended", ORPHAN_STOPS_WITHIN.as_secs())))
        }
    }
}

/// Runs what blocks on a thread of its own: a member starts and stops runtimes, which it may not do within this one.
fn elsewhere<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // An error means that the process is ending without waiting.
            let _ = done.send(work());
        })
        .map_err(|error| Failure::broken("cannot start a thread", error))?;
    Ok(result)
}
