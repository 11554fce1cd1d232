//! Stats and times for people.

use std::fmt::Write;
use std::time::Duration;

use conclave_client::Stat;

use crate::failure::span;

/// A stat, one fact a line.
pub(crate) fn text(path: &str, stat: &Stat) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{what:<9} {value}");
    };
    line("path", path.to_owned());
    line("version", stat.version.to_string());
    line("bytes", stat.data_bytes.to_string());
    line("created", format!("zxid {}  {}", stat.created, utc(stat.created_ms)));
    line("modified", format!("zxid {}  {}", stat.modified, utc(stat.modified_ms)));
    let children = format!("{}  version {}  zxid {}", stat.children, stat.children_version, stat.children_modified);
    line("children", children);
    line("acl", format!("version {}", stat.acl_version));
    line("kind", kind(stat));
    text
}

/// What kind of znode it is, in full.
fn kind(stat: &Stat) -> String {
    let mut kind = match stat.owner {
        Some(session) => format!("ephemeral, of session {session}"),
        None if stat.container => "container".to_owned(),
        None => "persistent".to_owned(),
    };
    if let Some(ttl_ms) = stat.ttl_ms {
        kind.push_str(&format!(", goes {} after its last change", span(Duration::from_millis(ttl_ms))));
    }
    kind
}

/// The same in a word.
pub(crate) fn word(stat: &Stat) -> String {
    let word = match stat {
        Stat { owner: Some(_), .. } => "ephemeral",
        Stat { container: true, .. } => "container",
        _ => "persistent",
    };
    let ttl = if stat.ttl_ms.is_some() { ", ttl" } else { "" };
    format!("{word}{ttl}")
}

/// Milliseconds since 1970 as RFC 3339 in UTC, to the second.
pub(crate) fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date of a day since 1970: "civil_from_days" of Howard Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms". Years begin in March there, so that the leap day comes last.
const fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year_of_era + era * 400 + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use conclave_client::{SessionId, Zxid};

    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399_999), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_200_000), "2024-03-01T00:00:00Z");
        assert_eq!(utc(1_798_761_599_000), "2026-12-31T23:59:59Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_stat_is_one_fact_a_line() {
        let stat = Stat {
            created: Zxid(12),
            modified: Zxid(14),
            version: 1,
            data_bytes: 2,
            owner: Some(SessionId(9)),
            ..Stat::default()
        };
        assert_eq!(
            text("/app", &stat),
            "path      /app\n\
             version   1\n\
             bytes     2\n\
             created   zxid 12  1970-01-01T00:00:00Z\n\
             modified  zxid 14  1970-01-01T00:00:00Z\n\
             children  0  version 0  zxid 0\n\
             acl       version 0\n\
             kind      ephemeral, of session 9\n"
        );
    }

    #[test]
    fn a_kind_is_a_word_and_what_goes_with_it() {
        let ttl = Stat { ttl_ms: Some(90_000), ..Stat::default() };
        let container = Stat { container: true, ..Stat::default() };
        assert_eq!(
            (kind(&ttl), word(&ttl)),
            ("persistent, goes 90 s after its last change".into(), "persistent, ttl".into())
        );
        assert_eq!((kind(&container), word(&container)), ("container".into(), "container".into()));
        assert_eq!(word(&Stat::default()), "persistent");
    }
}
