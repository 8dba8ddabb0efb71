//! A node's clock that differs from the servers', as a condition of the node.

use jiff::SignedDuration;

/// The condition's type in the node's status.
pub const CLOCK_SKEWED: &str = "ClockSkewed";

/// What differs by less is not worth a word: time stamps and leases bear it.
const TOLERATED: SignedDuration = SignedDuration::from_mins(1);

/// A condition of the node's status, of type [`CLOCK_SKEWED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockCondition {
    /// Whether the clock is off: the condition's status, `True` or `False`.
    pub skewed: bool,
    /// One word for programs.
    pub reason: &'static str,
    /// One line for people.
    pub message: String,
}

/// The condition for a clock that is ahead of the servers' by `skew` (behind, where it is negative).
pub fn clock_condition(skew: SignedDuration) -> ClockCondition {
    let off = skew.abs();
    if off <= TOLERATED {
        return ClockCondition {
            skewed: false,
            reason: "ClockAgrees",
            message: "this machine's clock agrees with the servers'".to_owned(),
        };
    }
    let (reason, direction) =
        if skew.is_negative() { ("ClockBehind", "behind") } else { ("ClockAhead", "ahead of") };
    ClockCondition {
        skewed: true,
        reason,
        message: format!(
            "this machine's clock is {} {direction} the servers'; certificates are judged by the servers' time until it is set",
            in_words(off)
        ),
    }
}

/// The two largest units.
fn in_words(duration: SignedDuration) -> String {
    const UNITS: [(i64, &str); 5] =
        [(365 * 86_400, "year"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let mut left = duration.as_secs();
    let mut words = Vec::new();
    for (seconds, unit) in UNITS {
        let count = left / seconds;
        left -= count * seconds;
        if count > 0 {
            words.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
        if words.len() == 2 {
            break;
        }
    }
    words.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told_in_one_line() {
        assert!(!clock_condition(SignedDuration::from_secs(-60)).skewed);
        for (seconds, reason, words) in [
            (61, "ClockAhead", "1 minute and 1 second ahead of"),
            (-7200, "ClockBehind", "2 hours behind"),
            (-(20 * 365 * 86_400 + 86_400), "ClockBehind", "20 years and 1 day behind"),
        ] {
            let condition = clock_condition(SignedDuration::from_secs(seconds));
            assert!(condition.skewed);
            assert_eq!(condition.reason, reason);
            assert!(condition.message.contains(words), "{}", condition.message);
        }
    }
}
