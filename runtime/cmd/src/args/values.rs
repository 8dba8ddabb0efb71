//! How values on the command line are read.

use std::time::Duration;

/// Permissions of a file.
pub(super) fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is not an octal mode such as 600")),
    }
}

/// What servers wait for each other.
pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(number @ 10..=60_000) => Ok(Duration::from_millis(number)),
        _ => Err(format!("{text:?} is not a number of milliseconds from 10 to 60000")),
    }
}

/// A duration as people write it: `90s`, `30m`, `24h`, `7d`, or seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30m, 24h or 7d");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A duration after which something is done again.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(24 * 365);
    match duration(text)? {
        interval if (Duration::from_secs(1)..=LONGEST).contains(&interval) => Ok(interval),
        _ => Err(format!("{text:?} is not between 1s and 365d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("0", 0), ("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "h", "1w", "1.5h", "-1h", "99999999999999999999h", "10000000000000000d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(interval("1m"), Ok(Duration::from_secs(60)));
        assert!(interval("0m").is_err() && interval("366d").is_err());
    }
}
