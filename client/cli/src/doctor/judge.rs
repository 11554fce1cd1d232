//! What is wrong with a cluster, or soon will be: a decision on what its members said.

use conclave_client::{Health, MemberReport, Role};

use super::micros;
use crate::finding::{Finding, Severity, size};
use crate::out::plural;
use crate::stat::utc;

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

/// What this machine knows by itself.
pub(super) struct Own {
    pub(super) now_s: u64,
    /// The answering member's clock less this machine's.
    pub(super) offset_ms: i64,
    pub(super) certificate_end_s: Option<u64>,
    pub(super) version: &'static str,
}

/// What is wrong, or soon will be.
pub(super) fn judge(health: &Health, own: &Own) -> Vec<Finding> {
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

/// The zxid at which all are that answer.
pub(super) fn common_zxid(health: &Health) -> Option<u64> {
    let mut zxids = health.members.iter().filter_map(|member| member.report.as_ref()).map(|report| report.zxid.0);
    let first = zxids.next()?;
    zxids.all(|zxid| zxid == first).then_some(first)
}
