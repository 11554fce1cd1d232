//! `conclave pki show`: what certificates and authorities say, for people and as JSON.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use conclave_link::Plane;
use conclave_link::pki::{self, Authority, Summary, TLS_CRT};

use crate::out::{self, Failure, Outcome};
use crate::pki::failure;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Runs the command.
pub(crate) fn run(path: &Path, json: bool) -> Outcome {
    if path.join("client-ca.key").exists() || path.join("peer-ca.key").exists() {
        return authorities(path, json);
    }
    let summary = read(path)?;
    if json {
        out::line(self::json(&summary));
        return Ok(());
    }
    out::line(format!("principal  {}", summary.principal));
    out::line(format!("uri        {}", summary.principal.uri()));
    out::line(format!("serial     {}", summary.serial));
    out::line(format!("valid      {} to {}", date(summary.not_before), date(summary.not_after)));
    out::line(format!("           {}", remaining(&summary)));
    Ok(())
}

/// What the certificate at `path`, or in the directory `path`, says.
pub(crate) fn read(path: &Path) -> Outcome<Summary> {
    let path = if path.is_dir() { path.join(TLS_CRT) } else { path.to_owned() };
    let pem = std::fs::read_to_string(&path).map_err(|error| Failure::broken(path.display(), error))?;
    pki::summary(&path, &pem).map_err(failure)
}

/// One line about a certificate.
pub(crate) fn brief(summary: &Summary) -> String {
    let principal = &summary.principal;
    format!(
        "{principal} of {}  serial {}  until {} ({})",
        principal.domain(),
        summary.serial,
        date(summary.not_after),
        remaining(summary)
    )
}

/// A certificate as JSON; times in seconds since 1970 and as dates.
pub(crate) fn json(summary: &Summary) -> serde_json::Value {
    serde_json::json!({
        "principal": summary.principal.to_string(),
        "uri": summary.principal.uri(),
        "serial": summary.serial.to_string(),
        "not_before": date(summary.not_before),
        "not_after": date(summary.not_after),
        "not_after_s": seconds(summary.not_after),
        "days_left": days_left(summary),
        "expired": has_expired(summary),
    })
}

/// The certificate is no longer valid.
pub(crate) fn has_expired(summary: &Summary) -> bool {
    days_left(summary) <= 0
}

/// Days until the certificate expires, begun ones counted; 0 or negative when it has.
fn days_left(summary: &Summary) -> i64 {
    days_between(seconds(SystemTime::now()), seconds(summary.not_after))
}

fn days_between(now: i64, until: i64) -> i64 {
    // Rounded up, so that what was issued for a year a moment ago has a year.
    -(now - until).div_euclid(DAY_SECONDS)
}

/// The day of a moment, in UTC: `2027-11-22`.
pub(crate) fn date(at: impl Into<SystemTime>) -> String {
    let (year, month, day) = civil(seconds(at).div_euclid(DAY_SECONDS));
    format!("{year:04}-{month:02}-{day:02}")
}

fn remaining(summary: &Summary) -> String {
    let days = days_left(summary);
    if days <= 0 { format!("expired {} days ago", -days) } else { format!("{days} days left") }
}

/// Seconds since 1970.
fn seconds(at: impl Into<SystemTime>) -> i64 {
    let clamp = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match at.into().duration_since(UNIX_EPOCH) {
        Ok(after) => clamp(after),
        Err(before) => -clamp(before.duration()),
    }
}

/// Year, month and day of a number of days since 1970-01-01: Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>), which counts from March so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn authorities(dir: &Path, json: bool) -> Outcome {
    let mut all = Vec::new();
    for (plane, issues_to) in [(Plane::Client, "clients"), (Plane::Peer, "members")] {
        let authority = Authority::load(dir, plane).map_err(failure)?;
        let revoked: Vec<String> = authority.revoked().map_err(failure)?.iter().map(ToString::to_string).collect();
        all.push((issues_to, authority.domain().to_string(), revoked));
    }
    if json {
        let all: Vec<_> = all
            .into_iter()
            .map(|(to, domain, revoked)| {
                serde_json::json!({ "issues_to": to, "trust_domain": domain, "revoked": revoked })
            })
            .collect();
        out::line(serde_json::json!({ "authorities": all }));
        return Ok(());
    }
    for (to, domain, revoked) in all {
        out::line(format!("authority for {to} of {domain}  {} revoked", revoked.len()));
        for serial in revoked {
            out::line(format!("  {serial}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_that_has_begun_is_left_and_the_moment_of_the_end_is_not() {
        let day = DAY_SECONDS;
        for (until, left) in [(2 * day, 2), (day + 1, 2), (day, 1), (1, 1), (0, 0), (-1, 0), (-day, -1), (-day - 1, -1)]
        {
            assert_eq!(days_between(0, until), left, "{until}");
        }
    }

    #[test]
    fn days_have_their_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), expected, "{days}");
        }
    }
}
