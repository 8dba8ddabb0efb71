//! Times in objects: RFC 3339, with Go's complaints.

use crate::schema::Kind;
use crate::time;

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// What Go's layout has, in order, up to the seconds: an element, and how many digits it takes
/// (none for signs).
const ELEMENTS: &[(&str, usize)] = &[
    ("2006", 4),
    ("-", 0),
    ("01", 2),
    ("-", 0),
    ("02", 2),
    ("T", 0),
    ("15", 2),
    (":", 0),
    ("04", 2),
    (":", 0),
    ("05", 2),
];

/// A time in the form that Kubernetes stores: UTC, to the second or the microsecond.
pub(super) fn canonical(kind: Kind, text: &str) -> Result<String, String> {
    match time::parse(text) {
        Some(at) if kind == Kind::MicroTime => Ok(time::format_micros(at)),
        Some(at) => Ok(time::format_seconds(at)),
        None => Err(complaint(if kind == Kind::MicroTime { MICRO_LAYOUT } else { LAYOUT }, text)),
    }
}

fn complaint(layout: &str, text: &str) -> String {
    let mut rest = text;
    for (element, digits) in ELEMENTS {
        let taken = if *digits == 0 {
            rest.strip_prefix(element)
        } else {
            rest.split_at_checked(*digits)
                .filter(|(head, _)| head.bytes().all(|byte| byte.is_ascii_digit()))
                .map(|(_, tail)| tail)
        };
        match taken {
            Some(tail) => rest = tail,
            None => {
                return format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}");
            }
        }
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    if !is_zone(rest) {
        return format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as \"Z07:00\"");
    }
    format!("parsing time {text:?}: {} out of range", part_out_of_range(text))
}

fn is_zone(text: &str) -> bool {
    let [sign, h1, h2, b':', m1, m2] = text.as_bytes() else { return text == "Z" };
    matches!(sign, b'+' | b'-') && [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit())
}

/// Which part of a well-formed time is too large or too small.
fn part_out_of_range(text: &str) -> &'static str {
    let part =
        |start: usize| text.get(start..start + 2).and_then(|part| part.parse::<u8>().ok()).unwrap_or(0);
    let (month, hour, minute, second) = (part(5), part(11), part(14), part(17));
    match () {
        () if !(1..=12).contains(&month) => "month",
        () if hour > 23 => "hour",
        () if minute > 59 => "minute",
        () if second > 59 => "second",
        () => "day",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_utc() {
        let cases = [
            (Kind::Time, "2025-01-31T13:00:00.9+01:00", "2025-01-31T12:00:00Z"),
            (Kind::MicroTime, "2025-01-31T12:00:00.5Z", "2025-01-31T12:00:00.500000Z"),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(canonical(kind, text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn complaints_say_what_go_says() {
        let cases = [
            ("abc", r#"parsing time "abc" as "2006-01-02T15:04:05Z07:00": cannot parse "abc" as "2006""#),
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            (
                "2025-01-31 12:00:00Z",
                r#"parsing time "2025-01-31 12:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 12:00:00Z" as "T""#,
            ),
            (
                "2025-01-31T12:00:00",
                r#"parsing time "2025-01-31T12:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#,
            ),
            ("2025-13-31T12:00:00Z", r#"parsing time "2025-13-31T12:00:00Z": month out of range"#),
            ("2025-02-30T12:00:00Z", r#"parsing time "2025-02-30T12:00:00Z": day out of range"#),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(Kind::Time, text).unwrap_err(), expected);
        }
    }
}
