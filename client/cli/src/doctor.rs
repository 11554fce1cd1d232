//! `doctor` of a running cluster: clocks, disks, certificates, versions, digests, who is behind.

mod judge;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conclave_client::{Client, Health, MemberHealth};
use conclave_link::pki;
use serde::Serialize;

use crate::failure::{DONE, Failure, REFUSED, While};
use crate::finding::{self, Finding, Severity, size};
use crate::out::{Out, plural, table};
use crate::stat::utc;
use crate::status::role;
use judge::{Own, common_zxid, judge};

/// So often the members are asked until all are at one zxid, so that their digests can be compared.
const ROUNDS: u32 = 5;
/// Between two of those.
const PAUSE: Duration = Duration::from_millis(200);

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
