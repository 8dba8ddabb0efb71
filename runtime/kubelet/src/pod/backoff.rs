//! Exponential back-off as the kubelet applies it to restarts and image pulls.

use std::time::Duration;

use jiff::Timestamp;

/// The first delay.
pub const INITIAL: Duration = Duration::from_secs(10);
/// The longest delay. Something that went well for twice as long starts over.
pub const MAX: Duration = Duration::from_secs(300);

/// One thing's back-off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    entry: Option<(Duration, Timestamp)>,
}

impl Backoff {
    /// The delay in force, if there was a failure not long ago.
    pub fn delay(&self) -> Option<Duration> {
        self.entry.map(|(delay, _)| delay)
    }

    /// Until when to wait after something ended at `ended`; `None`: try at once.
    pub fn wait_until(&self, ended: Timestamp) -> Option<Timestamp> {
        let (delay, updated) = self.entry?;
        if expired(ended, updated) { None } else { Some(later(ended, delay)) }
    }

    /// Records another try after an end at `ended`: doubles the delay, or starts over if the
    /// last failure is long past.
    pub fn advance(&mut self, ended: Timestamp, now: Timestamp) {
        let delay = match self.entry {
            Some((delay, updated)) if !expired(ended, updated) => delay.saturating_mul(2).min(MAX),
            _ => INITIAL,
        };
        self.entry = Some((delay, now));
    }
}

fn expired(ended: Timestamp, updated: Timestamp) -> bool {
    ended.duration_since(updated)
        > jiff::SignedDuration::try_from(MAX * 2).unwrap_or(jiff::SignedDuration::MAX)
}

/// A time `delay` later; the end of time where that cannot be said.
pub fn later(time: Timestamp, delay: Duration) -> Timestamp {
    time.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_twice_as_long_each() {
        let mut backoff = Backoff::default();
        let mut now = 1000;
        assert_eq!(backoff.wait_until(at(now)), None);
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.advance(at(now), at(now));
            now += 1;
            let until = backoff.wait_until(at(now)).unwrap();
            waits.push(until.as_second() - now);
            now = until.as_second();
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_start_over() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.advance(at(0), at(0));
        }
        assert_eq!(backoff.wait_until(at(600)), Some(at(760)), "not yet ten minutes");
        assert_eq!(backoff.wait_until(at(601)), None);
        backoff.advance(at(601), at(601));
        assert_eq!(backoff.delay(), Some(INITIAL));
    }
}
