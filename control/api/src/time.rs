//! Times as Kubernetes writes them: `Time` to the second, `MicroTime` to the microsecond, and ages
//! as `kubectl get` shows them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The current time as a `Time`: `2025-01-31T12:00:00Z`.
pub fn now() -> String {
    format_seconds(Timestamp::now())
}

/// The current time as a `MicroTime`: `2025-01-31T12:00:00.123456Z`.
pub fn now_micro() -> String {
    format_micros(Timestamp::now())
}

/// A moment as a `Time`, its fraction of a second cut off.
pub fn format_seconds(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A moment as a `MicroTime`, what is below a microsecond cut off.
pub fn format_micros(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads a `Time` or a `MicroTime`: RFC 3339 with any offset, and with any fraction of a second.
pub fn parse(text: &str) -> Option<Timestamp> {
    // Go's RFC 3339 wants `T` and an upper-case zone; jiff is more generous.
    let separator = text.as_bytes().get(10)?;
    if *separator != b'T' {
        return None;
    }
    text.parse().ok()
}

/// How long ago a `Time` was, as `kubectl get` shows ages: `5s`, `3m20s`, `2d3h`; `<unknown>` for
/// what is missing or unreadable.
pub fn age(since: Option<&str>, now: Timestamp) -> String {
    match since.and_then(parse) {
        Some(at) => duration::human(now.duration_since(at)),
        None => "<unknown>".to_owned(),
    }
}

/// Durations for people.
pub mod duration {
    use super::SignedDuration;

    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;

    /// A duration with two to three significant figures, as `kubectl get` shows it: `119s`, `9m59s`,
    /// `179m`, `7h59m`, `47h`, `7d23h`, `729d`, `2y3d`, `8y`. A little below zero (clocks differ) is
    /// `0s`, further below is `<invalid>`.
    pub fn human(duration: SignedDuration) -> String {
        let seconds = duration.as_secs();
        if seconds < -1 {
            return "<invalid>".to_owned();
        }
        let two = |large: i64, unit: &str, small: i64, small_unit: &str| {
            if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
        };
        match seconds.max(0) {
            s if s < 2 * MINUTE => format!("{s}s"),
            s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
            s if s < 3 * HOUR => format!("{}m", s / MINUTE),
            s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
            s if s < 2 * DAY => format!("{}h", s / HOUR),
            s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
            s if s < 2 * YEAR => format!("{}d", s / DAY),
            s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
            s => format!("{}y", s / YEAR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seconds_and_micro_times_have_microseconds() {
        let at: Timestamp = "2025-01-31T12:00:00.123456789Z".parse().unwrap();
        assert_eq!(format_seconds(at), "2025-01-31T12:00:00Z");
        assert_eq!(format_micros(at), "2025-01-31T12:00:00.123456Z");
        let whole: Timestamp = "2025-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(format_micros(whole), "2025-01-31T12:00:00.000000Z");
    }

    #[test]
    fn times_with_offsets_and_fractions_are_read() {
        let expected: Timestamp = "2025-01-31T12:00:00Z".parse().unwrap();
        for text in ["2025-01-31T12:00:00Z", "2025-01-31T13:00:00+01:00", "2025-01-31T12:00:00.000000Z"] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "2025-01-31", "2025-01-31 12:00:00Z", "2025-01-31T12:00:00"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&now()).map(format_seconds).unwrap().len(), 20);
    }

    #[test]
    fn durations_read_as_kubectl_shows_them() {
        let minute = 60;
        let hour = 3600;
        let day = 24 * hour;
        let year = 365 * day;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (10 * minute - 1, "9m59s"),
            (10 * minute, "10m"),
            (3 * hour - 1, "179m"),
            (3 * hour, "3h"),
            (4 * hour + 59, "4h"),
            (8 * hour - 1, "7h59m"),
            (8 * hour, "8h"),
            (2 * day - 1, "47h"),
            (2 * day, "2d"),
            (2 * day + 3 * hour, "2d3h"),
            (8 * day - 1, "7d23h"),
            (8 * day, "8d"),
            (2 * year - 1, "729d"),
            (2 * year + 3 * day, "2y3d"),
            (8 * year - 1, "7y364d"),
            (8 * year, "8y"),
        ] {
            assert_eq!(duration::human(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn ages_of_unknown_beginnings_are_unknown() {
        let now = parse("2025-01-31T12:00:00Z").unwrap();
        assert_eq!(age(Some("2025-01-31T11:00:00Z"), now), "60m");
        assert_eq!(age(None, now), "<unknown>");
        assert_eq!(age(Some("x"), now), "<unknown>");
    }
}
