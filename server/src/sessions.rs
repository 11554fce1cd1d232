//! The leader's session task: renews leases once leadership is confirmed, and proposes the end of those not renewed.

use std::time::Duration;

use conclave_core::plan::Work;
use conclave_protocol::SessionId;
use tokio::sync::mpsc;

use crate::applier::Lifecycle;
use crate::leases::{Leases, TICK};
use crate::monotonic;
use crate::planner;
use crate::raft::Replica;

/// Tells the sender of a batch which of its sessions are renewed.
pub(crate) type Reply = Box<dyn FnOnce(Vec<SessionId>) + Send>;

/// What the task is told.
pub(crate) enum Command {
    /// Heartbeats of these sessions arrived at this time, at the leader.
    Renew {
        /// Which sessions.
        sessions: Vec<SessionId>,
        /// When, on this member's monotonic clock.
        arrived: Duration,
        /// Called when leadership is confirmed; never called otherwise.
        reply: Reply,
    },
    /// This member leads in this term, with these sessions and their timeouts.
    Start(u64, Vec<(SessionId, u64)>),
    /// It does not lead any more.
    Stop,
}

/// What waits for a read-index round.
enum Confirming {
    Renewal(Vec<SessionId>, Reply),
    Expiry(Vec<SessionId>),
}

/// Runs until the member stops.
pub(crate) async fn run(
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut lifecycle: mpsc::UnboundedReceiver<Lifecycle>,
    replica: Replica,
    planner: planner::Handle,
    expired: std::sync::Arc<std::sync::atomic::AtomicU64>,
) {
    let mut leases: Option<Leases> = None;
    let mut term = 0;
    let leadership = replica.leadership();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (confirmed, mut confirmed_here) = mpsc::unbounded_channel::<(Confirming, bool)>();
    // A read-index round that begins now, for what has arrived before now.
    let confirm = |what: Confirming| {
        let (replica, confirmed) = (replica.clone(), confirmed.clone());
        tokio::spawn(async move {
            let leads = replica.reads().confirm().await;
            drop(confirmed.send((what, leads)));
        });
    };
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                None => return,
                Some(Command::Start(in_term, sessions)) => {
                    term = in_term;
                    let sessions = sessions.into_iter().map(|(id, ms)| (id, Duration::from_millis(ms)));
                    leases = Some(Leases::start(sessions, monotonic()));
                }
                Some(Command::Stop) => leases = None,
                Some(Command::Renew { sessions, arrived, reply }) => {
                    // Counted at once, which can only make it live longer; told only after the confirmation.
                    if let Some(leases) = &mut leases {
                        let renewed = sessions.into_iter().filter(|session| leases.renew(*session, arrived)).collect();
                        confirm(Confirming::Renewal(renewed, reply));
                    }
                }
            },
            event = lifecycle.recv() => match (event, &mut leases) {
                (None, _) => return,
                (Some(Lifecycle::Opened(session, ms)), Some(leases)) => {
                    leases.opened(session, Duration::from_millis(ms), monotonic());
                }
                (Some(Lifecycle::Ended(session)), Some(leases)) => leases.ended(session),
                (Some(_), None) => {}
            },
            Some((what, leads)) = confirmed_here.recv() => match (what, &mut leases) {
                (Confirming::Renewal(sessions, reply), Some(_)) if leads => reply(sessions),
                (Confirming::Expiry(sessions), Some(leases)) if leads => {
                    for session in sessions {
                        if leases.end(session, monotonic()) {
                            tracing::info!(%session, "the session was not renewed within its timeout: it ends");
                            expired.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            planner.send(planner::Command::Own(term, Box::new(Work::Expire { session })));
                        }
                    }
                }
                _ => {}
            },
            _ = ticks.tick() => {
                // Leases of another term count what another leader did not get to see.
                let now = *leadership.borrow();
                if !now.is_leader || now.term != term {
                    leases = None;
                }
                if let Some(leases) = &mut leases {
                    let due = leases.tick(monotonic());
                    if !due.is_empty() {
                        confirm(Confirming::Expiry(due));
                    }
                }
            }
        }
    }
}
