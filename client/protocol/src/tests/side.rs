//! One sample of every message of a side stream, and of every variant inside one.

use bytes::Bytes;

use super::samples::{path, stat};
use super::{names, plugins};
use crate::{
    Backup, ClusterRefusal, ClusterRequest, Consistency, Health, MemberHealth, MemberId, MemberReport, Refusal, Role,
    SessionId, SideMessage, SideRequest, TreeEntry, Zxid,
};

/// A sample of each reason not to change the membership.
pub(super) fn cluster_refusals() -> Vec<ClusterRefusal> {
    let member = MemberId(4);
    let address = || "h:1".to_owned();
    vec![
        ClusterRefusal::MemberExists { member, client: address(), peer: address() },
        ClusterRefusal::NumberUsed { member, next: MemberId(5) },
        ClusterRefusal::AddressTaken { address: address(), member },
        ClusterRefusal::BadAddress { address: "h".to_owned() },
        ClusterRefusal::NoMember { member },
        ClusterRefusal::NotAMember { member },
        ClusterRefusal::Behind { member, entries: 7 },
        ClusterRefusal::Unreachable { member },
        ClusterRefusal::LastVoter { member },
        ClusterRefusal::NoMajority { member, voters: 2, reachable: 1 },
        ClusterRefusal::NoSuccessor,
        ClusterRefusal::Changing,
        ClusterRefusal::NoLeader,
    ]
}

/// Every kind of request on a side stream.
pub(super) fn side_requests() -> Vec<(String, SideRequest)> {
    let member = MemberId(4);
    let address = || "h:1".to_owned();
    let requests = [
        SideRequest::Backup { at_least: Zxid(12) },
        SideRequest::Subtree { path: path("/app"), data: true, consistency: Consistency::Linearizable, seen: Zxid(12) },
        SideRequest::Health,
        SideRequest::PluginStats { plugin: Some("queue".to_owned()) },
        SideRequest::PluginLog { plugin: "queue".to_owned(), after: 6 },
        SideRequest::Cluster(ClusterRequest::AddLearner { member, client: address(), peer: address() }),
        SideRequest::Cluster(ClusterRequest::Promote { member }),
        SideRequest::Cluster(ClusterRequest::Remove { member }),
        SideRequest::Cluster(ClusterRequest::StepDown),
    ];
    let name = |request: &SideRequest| match request {
        SideRequest::Cluster(one) => format!("cluster.{}", names::cluster_request(one)),
        one => names::side_request(one).to_owned(),
    };
    requests.into_iter().map(|one| (name(&one), one)).collect()
}

fn health() -> Health {
    let report = MemberReport {
        term: 3,
        zxid: Zxid(12),
        digest: "00ff".repeat(8),
        version: "0.1.0".to_owned(),
        clock_offset_ms: -4,
        round_trip_ms: 1,
        log_last_sync_us: 700,
        log_longest_sync_us: 9_000,
        free_bytes: 1 << 40,
        checkpoint_zxid: Some(Zxid(9)),
        certificate_end_s: Some(1_800_000_000),
        note: Some("why".to_owned()),
    };
    let member = |id, report: Option<MemberReport>| MemberHealth {
        id: MemberId(id),
        voter: report.is_some(),
        client: "h:1".to_owned(),
        peer: "h:2".to_owned(),
        role: if report.is_some() { Role::Leader } else { Role::Unreachable },
        report,
    };
    let bare = MemberReport { checkpoint_zxid: None, certificate_end_s: None, note: None, ..report.clone() };
    Health {
        cluster: "6f1c".to_owned(),
        member: MemberId(1),
        leader: Some(MemberId(1)),
        wall_ms: 1_700_000_000_000,
        members: vec![member(1, Some(report)), member(2, Some(bare)), member(3, None)],
    }
}

/// Every kind of message on a side stream.
pub(super) fn side_messages() -> Vec<(String, SideMessage)> {
    let bytes = Bytes::from_static(b"rows");
    let znode = |data| TreeEntry { path: path("/app"), stat: stat(Some(SessionId(8))), data };
    let backup =
        Backup { cluster: "6f1c".to_owned(), zxid: Zxid(12), digest: "00ff".repeat(8), bytes: 4_096, rows: 10 };
    let messages = [
        SideMessage::Working,
        SideMessage::Backup(backup),
        SideMessage::Subtree { zxid: Zxid(12) },
        SideMessage::Znodes(vec![znode(None), znode(Some(bytes.clone()))]),
        SideMessage::Chunk { sum: crate::sum(&bytes), bytes },
        SideMessage::End { bytes: 4_096 },
        SideMessage::Health(Box::new(health())),
        SideMessage::PluginStats(plugins::stats()),
        SideMessage::PluginLog { member: MemberId(1), lines: plugins::log() },
        SideMessage::Done,
        SideMessage::Refused { refusal: Refusal::BadRequest { why: "w".to_owned() } },
        SideMessage::Failed { why: "w".to_owned(), unknown: true },
    ];
    let messages = messages.into_iter().map(|one| (names::side_message(&one).to_owned(), one));
    let declined = cluster_refusals().into_iter();
    let declined =
        declined.map(|one| (format!("declined.{}", names::cluster_refusal(&one)), SideMessage::Declined(one)));
    messages.chain(declined).collect()
}
