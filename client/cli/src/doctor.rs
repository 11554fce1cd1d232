//! `doctor` of a running cluster: clocks, disks, certificates, versions, digests, who is behind.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conclave_client::{Client, Health, MemberHealth, MemberReport, Role};
use conclave_link::pki;
use serde::Serialize;

use crate::failure::{DONE, Failure, REFUSED, While};
use crate::finding::{self, Finding, Severity, size};
use crate::out::{Out, plural, table};
use crate::stat::utc;
use crate::status::role;

/// So often the members are asked until all are at one zxid, so that their digests can be compared.
const ROUNDS: u32 = 5;
/// Between two of those.
const PAUSE: Duration = Duration::from_millis(200);
/// Clocks further apart than this are worth a look. Nothing breaks: cluster time follows no clock's jumps.
const CLOCK_MS: u64 = 500;
/// A flush of the log that took so long has held writes up.
const SLOW_SYNC_US: u64 = 1_000_000;
/// A disk with less is soon full.
const LOW_BYTES: u64 = 1 << 30;
/// A certificate that ends sooner should be renewed now.
const RENEW_S: u64 = 14 * 24 * 60 * 60;
/// A member that is further behind has a reason.
const BEHIND: u64 = 1_000;
/// A checkpoint that is so many transactions old may be one that can't be made.
const OLD_CHECKPOINT: u64 = 5_000_000;

/// `doctor --json`.
#[derive(Serialize)]
struct Examined {
    cluster: String,
    sound: bool,
    leader: Option<u64>,
    /// Who answered.
    member: u64,
    /// Where digests were compared; none when the members were never at one zxid.
    compared_at: Option<u64>,
    /// The answering member's clock less this machine's.
    clock_offset_ms: i64,
    /// When our own certificate ends.
    own_certificate_end_s: Option<u64>,
    members: Vec<Member>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Member {
    id: u64,
    voter: bool,
    role: &'static str,
    client: String,
    peer: String,
    #[serde(flatten)]
    report: Option<Report>,
}

#[derive(Serialize)]
struct Report {
    term: u64,
    zxid: u64,
    digest: String,
    version: String,
    /// Its clock less this machine's.
    clock_offset_ms: i64,
    round_trip_ms: u64,
    log_last_sync_us: u64,
    log_longest_sync_us: u64,
    free_bytes: u64,
    checkpoint_zxid: Option<u64>,
    certificate_end_s: Option<u64>,
    note: Option<String>,
}

/// What this machine knows by itself.
struct Own {
    now_s: u64,
    /// The answering member's clock less this machine's.
    offset_ms: i64,
    certificate_end_s: Option<u64>,
    version: &'static str,
}

pub(crate) async fn run(client: &Client, out: Out) -> Result<u8, Failure> {
    let mut health = client.health().await.reading()?;
    let mut here_ms = wall_ms();
    for _ in 1..ROUNDS {
        if common_zxid(&health).is_some() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        health = client.health().await.reading()?;
        here_ms = wall_ms();
    }
    let own = Own {
        now_s: here_ms / 1000,
        offset_ms: less(health.wall_ms, here_ms),
        certificate_end_s: own_certificate_end(client),
        version: env!("CARGO_PKG_VERSION"),
    };
    let examined = examine(health, &own);
    out.show(&examined, text)?;
    Ok(if examined.sound { DONE } else { REFUSED })
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn less(one: u64, other: u64) -> i64 {
    i64::try_from(i128::from(one) - i128::from(other)).unwrap_or(i64::MAX)
}

fn own_certificate_end(client: &Client) -> Option<u64> {
    let path = client.options().certificate();
    let pem = std::fs::read_to_string(path).ok()?;
    let end: SystemTime = pki::summary(path, &pem).ok()?.not_after.into();
    end.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// The zxid at which all are that answer.
fn common_zxid(health: &Health) -> Option<u64> {
    let mut zxids = health.members.iter().filter_map(|member| member.report.as_ref()).map(|report| report.zxid.0);
    let first = zxids.next()?;
    zxids.all(|zxid| zxid == first).then_some(first)
}

fn examine(health: Health, own: &Own) -> Examined {
    let findings = judge(&health, own);
    let compared_at = common_zxid(&health);
    let member = |one: MemberHealth| Member {
        id: one.id.0,
        voter: one.voter,
        role: role(one.role),
        client: one.client,
        peer: one.peer,
        report: one.report.map(|report| Report {
            term: report.term,
            zxid: report.zxid.0,
            digest: report.digest,
            version: report.version,
            clock_offset_ms: report.clock_offset_ms.saturating_add(own.offset_ms),
            round_trip_ms: report.round_trip_ms,
            log_last_sync_us: report.log_last_sync_us,
            log_longest_sync_us: report.log_longest_sync_us,
            free_bytes: report.free_bytes,
            checkpoint_zxid: report.checkpoint_zxid.map(|zxid| zxid.0),
            certificate_end_s: report.certificate_end_s,
            note: report.note,
        }),
    };
    Examined {
        cluster: health.cluster,
        sound: finding::is_sound(&findings),
        leader: health.leader.map(|leader| leader.0),
        member: health.member.0,
        compared_at,
        clock_offset_ms: own.offset_ms,
        own_certificate_end_s: own.certificate_end_s,
        members: health.members.into_iter().map(member).collect(),
        findings,
    }
}

/// What is wrong, or soon will be.
fn judge(health: &Health, own: &Own) -> Vec<Finding> {
    use Severity::{Error, Note};
    let mut found = Vec::new();
    if health.leader.is_none() {
        let text =
            "no member leads: nothing can be written. More than half of the voters must run and reach each other.";
        found.push(Finding::new(Error, "no-leader", text));
    }
    let voters = health.members.iter().filter(|member| member.voter).count();
    if voters < 3 {
        let text = format!(
            "there {} {voters} voter{}: none may fail. `conclave cluster add` adds members.",
            if voters == 1 { "is" } else { "are" },
            plural(voters as u64)
        );
        found.push(Finding::new(Note, "few-voters", text));
    }
    let newest = health.members.iter().filter_map(|member| member.report.as_ref()).map(|it| it.zxid.0).max();
    for member in &health.members {
        let of = |severity, code, text: String| Finding::new(severity, code, text).of(member.id.0);
        match member.role {
            Role::Unreachable => {
                let text = format!("it does not answer at {}. See that it runs, and what its log says.", member.peer);
                found.push(of(Error, "unreachable", text));
            }
            Role::Quarantined => {
                let text = "its state is not believed; it makes it anew by itself. Look at its disk and memory.";
                found.push(of(Error, "quarantined", text.to_owned()));
            }
            _ if !member.voter => found.push(of(Note, "learner", "it has no vote".to_owned())),
            _ => {}
        }
        let Some(report) = &member.report else { continue };
        found.extend(report_of(report, newest.unwrap_or(0), own).into_iter().map(|it| it.of(member.id.0)));
    }
    clocks(health, own, &mut found);
    digests(health, &mut found);
    if let Some(finding) = certificate(own.certificate_end_s, own.now_s, "your own certificate") {
        found.push(finding);
    }
    found
}

/// What a member's own words tell.
fn report_of(report: &MemberReport, newest: u64, own: &Own) -> Vec<Finding> {
    use Severity::Warning;
    let mut found = Vec::new();
    let mut warn = |code, text: String| found.push(Finding::new(Warning, code, text));
    let behind = newest.saturating_sub(report.zxid.0);
    if behind > BEHIND {
        warn("behind", format!("it is {behind} transactions behind"));
    }
    if report.log_longest_sync_us >= SLOW_SYNC_US {
        let took = micros(report.log_longest_sync_us);
        warn("slow-disk", format!("a flush of its log took {took}. Writes waited. Give the log a disk of its own."));
    }
    if report.free_bytes < LOW_BYTES {
        let free = size(report.free_bytes);
        warn("disk-space", format!("its disk has {free} free. Make room before growth is refused."));
    }
    let age = report.zxid.0.saturating_sub(report.checkpoint_zxid.map_or(0, |zxid| zxid.0));
    if age > OLD_CHECKPOINT {
        warn("old-checkpoint", format!("its last checkpoint is {age} transactions old. Its log says why."));
    }
    if report.version != own.version {
        let (theirs, ours) = (&report.version, own.version);
        warn("version", format!("it runs version {theirs}, this is {ours}. Members should run one version."));
    }
    if let Some(note) = &report.note {
        warn("note", note.clone());
    }
    found.extend(certificate(report.certificate_end_s, own.now_s, "its certificate"));
    found
}

fn certificate(end_s: Option<u64>, now_s: u64, whose: &str) -> Option<Finding> {
    let end_s = end_s?;
    let day = utc(end_s.saturating_mul(1000));
    let how = "Renew it with `conclave pki renew`; members take it without a restart.";
    if end_s <= now_s {
        return Some(Finding::new(Severity::Error, "certificate", format!("{whose} ended at {day}. {how}")));
    }
    (end_s - now_s < RENEW_S)
        .then(|| Finding::new(Severity::Warning, "certificate", format!("{whose} ends at {day}. {how}")))
}

fn clocks(health: &Health, own: &Own, found: &mut Vec<Finding>) {
    let told: Vec<(u64, i64)> = health
        .members
        .iter()
        .filter_map(|member| {
            let report = member.report.as_ref()?;
            let doubt = i64::try_from(report.round_trip_ms / 2).unwrap_or(i64::MAX);
            // As near to the others as the round trip allows.
            let offset = report.clock_offset_ms;
            Some((member.id.0, offset.signum() * offset.saturating_abs().saturating_sub(doubt).max(0)))
        })
        .collect();
    let first = told.iter().min_by_key(|(_, offset)| *offset);
    let last = told.iter().max_by_key(|(_, offset)| *offset);
    if let (Some((slow, behind)), Some((fast, ahead))) = (first, last)
        && ahead.saturating_sub(*behind).unsigned_abs() > CLOCK_MS
    {
        let apart = ahead.saturating_sub(*behind);
        let text = format!("the clocks of members {slow} and {fast} are {apart} ms apart. Have both keep time (NTP).");
        found.push(Finding::new(Severity::Warning, "clock", text));
    }
    if own.offset_ms.unsigned_abs() > CLOCK_MS {
        let text = format!(
            "this machine's clock and that of member {} are {} ms apart. Have both keep time (NTP).",
            health.member,
            own.offset_ms.unsigned_abs()
        );
        found.push(Finding::new(Severity::Warning, "own-clock", text));
    }
}

/// Equal zxids have equal digests.
fn digests(health: &Health, found: &mut Vec<Finding>) {
    let told: Vec<(u64, &MemberReport)> =
        health.members.iter().filter_map(|member| Some((member.id.0, member.report.as_ref()?))).collect();
    for (n, (one, mine)) in told.iter().enumerate() {
        for (other, theirs) in &told[n + 1..] {
            if mine.zxid == theirs.zxid && mine.digest != theirs.digest {
                let text = format!(
                    "members {one} and {other} differ at zxid {}: {} and {}. The next write decides who is wrong, which \
                     then makes its state anew.",
                    mine.zxid, mine.digest, theirs.digest
                );
                found.push(Finding::new(Severity::Error, "digests", text));
            }
        }
    }
    if told.len() > 1 && common_zxid(health).is_none() {
        let text = "the members were never at one zxid while they were asked: not all digests were compared. Every entry \
                    compares them too.";
        found.push(Finding::new(Severity::Note, "busy", text));
    }
}

fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

fn text(examined: &Examined) -> String {
    let leader = examined.leader.map_or_else(|| "no leader".to_owned(), |id| format!("leader {id}"));
    let mut text = format!("cluster {} · {leader} · asked member {}\n\n", examined.cluster, examined.member);
    let row = |one: &Member| {
        let mut row = vec![one.id.to_string(), one.role.to_owned()];
        match &one.report {
            Some(report) => row.extend([
                report.zxid.to_string(),
                format!("{:+} ms", report.clock_offset_ms),
                micros(report.log_last_sync_us),
                micros(report.log_longest_sync_us),
                size(report.free_bytes),
                report.checkpoint_zxid.map_or_else(|| "none".to_owned(), |zxid| zxid.to_string()),
                report
                    .certificate_end_s
                    .map_or_else(|| "-".to_owned(), |end| utc(end.saturating_mul(1000))[..10].to_owned()),
                report.version.clone(),
            ]),
            None => row.extend(std::iter::repeat_n("-".to_owned(), 8)),
        }
        row
    };
    let rows: Vec<Vec<String>> = examined.members.iter().map(row).collect();
    let header = ["MEMBER", "ROLE", "ZXID", "CLOCK", "FLUSH", "WORST", "FREE", "CHECKPOINT", "CERTIFICATE", "VERSION"];
    let right = [true, false, true, true, true, true, true, true, false, false];
    text.push_str(&table(&header, &right, &rows));
    text.push('\n');
    text.push_str(&finding::text(&examined.findings));
    let count = examined.members.iter().filter(|member| member.report.is_some()).count() as u64;
    if examined.sound {
        let digests = examined.compared_at.map(|zxid| format!(", digests equal at zxid {zxid}")).unwrap_or_default();
        text.push_str(&format!("sound: {count} member{} answered{digests}\n", plural(count)));
    } else {
        let worse = examined.findings.iter().filter(|finding| finding.severity > Severity::Note).count() as u64;
        text.push_str(&format!("{worse} finding{}\n", plural(worse)));
    }
    text
}

#[cfg(test)]
mod tests {
    use conclave_client::{MemberId, Zxid};
    use serde_json::json;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn report() -> MemberReport {
        MemberReport {
            term: 3,
            zxid: Zxid(57),
            digest: "ab".into(),
            version: "0.1.0".into(),
            clock_offset_ms: 0,
            round_trip_ms: 2,
            log_last_sync_us: 700,
            log_longest_sync_us: 9_300,
            free_bytes: 20 << 30,
            checkpoint_zxid: Some(Zxid(40)),
            certificate_end_s: Some(NOW_S + 100 * 86_400),
            note: None,
        }
    }

    fn member(id: u64, role: Role, report: Option<MemberReport>) -> MemberHealth {
        MemberHealth {
            id: MemberId(id),
            voter: true,
            client: format!("h{id}:1"),
            peer: format!("h{id}:2"),
            role,
            report,
        }
    }

    fn healthy() -> Health {
        let members = vec![
            member(1, Role::Leader, Some(report())),
            member(2, Role::Follower, Some(report())),
            member(3, Role::Follower, Some(report())),
        ];
        Health { cluster: "6f1c".into(), member: MemberId(1), leader: Some(MemberId(1)), wall_ms: 0, members }
    }

    fn own() -> Own {
        Own { now_s: NOW_S, offset_ms: 3, certificate_end_s: Some(NOW_S + 90 * 86_400), version: "0.1.0" }
    }

    /// The codes and members of what is found when the third member says this.
    fn found(change: impl FnOnce(&mut MemberReport)) -> Vec<(&'static str, Option<u64>)> {
        let mut health = healthy();
        change(health.members[2].report.as_mut().unwrap());
        judge(&health, &own()).into_iter().map(|finding| (finding.code, finding.member)).collect()
    }

    #[test]
    fn a_sound_cluster_gives_no_finding() {
        let examined = examine(healthy(), &own());
        assert!(examined.sound && examined.findings.is_empty());
        let text = text(&examined);
        assert!(text.ends_with("sound: 3 members answered, digests equal at zxid 57\n"), "{text}");
        assert!(
            text.contains("     1  leader      57  +3 ms  700 µs  9.3 ms  20.0 GiB          40  2027-04-25"),
            "{text}"
        );
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_member_is_found() {
        assert_eq!(found(|it| it.clock_offset_ms = -800), [("clock", None)]);
        assert_eq!(found(|it| (it.clock_offset_ms, it.round_trip_ms) = (-800, 900)), []);
        assert_eq!(found(|it| it.log_longest_sync_us = 2_000_000), [("slow-disk", Some(3))]);
        assert_eq!(found(|it| it.free_bytes = 100 << 20), [("disk-space", Some(3))]);
        assert_eq!(found(|it| it.certificate_end_s = Some(NOW_S + 86_400)), [("certificate", Some(3))]);
        assert_eq!(found(|it| it.version = "0.2.0".into()), [("version", Some(3))]);
        assert_eq!(found(|it| it.note = Some("full".into())), [("note", Some(3))]);
        assert_eq!(found(|it| it.digest = "cd".into()), [("digests", None), ("digests", None)]);
        assert_eq!(found(|it| it.zxid = Zxid(56)), [("busy", None)], "worth a note: they could not be compared");
        assert_eq!(
            found(|it| it.zxid = Zxid(9_000_000)),
            [("behind", Some(1)), ("behind", Some(2)), ("old-checkpoint", Some(3)), ("busy", None)]
        );
    }

    #[test]
    fn members_that_are_gone_quarantined_or_leaderless_are_errors() {
        let mut health = healthy();
        health.leader = None;
        health.members[1] = member(2, Role::Quarantined, Some(report()));
        health.members[2] = member(3, Role::Unreachable, None);
        let examined = examine(health, &own());
        let codes: Vec<_> = examined.findings.iter().map(|finding| (finding.severity, finding.code)).collect();
        let error = Severity::Error;
        assert_eq!(codes, [(error, "no-leader"), (error, "quarantined"), (error, "unreachable")]);
        assert!(!examined.sound && text(&examined).ends_with("3 findings\n"));
    }

    #[test]
    fn ones_own_clock_and_certificate_count_too() {
        let own = Own { offset_ms: -5_000, certificate_end_s: Some(NOW_S - 1), ..own() };
        let codes: Vec<_> = judge(&healthy(), &own).into_iter().map(|it| (it.severity, it.code)).collect();
        assert_eq!(codes, [(Severity::Warning, "own-clock"), (Severity::Error, "certificate")]);
    }

    #[test]
    fn programs_get_every_field_by_its_name() {
        let mut health = healthy();
        health.members[1] = member(2, Role::Unreachable, None);
        let value = serde_json::to_value(examine(health, &own())).unwrap();
        assert_eq!(
            value["members"][0],
            json!({
                "id": 1, "voter": true, "role": "leader", "client": "h1:1", "peer": "h1:2", "term": 3, "zxid": 57,
                "digest": "ab", "version": "0.1.0", "clock_offset_ms": 3, "round_trip_ms": 2, "log_last_sync_us": 700,
                "log_longest_sync_us": 9300, "free_bytes": 21_474_836_480_u64, "checkpoint_zxid": 40,
                "certificate_end_s": NOW_S + 100 * 86_400, "note": null,
            })
        );
        assert_eq!(
            value["members"][1],
            json!({ "id": 2, "voter": true, "role": "unreachable", "client": "h2:1", "peer": "h2:2" })
        );
        assert_eq!(
            value["findings"][0],
            json!({
                "severity": "error", "code": "unreachable", "member": 2,
                "text": "it does not answer at h2:2. See that it runs, and what its log says.",
            })
        );
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "clock_offset_ms",
                "cluster",
                "compared_at",
                "findings",
                "leader",
                "member",
                "members",
                "own_certificate_end_s",
                "sound"
            ]
        );
    }
}
