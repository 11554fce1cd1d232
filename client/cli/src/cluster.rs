//! `cluster`: who belongs to it, and changes of that.

use std::time::{Duration, Instant};

use conclave_client::{Client, ClusterRefusal, Error, Health, MemberHealth, MemberId, Outcome};
use serde::Serialize;

use crate::args;
use crate::failure::{DONE, Failure, TIMED_OUT, UNKNOWN, While, span};
use crate::out::{Out, Progress, table};
use crate::status::role;

/// How often a new member is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// `cluster list --json`.
#[derive(Serialize)]
struct Listed {
    cluster: String,
    leader: Option<u64>,
    members: Vec<Member>,
    /// Who answered.
    member: u64,
}

#[derive(Serialize)]
struct Member {
    id: u64,
    voter: bool,
    role: &'static str,
    client: String,
    peer: String,
    zxid: Option<u64>,
    /// Transactions behind the newest.
    behind: Option<u64>,
    note: Option<String>,
}

/// `cluster add`, `remove` and `step-down` with `--json`.
#[derive(Serialize)]
struct Changed {
    /// `added`, `removed` or `stepped-down`.
    done: &'static str,
    member: Option<u64>,
    voter: Option<bool>,
}

pub(crate) async fn run(client: &Client, command: &args::Cluster, out: Out) -> Result<u8, Failure> {
    match command {
        args::Cluster::List => {
            let health = client.health().await.reading()?;
            out.show(&listed(health), text)?;
        }
        args::Cluster::Add(add) => self::add(client, add, out).await?,
        args::Cluster::Remove { id } => {
            client.remove(MemberId(*id)).await.map_err(failure)?;
            out.show(&Changed { done: "removed", member: Some(*id), voter: None }, |_| {
                format!("removed member {id}. Stop it, if it runs; its number is not used again")
            })?;
        }
        args::Cluster::StepDown => {
            client.step_down().await.map_err(failure)?;
            out.show(&Changed { done: "stepped-down", member: None, voter: None }, |_| {
                "the leader has handed over".to_owned()
            })?;
        }
    }
    Ok(DONE)
}

/// Adds it as a learner, waits until it has caught up, then gives it its vote. Each step is harmless when it was done.
async fn add(client: &Client, add: &args::Add, out: Out) -> Result<(), Failure> {
    let member = MemberId(add.id);
    client.add_learner(member, &add.client, &add.peer).await.map_err(failure)?;
    let began = Instant::now();
    let mut progress = Progress::new(out);
    if add.learner {
        return out.show(&Changed { done: "added", member: Some(add.id), voter: Some(false) }, |_| {
            format!("added member {member} as a learner")
        });
    }
    if !progress.is_shown() {
        out.note(format_args!("member {member} is a learner; it gets its vote when it has caught up"));
    }
    loop {
        let why = match client.promote(member).await {
            Ok(()) => break,
            Err(Error::Declined(why @ (ClusterRefusal::Behind { .. } | ClusterRefusal::Unreachable { .. }))) => why,
            Err(error) => return Err(failure(error)),
        };
        if began.elapsed() >= add.wait {
            let text = format!(
                "timed out: {why} after {}. It stays a learner, and has no vote. Run the same command again, which goes on \
                 from here.",
                span(add.wait)
            );
            return Err(Failure::Exact { code: "timed-out", exit: TIMED_OUT, outcome: Outcome::Unknown, text });
        }
        progress.show(|| match why {
            ClusterRefusal::Behind { entries, .. } => format!("member {member} catches up: {entries} entries behind"),
            _ => format!("member {member} does not answer yet: start it with `conclave server`"),
        });
        tokio::time::sleep(LOOK_EVERY).await;
    }
    drop(progress);
    out.show(&Changed { done: "added", member: Some(add.id), voter: Some(true) }, |_| {
        format!("added member {member}, which votes now")
    })
}

fn listed(health: Health) -> Listed {
    let zxid = |member: &MemberHealth| member.report.as_ref().map(|report| report.zxid.0);
    let newest = health.members.iter().filter_map(zxid).max();
    let member = |one: MemberHealth| Member {
        id: one.id.0,
        voter: one.voter,
        role: role(one.role),
        zxid: zxid(&one),
        behind: zxid(&one).zip(newest).map(|(zxid, newest)| newest - zxid),
        client: one.client,
        peer: one.peer,
        note: one.report.and_then(|report| report.note),
    };
    Listed {
        cluster: health.cluster,
        leader: health.leader.map(|leader| leader.0),
        members: health.members.into_iter().map(member).collect(),
        member: health.member.0,
    }
}

fn text(listed: &Listed) -> String {
    let leader = listed.leader.map_or_else(|| "no leader".to_owned(), |id| format!("leader {id}"));
    let voters = listed.members.iter().filter(|member| member.voter).count();
    let learners = listed.members.len() - voters;
    let mut text = format!("cluster {} · {leader} · voters {voters}, learners {learners}\n\n", listed.cluster);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let rows: Vec<Vec<String>> = listed
        .members
        .iter()
        .map(|one| {
            vec![
                one.id.to_string(),
                if one.voter { "yes" } else { "no" }.to_owned(),
                one.role.to_owned(),
                one.client.clone(),
                one.peer.clone(),
                number(one.zxid),
                number(one.behind),
                one.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let header = ["MEMBER", "VOTE", "ROLE", "CLIENTS", "MEMBERS", "ZXID", "BEHIND", ""];
    text.push_str(&table(&header, &[true, false, false, false, false, true, true, false], &rows));
    text
}

/// What to say when the cluster is not changed.
fn failure(error: Error) -> Failure {
    match error {
        Error::Declined(refusal) => {
            let hint = hint(&refusal);
            Failure::Refused { code: refusal.code(), text: format!("{refusal}. Nothing was changed. {hint}") }
        }
        Error::Interrupted { why, outcome } => {
            let why = why.trim_end_matches('.');
            let text = format!(
                "outcome unknown: {why}. It may have happened. `conclave cluster list` tells; asking again is harmless."
            );
            Failure::Exact { code: "outcome-unknown", exit: UNKNOWN, outcome, text }
        }
        other => other.writing(),
    }
}

fn hint(refusal: &ClusterRefusal) -> String {
    match refusal {
        ClusterRefusal::MemberExists { member, .. } => {
            format!("To move it, remove member {member} and add it under a new number.")
        }
        ClusterRefusal::NumberUsed { member, next } => format!("Add it as member {next} instead of {member}."),
        ClusterRefusal::AddressTaken { .. } => "Give the new member addresses of its own.".to_owned(),
        ClusterRefusal::BadAddress { .. } => "An address is like one.example:7101.".to_owned(),
        ClusterRefusal::NoMember { .. } => "`conclave cluster list` names the members.".to_owned(),
        ClusterRefusal::NotAMember { .. } => "Stop it, and ask another with --endpoints.".to_owned(),
        ClusterRefusal::Behind { .. } | ClusterRefusal::Unreachable { .. } => {
            "See that it runs and reaches the others, then try again.".to_owned()
        }
        ClusterRefusal::LastVoter { .. } | ClusterRefusal::NoSuccessor => {
            "Add another member first: `conclave cluster add`.".to_owned()
        }
        ClusterRefusal::NoMajority { .. } => {
            "Nothing could be written any more. Bring the others back, or add members first.".to_owned()
        }
        ClusterRefusal::Changing | ClusterRefusal::NoLeader => "Try again in a moment.".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use conclave_client::{MemberReport, Role, Zxid};
    use serde_json::json;

    use super::*;

    fn member(id: u64, role: Role, zxid: Option<u64>) -> MemberHealth {
        let report = zxid.map(|zxid| MemberReport {
            term: 1,
            zxid: Zxid(zxid),
            digest: "ab".into(),
            version: "0.1.0".into(),
            clock_offset_ms: 0,
            round_trip_ms: 0,
            log_last_sync_us: 0,
            log_longest_sync_us: 0,
            free_bytes: 0,
            checkpoint_zxid: None,
            certificate_end_s: None,
            note: (role == Role::Quarantined).then(|| "a row is damaged".into()),
        });
        let voter = role != Role::Learner;
        MemberHealth { id: MemberId(id), voter, client: format!("h{id}:1"), peer: format!("h{id}:2"), role, report }
    }

    fn sample() -> Listed {
        listed(Health {
            cluster: "6f1c".into(),
            member: MemberId(1),
            leader: Some(MemberId(1)),
            wall_ms: 0,
            members: vec![
                member(1, Role::Leader, Some(57)),
                member(2, Role::Quarantined, Some(50)),
                member(4, Role::Learner, Some(17)),
                member(5, Role::Unreachable, None),
            ],
        })
    }

    #[test]
    fn people_see_who_votes_who_is_behind_and_what_is_wrong() {
        assert_eq!(
            text(&sample()),
            "cluster 6f1c · leader 1 · voters 3, learners 1\n\
             \n\
             MEMBER  VOTE  ROLE         CLIENTS  MEMBERS  ZXID  BEHIND\n     \
             1  yes   leader       h1:1     h1:2       57       0\n     \
             2  yes   quarantined  h2:1     h2:2       50       7  a row is damaged\n     \
             4  no    learner      h4:1     h4:2       17      40\n     \
             5  yes   unreachable  h5:1     h5:2        -       -\n"
        );
    }

    #[test]
    fn programs_get_every_field_by_its_name() {
        let value = serde_json::to_value(sample()).unwrap();
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["cluster", "leader", "member", "members"]);
        assert_eq!(
            value["members"][1],
            json!({
                "id": 2, "voter": true, "role": "quarantined", "client": "h2:1", "peer": "h2:2", "zxid": 50,
                "behind": 7, "note": "a row is damaged",
            })
        );
        let changed = Changed { done: "added", member: Some(4), voter: Some(true) };
        assert_eq!(serde_json::to_value(changed).unwrap(), json!({ "done": "added", "member": 4, "voter": true }));
    }

    #[test]
    fn a_change_that_is_declined_says_what_to_do_and_one_without_an_answer_that_it_may_have_happened() {
        let used = ClusterRefusal::NumberUsed { member: MemberId(2), next: MemberId(4) };
        let refused = failure(Error::Declined(used));
        assert_eq!((refused.exit(), refused.code()), (1, "number-used"));
        assert_eq!(
            refused.message(),
            "refused: number-used: 2 may have been a member's number before: the next that surely was not is 4. Nothing \
             was changed. Add it as member 4 instead of 2."
        );
        let lost = failure(Error::Interrupted { why: "gone".into(), outcome: Outcome::Unknown });
        assert_eq!((lost.exit(), lost.outcome()), (4, Outcome::Unknown));
    }
}
