//! When the next backup is due: pure, with both clocks as data.

use std::time::Duration;

use jiff::Timestamp;

use super::Schedule;

/// The wall clock is looked at this often: it may be set while nobody looks.
const LOOK: Duration = Duration::from_secs(60);
/// After the first failure; doubled after each further one.
const BACK_OFF: Duration = Duration::from_secs(60);
const BACK_OFF_MOST: Duration = Duration::from_secs(3_600);

/// What has been done so far. `Duration`s are readings of the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The times of the schedule up to this one are done with; unknown until somebody looked at
    /// what backups there are.
    pub(super) done_to: Option<Timestamp>,
    /// When the last attempt failed, and how many did in a row.
    failed: Option<(Duration, u32)>,
    succeeded: Option<Duration>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look at what backups there are.
    Look,
    /// Make one.
    Run,
    /// Ask again after that time.
    Wait(Duration),
}

impl Progress {
    pub(super) fn fail(&mut self, at: Duration) {
        let failures = self.failed.map_or(0, |(_, failures)| failures);
        self.failed = Some((at, failures.saturating_add(1)));
    }

    /// A backup was begun at `time` and is complete.
    pub(super) fn succeed(&mut self, time: Timestamp, at: Duration) {
        *self = Self { done_to: Some(time), failed: None, succeeded: Some(at) };
    }

    /// The newest backup that there is; none means that the first one is made at the next time.
    pub(super) fn looked(&mut self, newest: Option<Timestamp>, now: Timestamp) {
        self.done_to = Some(newest.unwrap_or(now));
        self.failed = None;
    }

    /// What to do now. Times that were missed are made up for by one backup. A clock that was set
    /// back does not keep backups waiting until it gets to where it was; one that jumps to and fro
    /// gives no more backups than twice what the schedule could.
    pub(super) fn step(&mut self, schedule: &Schedule, now: Timestamp, at: Duration) -> Step {
        let blocked = self.blocked_until(schedule).saturating_sub(at);
        let wait = |time: Duration| Step::Wait(time.min(LOOK));
        let Some(done_to) = self.done_to else {
            return if blocked.is_zero() { Step::Look } else { wait(blocked) };
        };
        let done_to = done_to.min(now);
        self.done_to = Some(done_to);
        let Some(due) = schedule.next(done_to) else { return Step::Wait(LOOK) };
        // Rounded up, so that what is awaited has come.
        match Duration::try_from(due.duration_since(now)) {
            Ok(left) if !left.is_zero() => wait(left + Duration::from_millis(1)),
            _ if blocked.is_zero() => Step::Run,
            _ => wait(blocked),
        }
    }

    fn blocked_until(&self, schedule: &Schedule) -> Duration {
        let after_failure = self.failed.map(|(at, failures)| {
            let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
            at + BACK_OFF.saturating_mul(doubled).min(BACK_OFF_MOST)
        });
        let after_success = self.succeeded.map(|at| at.saturating_add(schedule.closest() / 2));
        after_failure.max(after_success).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn daily() -> Schedule {
        "@daily".parse().unwrap()
    }

    #[test]
    fn a_time_that_was_missed_is_made_up_for_once() {
        let mut progress = Progress::default();
        let now = time("2026-11-21T15:00:00Z");
        assert_eq!(progress.step(&daily(), now, seconds(5)), Step::Look);
        progress.looked(Some(time("2026-11-01T00:00:01Z")), now);
        assert_eq!(progress.step(&daily(), now, seconds(5)), Step::Run, "twenty were missed");
        progress.succeed(now, seconds(6));
        assert_eq!(progress.step(&daily(), now, seconds(7)), Step::Wait(LOOK));
    }

    #[test]
    fn with_no_backup_yet_the_first_is_made_at_the_next_time() {
        let mut progress = Progress::default();
        progress.looked(None, time("2026-11-21T23:59:50Z"));
        let step = progress.step(&daily(), time("2026-11-21T23:59:50Z"), seconds(0));
        assert_eq!(step, Step::Wait(seconds(10) + Duration::from_millis(1)));
        assert_eq!(progress.step(&daily(), time("2026-11-22T00:00:00.001Z"), seconds(10)), Step::Run);
    }

    #[test]
    fn failures_are_tried_again_ever_more_slowly_until_one_succeeds() {
        let mut progress = Progress::default();
        let now = time("2026-11-22T00:00:01Z");
        progress.looked(Some(time("2026-11-21T00:00:00Z")), now);
        let mut at = seconds(0);
        for expected in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            assert_eq!(progress.step(&daily(), now, at), Step::Run);
            progress.fail(at);
            assert_eq!(progress.step(&daily(), now, at), Step::Wait(LOOK));
            at += seconds(expected);
            let early = at - Duration::from_millis(1);
            assert_eq!(progress.step(&daily(), now, early), Step::Wait(Duration::from_millis(1)));
        }
        progress.succeed(now, at);
        assert_eq!(progress.failed, None);
        let mut unknown = Progress::default();
        unknown.fail(seconds(0));
        assert_eq!(unknown.step(&daily(), now, seconds(1)), Step::Wait(seconds(59)));
        assert_eq!(unknown.step(&daily(), now, seconds(60)), Step::Look);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_backups() {
        let mut progress = Progress::default();
        progress.looked(Some(time("2099-01-01T00:00:00Z")), time("2026-11-21T12:00:00Z"));
        assert_eq!(progress.step(&daily(), time("2026-11-21T12:00:00Z"), seconds(0)), Step::Wait(LOOK));
        assert_eq!(progress.step(&daily(), time("2026-11-22T00:00:00Z"), seconds(1)), Step::Run);
    }

    #[test]
    fn a_clock_that_jumps_to_and_fro_makes_no_storm() {
        let mut progress = Progress::default();
        progress.looked(None, time("2026-11-21T12:00:00Z"));
        let mut runs = 0;
        // For a day the clock jumps between two years, each minute.
        for minute in 0..24 * 60 {
            let at = seconds(minute * 60);
            let now = time(if minute % 2 == 0 { "1970-01-01T00:00:30Z" } else { "2026-11-21T12:00:00Z" });
            if progress.step(&daily(), now, at) == Step::Run {
                runs += 1;
                progress.succeed(now, at);
            }
        }
        assert!((1..=2).contains(&runs), "{runs} backups");
    }

    #[test]
    fn irregular_schedules_get_each_of_their_times() {
        let schedule: Schedule = "0 1,2 * * *".parse().unwrap();
        let mut progress = Progress::default();
        let begin = time("2026-11-21T00:00:00Z");
        progress.looked(None, begin);
        let mut runs = Vec::new();
        for minute in 0..2 * 24 * 60 {
            let at = seconds(minute * 60);
            let now = begin + jiff::SignedDuration::try_from(at).unwrap();
            if progress.step(&schedule, now, at) == Step::Run {
                runs.push(minute / 60);
                progress.succeed(now, at);
            }
        }
        assert_eq!(runs, [1, 2, 25, 26]);
    }
}
