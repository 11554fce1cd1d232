//! Every limit of the protocol and the tree, in one place. Each is a typed refusal before any row is planned.
//!
//! Those in [`Limits`] can be set in a member's configuration, in its section `[limits]`, within bounds that are checked
//! at its start; the constants of the same names are the defaults. All members should have the same ones: the leader's
//! hold. The others are part of the protocol.

use serde::{Deserialize, Serialize};

/// Bytes of one name of a path (LMDB's keys end at 511 bytes; a name shares its key with an 8-byte id).
pub const NAME_BYTES: usize = 255;
/// Names in a path.
pub const DEPTH: usize = 64;
/// Bytes of one znode's data.
pub const DATA_BYTES: usize = 1 << 20;
/// Children in one page of a listing.
pub const PAGE_CHILDREN: u32 = 1_000;
/// Bytes of data in one page of a listing; a page ends early, with a cursor, when it is reached.
pub const PAGE_BYTES: usize = 1 << 20;
/// Paths of one read of many.
pub const READ_PATHS: usize = 1_000;
/// Bytes of data in one read of many.
pub const READ_BYTES: usize = 2 << 20;
/// Steps of one multi.
pub const MULTI_STEPS: usize = 5_000;
/// Znodes that one delete of a subtree may remove: they are one transaction, so they must fit an entry.
pub const SUBTREE_ZNODES: usize = 10_000;
/// Znodes that one prune removes: few enough that other clients do not notice it.
pub const PRUNE_ZNODES: usize = 1_000;
/// Grants of one access list.
pub const ACL_GRANTS: usize = 64;
/// Bytes of one principal in an access list: lists are kept for good.
pub const PRINCIPAL_BYTES: usize = 1_024;
/// Different access lists of a cluster: they are kept once each, and for good. The last tenth is kept for administrators,
/// who may administer the root.
pub const ACCESS_LISTS: usize = 100_000;
/// Access lists that were never used before, of one transaction.
pub const TRANSACTION_LISTS: usize = 16;
/// Greatest time to live of a znode, milliseconds: ten years.
pub const TTL_MAX_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000;
/// How long a container is left alone after its last child went, milliseconds: somebody may be about to create another.
pub const CONTAINER_GRACE_MS: u64 = 1_000;
/// Bytes of a pattern of paths.
pub const PATTERN_BYTES: usize = 1_024;
/// Bytes of a component.
pub const COMPONENT_BYTES: usize = 16 << 20;
/// Bytes of a chunk in which a component is uploaded and stored.
pub const COMPONENT_CHUNK: usize = 256 << 10;
/// How long an uploaded component that is not installed is kept, milliseconds.
pub const UPLOAD_KEPT_MS: u64 = 600_000;
/// Bytes of components that were uploaded and not installed, of the whole cluster.
pub const UPLOAD_BYTES: usize = 64 << 20;
/// Installed plugins.
pub const PLUGINS: usize = 1_000;
/// Bytes of a plugin's settings.
pub const SETTINGS_BYTES: usize = 64 << 10;
/// Bytes of a manifest.
pub const MANIFEST_BYTES: usize = 64 << 10;
/// Triggers of one plugin.
pub const TRIGGERS: usize = 64;
/// Parked calls of a session: each is run again when it ends.
pub const SESSION_PARKED: usize = 256;
/// Parked calls of a cluster.
pub const PARKED: usize = 100_000;
/// Conditions that a parked call waits for.
pub const PARK_CONDITIONS: usize = 16;
/// Bytes of state that a parked call keeps.
pub const PARK_STATE_BYTES: usize = 4 << 10;
/// How deep triggers run triggers.
pub const CASCADE: usize = 8;
/// Units of fuel that all runs of plugins in one transaction may spend together.
pub const TRANSACTION_FUEL: u64 = 200_000_000;
/// Bytes of one procedure call's arguments.
pub const CALL_BYTES: usize = 1 << 20;
/// Bytes of one frame from a client. Above the data of a znode, twice, as a swap has it, however high its limit is set: so
/// that data over its limit gets a refusal, not a closed connection.
pub const FRAME_BYTES: usize = 4 << 20;
/// Bytes of one transaction's rows: what a multi or a subtree delete may add up to.
pub const TRANSACTION_BYTES: usize = 8 << 20;
/// Bytes of data that the steps of one transaction may read to compare or to edit it, and write after an edit: the leader
/// plans one transaction at a time.
pub const EDITED_BYTES: usize = 64 << 20;
/// Bytes of one frame between members: an append of several entries.
pub const PEER_FRAME_BYTES: usize = 64 << 20;
/// Nested values in a message; [`crate::codec`] refuses deeper ones. The deepest message of ours, a list of plugins, has 16.
pub const NESTING: usize = 24;
/// Unacknowledged replies that a session may leave behind before it is pushed back.
pub const SESSION_REPLIES: usize = 1_024;
/// Bytes of unacknowledged replies that a session may leave behind before it is pushed back.
pub const SESSION_REPLY_BYTES: usize = 1 << 20;
/// Replies up to this size together lie in the session's own row; beyond, each has a row of its own.
pub const PACKED_REPLY_BYTES: usize = 512;
/// Ephemeral znodes that a session may own: ending it is one transaction, so they must fit an entry.
pub const SESSION_EPHEMERALS: usize = 10_000;
/// Least session timeout, milliseconds.
pub const SESSION_TIMEOUT_MIN_MS: u64 = 2_000;
/// Greatest session timeout, milliseconds.
pub const SESSION_TIMEOUT_MAX_MS: u64 = 300_000;
/// How far ahead a one-shot write's `until` may lie, milliseconds of cluster time.
pub const ONCE_AHEAD_MS: u64 = 60_000;
/// One-shot writes that a principal may have remembered at a time.
pub const ONCE_ROWS: usize = 1_000_000;
/// Bytes of replies to one-shot writes that a principal may have remembered before it is pushed back.
pub const ONCE_REPLY_BYTES: usize = 64 << 20;
/// Watches on one connection.
pub const WATCHES: usize = 100_000;
/// Watches with a pattern on one connection: of different patterns each is held against each change.
pub const PATTERN_WATCHES: usize = 1_000;
/// Events that may wait for one connection before its watches are answered with `Resync`.
pub const QUEUED_EVENTS: usize = 10_000;
/// Bytes of events with data that may wait for one connection before its watches are answered with `Resync`.
pub const QUEUED_EVENT_BYTES: usize = 16 << 20;
/// Transactions whose changes are kept for watches that resume.
pub const HISTORY_TRANSACTIONS: u64 = 100_000;
/// Bytes of changes, as they are stored, that are kept for watches that resume: a few of the largest transactions, and all
/// of [`HISTORY_TRANSACTIONS`] small ones. What is kept is read into memory when members are behind, and is part of backups.
pub const HISTORY_BYTES: usize = 64 << 20;
/// Requests of one connection that may wait for an answer; further ones wait in the stream's flow control.
pub const IN_FLIGHT: usize = 4_096;

macro_rules! configurable {
    ($($(#[$doc:meta])* $name:ident = $default:expr, $least:expr, $most:expr;)*) => {
        /// The limits that a configuration can set. Changing one takes nothing away: what is there already stays.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default as u64,)* }
            }
        }

        impl Limits {
            /// Each with its name, its value, and the least and the most that it can be.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64, u64, u64)> {
                vec![$((stringify!($name), self.$name, $least as u64, $most as u64),)*]
            }
        }
    };
}

configurable! {
    /// [`DATA_BYTES`].
    data_bytes = DATA_BYTES, 1 << 10, 3 << 19;
    /// [`MULTI_STEPS`].
    multi_steps = MULTI_STEPS, 1, 10_000;
    /// [`SUBTREE_ZNODES`].
    subtree_znodes = SUBTREE_ZNODES, 1, 20_000;
    /// [`PRUNE_ZNODES`].
    prune_znodes = PRUNE_ZNODES, 1, 10_000;
    /// [`SESSION_EPHEMERALS`].
    session_ephemerals = SESSION_EPHEMERALS, 1, 20_000;
    /// [`SESSION_TIMEOUT_MIN_MS`].
    session_timeout_min_ms = SESSION_TIMEOUT_MIN_MS, 500, 60_000;
    /// [`SESSION_TIMEOUT_MAX_MS`].
    session_timeout_max_ms = SESSION_TIMEOUT_MAX_MS, 2_000, 86_400_000;
    /// [`ONCE_ROWS`].
    once_rows = ONCE_ROWS, 1_000, 10_000_000;
    /// [`ACL_GRANTS`].
    acl_grants = ACL_GRANTS, 1, 1_000;
    /// [`ACCESS_LISTS`].
    access_lists = ACCESS_LISTS, 1, 1_000_000;
    /// [`TTL_MAX_MS`].
    ttl_max_ms = TTL_MAX_MS, 1_000, 100 * TTL_MAX_MS;
    /// [`CONTAINER_GRACE_MS`].
    container_grace_ms = CONTAINER_GRACE_MS, 0, 3_600_000;
    /// [`WATCHES`].
    watches = WATCHES, 1, 10_000_000;
    /// [`QUEUED_EVENTS`].
    queued_events = QUEUED_EVENTS, 100, 1_000_000;
    /// [`QUEUED_EVENT_BYTES`].
    queued_event_bytes = QUEUED_EVENT_BYTES, 1 << 20, 1 << 30;
}

impl Limits {
    /// Whether each is within its bounds, and they go together.
    ///
    /// # Errors
    /// Which is not, its value, and what it may be.
    pub fn check(&self) -> Result<(), String> {
        for (name, value, least, most) in self.all() {
            if !(least..=most).contains(&value) {
                return Err(format!("limits.{name} is {value}, it must be between {least} and {most}"));
            }
        }
        let (min, max) = (self.session_timeout_min_ms, self.session_timeout_max_ms);
        if min > max {
            return Err(format!(
                "limits.session_timeout_min_ms is {min}, and limits.session_timeout_max_ms only {max}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Edit, Fence, Op, Path, Update, Zxid, codec};

    #[test]
    fn the_defaults_are_within_their_bounds_and_what_is_not_is_named() {
        assert_eq!(Limits::default().check(), Ok(()));
        let wrong = Limits { data_bytes: 3 << 20, ..Limits::default() }.check().unwrap_err();
        assert!(wrong.contains("limits.data_bytes is 3145728") && wrong.contains("1572864"), "{wrong}");
        let wrong = Limits { session_timeout_min_ms: 9_000, session_timeout_max_ms: 8_000, ..Limits::default() };
        assert!(wrong.check().unwrap_err().contains("session_timeout_max_ms"));
    }

    #[test]
    fn a_swap_of_the_most_data_that_can_be_configured_fits_a_frame() {
        let all = Limits::default().all();
        let (_, _, _, most) = all.iter().find(|(name, ..)| *name == "data_bytes").unwrap();
        let data = Bytes::from(vec![7; usize::try_from(*most).unwrap()]);
        let edit = Edit::Swap { expected: data.clone(), data };
        let path = Path::parse(&format!("/{}", "n".repeat(NAME_BYTES)).repeat(DEPTH)).unwrap();
        let fence = Some(Fence { path: path.clone(), zxid: Zxid(u64::MAX) });
        let op = Op::Update(Update { path, edit, if_version: Some(u64::MAX), or_create: true });
        // Of its session and sequence there are some bytes more.
        assert!(codec::encode(&(fence, op)).len() + 4_096 < FRAME_BYTES);
    }
}
