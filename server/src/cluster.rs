//! What an administrator asks of the cluster: how its members are, and who belongs to it. Changes are made by the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_protocol::{
    ClusterRefusal, ClusterRequest, Endpoint, Health, MemberHealth, MemberId, MemberReport, Role, Zxid,
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::member::Shared;
use crate::peer::{self, wire};
use crate::raft::{Error, Members, Node};
use crate::wall_ms;

/// How long the other members have to say how they are.
const SURVEY_WITHIN: Duration = Duration::from_secs(1);
/// How long a leader has for a change: it is committed by a majority, nobody waits for members to catch up.
const CHANGE_WITHIN: Duration = Duration::from_secs(10);
/// How long a leader is looked for.
const LEADER_WITHIN: Duration = Duration::from_secs(8);
/// How long to wait before the leader is asked again.
const AGAIN: Duration = Duration::from_millis(50);
/// A learner that lacks no more of the leader's log gets its vote: it has the rest in less than a round trip or two.
const ENTRIES_BEHIND: u64 = 256;

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

/// Where clients reach the members, by number: as the membership says, and the configuration before there is one.
pub(crate) fn endpoints(shared: &Shared) -> Vec<Endpoint> {
    let nodes = shared.replica.membership().nodes;
    if nodes.is_empty() {
        return shared.endpoints.clone();
    }
    nodes.into_iter().map(|(id, node)| Endpoint { member: MemberId(id), address: node.client }).collect()
}

/// A member, and what it said of itself.
pub(crate) struct Surveyed {
    pub(crate) id: MemberId,
    pub(crate) node: Node,
    pub(crate) is_voter: bool,
    /// With the time that the answer took, and this member's wall clock half-way.
    said: Option<(wire::Status, Duration, u64)>,
    /// It says that this member does not belong to the cluster.
    disowns: bool,
}

impl Surveyed {
    /// What it said.
    pub(crate) fn status(&self) -> Option<&wire::Status> {
        self.said.as_ref().map(|(status, ..)| status)
    }

    /// Its part in the cluster.
    pub(crate) fn role(&self) -> Role {
        match self.status().map(|status| status.role.as_str()) {
            Some("leader") => Role::Leader,
            Some("candidate") => Role::Candidate,
            Some("learner") => Role::Learner,
            Some("follower") => Role::Follower,
            Some("quarantined") => Role::Quarantined,
            Some(_) | None => Role::Unreachable,
        }
    }

    /// Whether it answers, and takes part.
    fn is_well(&self) -> bool {
        !matches!(self.role(), Role::Unreachable | Role::Quarantined)
    }

    fn health(self) -> MemberHealth {
        let role = self.role();
        let report = self.said.map(|(status, took, here_ms)| MemberReport {
            term: status.term,
            zxid: Zxid(status.zxid),
            digest: format!("{:032x}", status.digest),
            version: status.version,
            clock_offset_ms: offset(status.wall_ms, here_ms),
            round_trip_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            log_last_sync_us: status.log_last_sync_us,
            log_longest_sync_us: status.log_longest_sync_us,
            free_bytes: status.free_bytes,
            checkpoint_zxid: status.checkpoint_zxid.map(Zxid),
            certificate_end_s: status.certificate_end_s,
            note: status.note,
        });
        let Node { peer, client } = self.node;
        MemberHealth { id: self.id, voter: self.is_voter, client, peer, role, report }
    }
}

fn offset(there_ms: u64, here_ms: u64) -> i64 {
    let (there, here) = (i128::from(there_ms), i128::from(here_ms));
    i64::try_from(there - here).unwrap_or(if there > here { i64::MAX } else { i64::MIN })
}

/// Asks every member how it is, all at once.
pub(crate) async fn survey(shared: &Shared) -> Vec<Surveyed> {
    let Members { voters, nodes } = shared.replica.membership();
    let asked = nodes.into_iter().map(async |(id, node)| {
        let (began, began_ms) = (Instant::now(), wall_ms());
        let (status, disowns) = if id == shared.id.0 {
            (shared.status().ok(), false)
        } else {
            match shared.peers.ask(id, wire::Request::Status, SURVEY_WITHIN).await {
                Ok(wire::Response::Status(status)) => (Some(status), false),
                Err(peer::Error::Refused(wire::Refused::NotAMember)) => (None, true),
                Ok(_) | Err(_) => (None, false),
            }
        };
        let took = began.elapsed();
        let half_way_ms = began_ms + u64::try_from(took.as_millis() / 2).unwrap_or(0);
        let is_voter = voters.iter().any(|set| set.contains(&id));
        Surveyed { id: MemberId(id), node, is_voter, said: status.map(|status| (status, took, half_way_ms)), disowns }
    });
    join_all(asked).await
}

/// Whether this member was taken out: the majority of the voters that answer say that it does not belong to them. One
/// alone may have been taken out itself, or know less than the others.
fn is_disowned(surveyed: &[Surveyed], me: MemberId) -> bool {
    let answering = surveyed.iter().filter(|one| one.id != me && one.is_voter && (one.disowns || one.said.is_some()));
    let disowning = answering.clone().filter(|one| one.disowns).count();
    disowning * 2 > answering.count()
}

/// How every member is.
pub(crate) async fn health(shared: &Shared) -> Health {
    let surveyed = survey(shared).await;
    let is_disowned = is_disowned(&surveyed, shared.id);
    let mut members: Vec<MemberHealth> = surveyed.into_iter().map(Surveyed::health).collect();
    let own = members.iter_mut().find(|member| member.id == shared.id).and_then(|member| member.report.as_mut());
    if let Some(report) = own.filter(|_| is_disowned) {
        report.note = Some("it was taken out of the cluster, and the others do not hear it: stop it".to_owned());
    }
    let leader = shared.leadership.borrow().leader.map(MemberId);
    Health { cluster: shared.cluster.clone(), member: shared.id, leader, wall_ms: wall_ms(), members }
}

/// Has the leader, whoever that is, do what a client of this member asked for.
pub(crate) async fn ask_leader(shared: &Arc<Shared>, request: AdminRequest) -> AdminAnswer {
    let until = Instant::now() + LEADER_WITHIN;
    // Asked before, without an answer: it may have been done.
    let mut unclear = false;
    loop {
        let leader = shared.leadership.borrow().leader;
        let answer = match leader {
            None => AdminAnswer::NotLeader { leader: None },
            Some(id) if id == shared.id.0 => perform(shared, request.clone()).await,
            Some(id) => {
                let asked = wire::Request::Admin(request.clone());
                match shared.peers.ask(id, asked, CHANGE_WITHIN).await {
                    Ok(wire::Response::Admin(answer)) => answer,
                    Ok(_) => AdminAnswer::Failed(format!("member {id} answered something else")),
                    Err(peer::Error::NoAnswer(within)) => {
                        AdminAnswer::Failed(format!("member {id} leads, and did not answer in {} s", within.as_secs()))
                    }
                    // Whether that is so, all of them are asked, if nobody else turns up to lead.
                    Err(peer::Error::Refused(wire::Refused::NotAMember)) => AdminAnswer::NotLeader { leader: None },
                    // Handing over twice would not be harmless.
                    Err(error) if request.what == ClusterRequest::StepDown => {
                        AdminAnswer::Failed(format!("member {id}, the leader, did not answer: {error}"))
                    }
                    Err(_) => {
                        unclear = true;
                        AdminAnswer::NotLeader { leader: None }
                    }
                }
            }
        };
        match answer {
            AdminAnswer::NotLeader { .. } if Instant::now() < until => tokio::time::sleep(AGAIN).await,
            AdminAnswer::NotLeader { .. } if unclear => {
                return AdminAnswer::Failed("the leader went away when it was asked".to_owned());
            }
            AdminAnswer::NotLeader { .. } => {
                // One that was taken out hears of no leader any more.
                let is_disowned = is_disowned(&survey(shared).await, shared.id);
                let refusal = if is_disowned {
                    ClusterRefusal::NotAMember { member: shared.id }
                } else {
                    ClusterRefusal::NoLeader
                };
                return AdminAnswer::Declined(refusal);
            }
            AdminAnswer::Declined(ClusterRefusal::NoMember { .. }) if unclear => return AdminAnswer::Done,
            answer => return answer,
        }
    }
}

/// Does it, on the leader.
pub(crate) async fn perform(shared: &Arc<Shared>, request: AdminRequest) -> AdminAnswer {
    let leadership = *shared.leadership.borrow();
    if !leadership.is_leader {
        return AdminAnswer::NotLeader { leader: leadership.leader };
    }
    // One after the other: each begins from the voters that the one before has left.
    let _one = shared.administration.lock().await;
    let AdminRequest { principal, what } = request;
    tracing::info!(%principal, ?what, "a change of the cluster is asked for");
    let done = match &what {
        ClusterRequest::AddLearner { member, client, peer } => {
            add(shared, *member, Node { peer: peer.clone(), client: client.clone() }).await
        }
        ClusterRequest::Promote { member } => promote(shared, *member).await,
        ClusterRequest::Remove { member } => remove(shared, *member).await,
        ClusterRequest::StepDown => shared.replica.step_down().await.map_err(Not::from),
    };
    let answer = match done {
        Ok(()) => AdminAnswer::Done,
        Err(Not::Declined(refusal)) => AdminAnswer::Declined(refusal),
        Err(Not::Leading) => AdminAnswer::NotLeader { leader: None },
        Err(Not::Sure(why)) => AdminAnswer::Failed(why),
    };
    tracing::info!(%principal, ?what, ?answer, "a change of the cluster");
    answer
}

/// Why something was not done.
enum Not {
    Declined(ClusterRefusal),
    /// This member does not lead (any more).
    Leading,
    /// It may have been done.
    Sure(String),
}

impl From<ClusterRefusal> for Not {
    fn from(refusal: ClusterRefusal) -> Self {
        Self::Declined(refusal)
    }
}

impl From<Error> for Not {
    fn from(error: Error) -> Self {
        match error {
            Error::NotLeader => Self::Leading,
            Error::NoSuccessor => Self::Declined(ClusterRefusal::NoSuccessor),
            // What else Raft refuses was looked at before.
            Error::Refused(_) => Self::Declined(ClusterRefusal::Changing),
            other => Self::Sure(other.to_string()),
        }
    }
}

async fn add(shared: &Shared, member: MemberId, node: Node) -> Result<(), Not> {
    if !is_there_already(&shared.replica.membership().nodes, member, &node)? {
        shared.replica.add_learner(member.0, node).await?;
    }
    Ok(())
}

/// Whether it is a member already, just so.
fn is_there_already(nodes: &BTreeMap<u64, Node>, member: MemberId, node: &Node) -> Result<bool, ClusterRefusal> {
    for address in [&node.client, &node.peer] {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        if port.and_then(|port| port.parse::<u16>().ok()).is_none() {
            return Err(ClusterRefusal::BadAddress { address: address.clone() });
        }
    }
    if let Some(known) = nodes.get(&member.0) {
        return if known == node {
            Ok(true)
        } else {
            let (client, peer) = (known.client.clone(), known.peer.clone());
            Err(ClusterRefusal::MemberExists { member, client, peer })
        };
    }
    for (id, known) in nodes {
        for address in [&node.client, &node.peer] {
            if *address == known.client || *address == known.peer {
                return Err(ClusterRefusal::AddressTaken { address: address.clone(), member: MemberId(*id) });
            }
        }
    }
    // A member that comes back under a number whose vote another one has cast could undo what was acknowledged. Who was
    // a member once is not written down, but numbers rise.
    let greatest = nodes.last_key_value().map_or(0, |(id, _)| *id);
    if member.0 <= greatest {
        return Err(ClusterRefusal::NumberUsed { member, next: MemberId(greatest + 1) });
    }
    Ok(false)
}

async fn promote(shared: &Shared, member: MemberId) -> Result<(), Not> {
    let members = shared.replica.membership();
    if !members.nodes.contains_key(&member.0) {
        return Err(ClusterRefusal::NoMember { member }.into());
    }
    let mut voters = united(&members);
    if members.voters.len() == 1 && voters.contains(&member.0) {
        return Ok(());
    }
    let surveyed = survey(shared).await;
    if !surveyed.iter().any(|one| one.id == member && one.is_well()) {
        return Err(ClusterRefusal::Unreachable { member }.into());
    }
    let has = shared.replica.progress().get(&member.0).copied().flatten().unwrap_or(0);
    let last = shared.replica.numbers().last.map_or(0, |last| last.index);
    let entries = last.saturating_sub(has);
    if entries > ENTRIES_BEHIND {
        return Err(ClusterRefusal::Behind { member, entries }.into());
    }
    voters.insert(member.0);
    Ok(shared.replica.change_voters(voters).await?)
}

async fn remove(shared: &Shared, member: MemberId) -> Result<(), Not> {
    let members = shared.replica.membership();
    if !members.nodes.contains_key(&member.0) {
        return Err(ClusterRefusal::NoMember { member }.into());
    }
    let voters = united(&members);
    if voters.contains(&member.0) {
        let surveyed = survey(shared).await;
        let well: BTreeSet<u64> = surveyed.iter().filter(|one| one.is_well()).map(|one| one.id.0).collect();
        can_go(&voters, &well, member)?;
        if member == shared.id {
            // Whoever leads then takes this one out.
            shared.replica.step_down().await?;
            return Err(Not::Leading);
        }
    }
    Ok(shared.replica.remove(member.0).await?)
}

/// Whether the voters that are left without a member can commit.
fn can_go(voters: &BTreeSet<u64>, well: &BTreeSet<u64>, member: MemberId) -> Result<(), ClusterRefusal> {
    let left: Vec<u64> = voters.iter().copied().filter(|id| *id != member.0).collect();
    if left.is_empty() {
        return Err(ClusterRefusal::LastVoter { member });
    }
    let reachable = left.iter().filter(|id| well.contains(id)).count();
    if reachable * 2 <= left.len() {
        let (voters, reachable) = (left.len() as u64, reachable as u64);
        return Err(ClusterRefusal::NoMajority { member, voters, reachable });
    }
    Ok(())
}

/// Whoever has a vote, before or after a change that is on its way.
fn united(members: &Members) -> BTreeSet<u64> {
    members.voters.iter().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u64) -> Node {
        Node { client: format!("h{n}:1"), peer: format!("h{n}:2") }
    }

    #[test]
    fn a_member_is_added_once_with_a_number_and_addresses_of_its_own() {
        let nodes: BTreeMap<u64, Node> = [1, 3].map(|id| (id, node(id))).into();
        let add = |id, node: Node| is_there_already(&nodes, MemberId(id), &node);
        assert_eq!(add(4, node(4)), Ok(false));
        assert_eq!(add(3, node(3)), Ok(true), "asked again, it is so already");
        assert_eq!(add(3, node(9)).unwrap_err().code(), "member-exists");
        assert_eq!(add(4, Node { peer: "h1:2".to_owned(), ..node(4) }).unwrap_err().code(), "address-taken");
        assert_eq!(add(4, Node { client: "h4".to_owned(), ..node(4) }).unwrap_err().code(), "bad-address");
        // 2 was a member, or may have been.
        let used = add(2, node(2)).unwrap_err();
        assert_eq!(used, ClusterRefusal::NumberUsed { member: MemberId(2), next: MemberId(4) });
    }

    #[test]
    fn nobody_is_removed_whom_a_majority_needs() {
        let go = |voters: &[u64], well: &[u64], member| {
            let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
            can_go(&set(voters), &set(well), MemberId(member)).map_err(|refusal| refusal.code())
        };
        assert_eq!(go(&[1, 2, 3], &[1, 2, 3], 3), Ok(()));
        assert_eq!(go(&[1, 2, 3], &[1, 2], 3), Ok(()), "the dead one can go");
        assert_eq!(go(&[1, 2, 3], &[1, 2], 2), Err("no-majority"), "1 would need 3, which is dead");
        assert_eq!(go(&[1, 2, 3, 4], &[1, 2, 3], 3), Ok(()));
        assert_eq!(go(&[1], &[1], 1), Err("last-voter"));
    }

    #[test]
    fn one_voice_takes_no_member_out_of_the_cluster() {
        let status = |id: u64| wire::Status {
            role: "follower".to_owned(),
            term: 1,
            zxid: id,
            digest: 0,
            version: String::new(),
            wall_ms: 0,
            log_last_sync_us: 0,
            log_longest_sync_us: 0,
            free_bytes: 0,
            checkpoint_zxid: None,
            certificate_end_s: None,
            note: None,
        };
        let one = |id, is_voter, disowns, answers: bool| {
            let said = answers.then(|| (status(id), Duration::ZERO, 0));
            Surveyed { id: MemberId(id), node: node(id), is_voter, said, disowns }
        };
        let me = || one(1, true, false, true);
        let (no, yes) = (|id| one(id, true, true, false), |id| one(id, true, false, true));
        let silent = |id| one(id, true, false, false);
        assert!(!is_disowned(&[me(), no(2), yes(3)], MemberId(1)), "one of two");
        assert!(!is_disowned(&[me(), no(2), yes(3), yes(4)], MemberId(1)));
        assert!(is_disowned(&[me(), no(2), no(3)], MemberId(1)));
        assert!(is_disowned(&[me(), no(2), silent(3)], MemberId(1)), "whoever is silent has no say");
        assert!(!is_disowned(&[me(), one(2, false, true, false), yes(3)], MemberId(1)), "nor has a learner");
        assert!(!is_disowned(&[me(), silent(2), silent(3)], MemberId(1)));
    }

    #[test]
    fn clocks_are_compared_in_both_directions() {
        assert_eq!((offset(5, 7), offset(7, 5)), (-2, 2));
        assert_eq!((offset(u64::MAX, 0), offset(0, u64::MAX)), (i64::MAX, i64::MIN));
    }
}
