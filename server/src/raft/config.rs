//! How openraft is set up: every setting that matters, and why.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use super::Error;

/// The pace of heartbeats and elections.
///
/// openraft lets a follower stand for election after a silence of `election_max` (the leader's lease) *plus* a time
/// drawn from `election_min..election_max`: 600 to 800 ms with the defaults. An election that two candidates split
/// costs up to `election_max` more, and even then a fail-over ends below 1.4 s. A leader stops taking proposals when
/// no quorum has answered for `election_max`: five heartbeats, or thirty times the 13 ms that an append takes at full
/// load on two cores, so that neither a busy machine nor a slow fsync unseats it. The least session timeout, 2 s, is
/// more than four times `election_max`, as sessions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats. Default 80 ms.
    pub heartbeat: Duration,
    /// Default 200 ms; more than two heartbeats.
    pub election_min: Duration,
    /// Default 400 ms; more than `election_min`.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(80),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(400),
        }
    }
}

impl Timing {
    /// How long an append, or a round of heartbeats for reads, may go unanswered.
    pub(super) fn patience(&self) -> Duration {
        self.election_max
    }
}

/// openraft's configuration.
///
/// # Errors
/// [`Error::Timing`] when the times do not fit each other.
pub(super) fn config(cluster: &str, timing: &Timing) -> Result<Arc<Config>, Error> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if timing.heartbeat.is_zero() || timing.heartbeat * 2 >= timing.election_min {
        return Err(Error::Timing("two heartbeats must be shorter than the least election time-out".to_owned()));
    }
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        // A leader that restarts would otherwise go on in its old term without a blank entry, and a planner would
        // take what is not applied yet for the end of the log.
        enable_leader_restore: Some(false),
        // A member that was cut off must not unseat the leader when it comes back.
        enable_pre_vote: Some(true),
        // A log that went back is a wiped disk: such a member comes back under a new id.
        allow_log_reversion: Some(false),
        // Checkpoints are made by their own thread.
        snapshot_policy: SnapshotPolicy::Never,
        // What may go after a checkpoint is reckoned in bytes, and told: see `Replica::checkpointed`.
        max_in_snapshot_log_to_keep: u64::MAX,
        // Entries hold whole batches of transactions; bytes are bounded by the log's reads.
        max_payload_entries: 300,
        // A member that comes back is found by the link; this is how soon replication follows.
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    };
    let config = config.validate().map_err(|error| Error::Timing(error.to_string()))?;
    assert_eq!(config.enable_leader_restore, Some(false), "a planner starts on the blank entry of its term only");
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn leadership_is_never_restored_and_pre_vote_is_on() {
        let config = config("c", &Timing::default()).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
    }

    #[test]
    fn a_fail_over_ends_before_sessions_do() {
        let timing = Timing::default();
        // Silence, a split election and its repetition; pre-votes and votes take the time of a few loaded appends.
        let worst = timing.election_max * 3 + Duration::from_millis(100);
        assert!(worst < Duration::from_millis(1_400), "{worst:?}");
        assert!(timing.election_max * 4 <= Duration::from_millis(conclave_protocol::limits::SESSION_TIMEOUT_MIN_MS));
    }

    #[test]
    fn times_that_do_not_fit_are_refused() {
        let slow = Timing { heartbeat: Duration::from_millis(100), ..Timing::default() };
        assert!(matches!(config("c", &slow), Err(Error::Timing(_))));
        let narrow = Timing { election_max: Duration::from_millis(200), ..Timing::default() };
        assert!(matches!(config("c", &narrow), Err(Error::Timing(_))));
    }
}
