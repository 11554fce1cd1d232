//! Times as people write them: `500ms`, `10s`, `2m`, `1h`.

use std::time::Duration;

/// A day: nothing here waits longer, and sums of two such times cannot overflow.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a time. A bare number is refused rather than guessed at, 0 apart.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("a time is written like 500ms, 10s, 2m or 1h, and {text:?} is not");
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "" if number == 0.0 => 0.0,
        _ => return Err(wrong()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time <= MOST => Ok(time),
        _ => Err(format!("{text} is more than a day")),
    }
}

/// Reads a number of seconds, with or without `s`.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(seconds) if (0.0..=MOST.as_secs_f64()).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text:?} is not a number of seconds between 0 and a day")),
    }
}

/// Reads the lifetime of a znode, which may be longer: also `30d`. Which are allowed is the cluster's to say.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    const DAY: f64 = 86_400.0;
    let Some(days) = text.strip_suffix('d') else { return parse(text) };
    let days: f64 =
        days.parse().map_err(|_| format!("a time is written like 90s, 10m, 1h or 30d, and {text:?} is not"))?;
    Duration::try_from_secs_f64(days * DAY).map_err(|_| format!("{text} is no time"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(parse("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse("24h").unwrap(), MOST);
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
    }

    #[test]
    fn a_lifetime_may_be_days() {
        assert_eq!(lifetime("30d").unwrap(), Duration::from_secs(30 * 86_400));
        assert_eq!(lifetime("10m").unwrap(), Duration::from_secs(600));
        for bad in ["d", "-1d", "1e300d", "10", "NaNd"] {
            assert!(lifetime(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in ["", "10", "s", "-1s", "1e9s", "10 s", "25h", "1.2.3s", "NaNs", "infs"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "-1", "NaN", "inf", "86401", "x"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
