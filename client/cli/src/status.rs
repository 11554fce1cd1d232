//! `status`: the cluster, as the member sees it that answered.

use conclave_client::{Client, MemberId, MemberStatus, Role, Status, Zxid};
use serde::Serialize;

use crate::failure::{DONE, Failure, While};
use crate::out::{Out, table};

/// `status --json`.
#[derive(Serialize)]
struct Shown {
    cluster: String,
    leader: Option<MemberId>,
    zxid: Zxid,
    members: Vec<MemberStatus>,
    /// Who answered.
    member: MemberId,
    profile: Profile,
}

/// How the cluster was found, and who we are to it.
#[derive(Serialize)]
struct Profile {
    /// Where the options come from.
    source: String,
    /// The variables that came before it.
    overrides: Vec<&'static str>,
    /// The address that is connected to.
    endpoint: Option<String>,
    /// Our principal.
    principal: Option<String>,
}

pub(crate) async fn run(client: &Client, out: Out) -> Result<u8, Failure> {
    let Status { cluster, leader, zxid, member, members } = client.status().await.reading()?;
    let options = client.options();
    let peer = client.peer();
    let profile = Profile {
        source: options.source().to_string(),
        overrides: options.overrides().to_vec(),
        endpoint: peer.as_ref().map(|peer| peer.endpoint.clone()),
        principal: peer.map(|peer| peer.principal),
    };
    out.show(&Shown { cluster, leader, zxid, members, member, profile }, text)?;
    Ok(DONE)
}

fn text(status: &Shown) -> String {
    let leader = status.leader.map_or_else(|| "no leader".to_owned(), |id| format!("leader {id}"));
    let mut text = format!("cluster {} · {leader} · zxid {}\n", status.cluster, status.zxid);
    let profile = &status.profile;
    text.push_str(&format!("profile {}", profile.source));
    if !profile.overrides.is_empty() {
        text.push_str(&format!(" with {}", profile.overrides.join(", ")));
    }
    if let (Some(endpoint), Some(principal)) = (&profile.endpoint, &profile.principal) {
        text.push_str(&format!(" · connected to member {} at {endpoint} as {principal}", status.member));
    }
    text.push_str("\n\n");
    let newest = status.members.iter().filter_map(|member| member.zxid).max();
    let row = |member: &MemberStatus| {
        let none = || "-".to_owned();
        let behind = match (member.zxid, newest) {
            (Some(zxid), Some(newest)) => newest.0.saturating_sub(zxid.0).to_string(),
            _ => none(),
        };
        vec![
            member.id.to_string(),
            role(member.role).to_owned(),
            member.address.clone(),
            member.zxid.map_or_else(none, |zxid| zxid.to_string()),
            behind,
            member.digest.clone().unwrap_or_else(none),
        ]
    };
    let rows: Vec<Vec<String>> = status.members.iter().map(row).collect();
    let header = ["MEMBER", "ROLE", "ADDRESS", "ZXID", "BEHIND", "DIGEST"];
    text.push_str(&table(&header, &[true, false, false, true, true, false], &rows));
    if let Some((one, other)) = differing(&status.members) {
        text.push_str(&format!(
            "\nmembers {one} and {other} differ: same zxid, other digest. One of them is damaged.\n"
        ));
    }
    text
}

pub(crate) const fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Learner => "learner",
        Role::Candidate => "candidate",
        Role::Quarantined => "quarantined",
        Role::Unreachable => "unreachable",
    }
}

/// Two members that are at one zxid and disagree about what is there.
fn differing(members: &[MemberStatus]) -> Option<(MemberId, MemberId)> {
    let known = |member: &MemberStatus| member.zxid.is_some() && member.digest.is_some();
    members.iter().enumerate().filter(|(_, one)| known(one)).find_map(|(n, one)| {
        let other = members[n + 1..]
            .iter()
            .find(|other| known(other) && other.zxid == one.zxid && other.digest != one.digest)?;
        Some((one.id, other.id))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(id: u64, role: Role, zxid: Option<u64>, digest: Option<&str>) -> MemberStatus {
        MemberStatus {
            id: MemberId(id),
            role,
            address: format!("127.0.0.1:710{id}"),
            zxid: zxid.map(Zxid),
            digest: digest.map(Into::into),
        }
    }

    fn sample() -> Shown {
        Shown {
            cluster: "6f1c".into(),
            leader: Some(MemberId(2)),
            zxid: Zxid(57),
            members: vec![
                member(1, Role::Follower, Some(17), Some("aa")),
                member(2, Role::Leader, Some(57), Some("bb")),
                member(3, Role::Unreachable, None, None),
            ],
            member: MemberId(2),
            profile: Profile {
                source: ".conclave (found upward)".into(),
                overrides: vec![],
                endpoint: Some("127.0.0.1:7102".into()),
                principal: Some("client/dev".into()),
            },
        }
    }

    #[test]
    fn people_see_who_leads_who_is_behind_and_which_profile() {
        assert_eq!(
            text(&sample()),
            "cluster 6f1c · leader 2 · zxid 57\n\
             profile .conclave (found upward) · connected to member 2 at 127.0.0.1:7102 as client/dev\n\
             \n\
             MEMBER  ROLE         ADDRESS         ZXID  BEHIND  DIGEST\n     \
             1  follower     127.0.0.1:7101    17      40  aa\n     \
             2  leader       127.0.0.1:7102    57       0  bb\n     \
             3  unreachable  127.0.0.1:7103     -       -  -\n"
        );
    }

    #[test]
    fn programs_get_every_field_by_its_name() {
        assert_eq!(
            serde_json::to_value(sample()).unwrap(),
            json!({
                "cluster": "6f1c",
                "leader": 2,
                "zxid": 57,
                "members": [
                    { "id": 1, "role": "follower", "address": "127.0.0.1:7101", "zxid": 17, "digest": "aa" },
                    { "id": 2, "role": "leader", "address": "127.0.0.1:7102", "zxid": 57, "digest": "bb" },
                    { "id": 3, "role": "unreachable", "address": "127.0.0.1:7103", "zxid": null, "digest": null },
                ],
                "member": 2,
                "profile": {
                    "source": ".conclave (found upward)",
                    "overrides": [],
                    "endpoint": "127.0.0.1:7102",
                    "principal": "client/dev",
                },
            })
        );
    }

    #[test]
    fn members_that_differ_at_one_zxid_are_named() {
        let mut status = sample();
        assert_eq!(differing(&status.members), None);
        status.members[0].zxid = Some(Zxid(57));
        assert_eq!(differing(&status.members), Some((MemberId(1), MemberId(2))));
        assert!(text(&status).contains("members 1 and 2 differ"));
    }
}
