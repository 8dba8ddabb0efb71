//! Backups by schedule: when, how many are kept, and the task that makes them.

mod plan;
mod retain;
mod runner;

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

pub use retain::{Retention, retain};
pub use runner::{Clock, KeySource, Runner};

use crate::BackupError;

/// So many occurrences tell how close together they can be.
const LOOKED_AT: usize = 64;

/// Times to do something at: five cron fields (minute, hour, day of month, month, day of week),
/// or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. In UTC, whatever the machine's time
/// zone is: there no time is skipped or comes twice.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    text: String,
    closest: Duration,
}

impl Schedule {
    /// The first of the times that lies after `time`.
    pub fn next(&self, time: Timestamp) -> Option<Timestamp> {
        next(&self.cron, TimeZone::UTC.to_datetime(time))
            .and_then(|found| TimeZone::UTC.to_timestamp(found).ok())
    }

    /// The shortest time between two of the times, as far as one looks ahead.
    pub(crate) fn closest(&self) -> Duration {
        self.closest
    }
}

fn next(cron: &Cron, time: DateTime) -> Option<DateTime> {
    cron.find_next_occurrence(&time, false).ok()
}

impl FromStr for Schedule {
    type Err = BackupError;

    fn from_str(text: &str) -> Result<Self, BackupError> {
        let refuse = |why: String| {
            let why = why.trim_end_matches('.');
            BackupError::setting(format!("\"{text}\" is not a schedule: {why}"))
        };
        let trimmed = text.trim();
        if let Some(nickname) = trimmed.strip_prefix('@')
            && !["hourly", "daily", "weekly", "monthly", "yearly", "annually"]
                .contains(&nickname.to_ascii_lowercase().as_str())
        {
            return Err(refuse(
                "of the names there are @hourly, @daily, @weekly, @monthly and @yearly".into(),
            ));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(trimmed).map_err(|error| refuse(error.to_string()))?;
        // Any fixed beginning will do; a leap year is near.
        let begin = jiff::civil::date(2027, 1, 1).at(0, 0, 0, 0);
        let times: Vec<_> =
            std::iter::successors(next(&cron, begin), |time| next(&cron, *time)).take(LOOKED_AT).collect();
        if times.is_empty() {
            return Err(refuse("such a time never comes".into()));
        }
        let gaps = times.iter().zip(times.iter().skip(1));
        let closest = gaps.filter_map(|(a, b)| Duration::try_from(b.duration_since(*a)).ok()).min();
        Ok(Self { cron, text: trimmed.to_owned(), closest: closest.unwrap_or(Duration::MAX) })
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_time_comes_after_the_one_given() {
        let table = [
            ("@daily", "2026-11-21T15:42:00Z", "2026-11-22T00:00:00Z"),
            ("@hourly", "2026-11-21T15:00:00Z", "2026-11-21T16:00:00Z"),
            ("0 */12 * * *", "2026-11-21T11:59:59Z", "2026-11-21T12:00:00Z"),
            ("0 */12 * * *", "2026-11-21T12:00:00Z", "2026-11-22T00:00:00Z"),
            ("*/5 * * * *", "2026-11-21T15:42:00.5Z", "2026-11-21T15:45:00Z"),
            ("30 2 * * mon", "2026-11-21T15:42:00Z", "2026-11-23T02:30:00Z"),
            ("0 0 29 2 *", "2026-11-21T15:42:00Z", "2028-02-29T00:00:00Z"),
            ("@weekly", "2026-11-21T15:42:00Z", "2026-11-22T00:00:00Z"),
            ("@yearly", "2026-11-21T15:42:00Z", "2027-01-01T00:00:00Z"),
        ];
        for (text, after, expected) in table {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.next(time(after)), Some(time(expected)), "{text} after {after}");
        }
    }

    #[test]
    fn what_is_not_a_schedule_is_refused_on_one_line() {
        for text in [
            "",
            "daily",
            "@reboot",
            "@every 1h",
            "* * * *",
            "61 * * * *",
            "0 0 30 2 *",
            "0 0 0 * * *",
            "a b c d e",
        ] {
            let refusal = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("\"{text}\" is not a schedule: ")), "{refusal}");
            assert!(!refusal.contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn the_closest_times_are_found_where_they_are_irregular() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        for (text, closest) in [("@daily", hours(24)), ("0 1,2 * * *", hours(1)), ("0 */12 * * *", hours(12))]
        {
            assert_eq!(text.parse::<Schedule>().unwrap().closest(), closest, "{text}");
        }
    }
}
