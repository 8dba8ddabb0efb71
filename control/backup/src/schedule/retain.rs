//! Which backups go.

use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::{BackupError, Listed};

/// How many backups are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many, the newest.
    pub count: NonZeroUsize,
}

impl Default for Retention {
    /// Five.
    fn default() -> Self {
        Self { count: const { NonZeroUsize::new(5).unwrap() } }
    }
}

impl FromStr for Retention {
    type Err = BackupError;

    fn from_str(text: &str) -> Result<Self, BackupError> {
        let count = text.trim().parse().map_err(|_| {
            BackupError::setting(format!("\"{text}\" is not a number of backups to keep: at least 1 is kept"))
        })?;
        Ok(Self { count })
    }
}

/// Which of a cluster's backups go, oldest first. Newer is what has the higher revision, and of the
/// same revision what was made later: revisions never go back, but clocks do.
pub fn retain(backups: &[Listed], retention: Retention) -> Vec<Listed> {
    let mut newest_first: Vec<_> = backups.iter().collect();
    newest_first.sort_by(|a, b| (b.revision, b.time, &b.name).cmp(&(a.revision, a.time, &a.name)));
    newest_first.into_iter().skip(retention.count.get()).rev().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BackupName;
    use sampan_store::Revision;

    fn listed(time: &str, revision: u64) -> Listed {
        let name = BackupName::new("n", time.parse().unwrap(), Revision(revision));
        Listed { name: name.to_string(), node: name.node, time: name.time, revision: name.revision, size: 1 }
    }

    #[test]
    fn the_newest_stay() {
        let day = |day: u64| listed(&format!("2026-11-{day:02}T00:00:00Z"), 100 + day);
        let all: Vec<_> = [3, 1, 5, 2, 4].into_iter().map(day).collect();
        let table = [("1", vec![1, 2, 3, 4]), ("3", vec![1, 2]), ("5", vec![]), ("9", vec![])];
        for (count, gone) in table {
            let expected: Vec<_> = gone.into_iter().map(day).collect();
            assert_eq!(retain(&all, count.parse().unwrap()), expected, "{count}");
        }
        assert_eq!(retain(&[], Retention::default()), []);
    }

    #[test]
    fn a_clock_that_was_wrong_does_not_cost_the_newest_backup() {
        let wrong = listed("2099-01-01T00:00:00Z", 10);
        let before = listed("1970-01-01T00:00:00Z", 12);
        let same = listed("2026-11-21T00:00:00Z", 12);
        let all = [wrong.clone(), before.clone(), same.clone()];
        assert_eq!(retain(&all, "1".parse().unwrap()), [wrong.clone(), before]);
        assert_eq!(retain(&all, "2".parse().unwrap()), [wrong]);
    }

    #[test]
    fn numbers_of_backups_to_keep_are_at_least_one() {
        assert_eq!("7".parse::<Retention>().unwrap().count.get(), 7);
        assert_eq!(Retention::default().count.get(), 5);
        for text in ["0", "-1", "", "many", "1.5"] {
            let refusal = text.parse::<Retention>().unwrap_err().to_string();
            assert!(refusal.contains("at least 1"), "{refusal}");
        }
    }
}
