//! What an administrator asks of the cluster: who belongs to it, how its members are. Changes are made by the leader.

use conclave_protocol::{ClusterRefusal, ClusterRequest};
use serde::{Deserialize, Serialize};

/// A client's request, on its way from the client's member to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRequest {
    /// Who asks.
    pub principal: String,
    /// What.
    pub what: ClusterRequest,
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAnswer {
    /// It is so now.
    Done,
    /// No; nothing was changed.
    Declined(ClusterRefusal),
    /// The member that was asked does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<u64>,
    },
    /// It went wrong, and may have happened all the same.
    Failed(String),
}
