//! Levels: what a build understands, and what a group has agreed to use.
//!
//! A group of members is at one level. It never uses a command, or a form of what it stores, of a
//! newer level than its own, so that a member that is one level older can be part of it, and any
//! member can be started again with the older build. Once all members understand the next level,
//! the group may go there, for good.

use std::fmt;
use std::str::FromStr;

/// A level. Members that were made before there were levels are at [`Level::OLDEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u16);

/// The versions that brought a new level, the oldest first: level 1, level 2, …
const VERSIONS: [&str; 3] = ["0.2", "0.3", "0.4"];

impl Level {
    /// The oldest level that this build still speaks.
    pub const OLDEST: Self = Self(1);
    /// Batches of changes to what is kept in memory only; [`crate::Command::Level`] itself.
    pub const BATCHES: Self = Self(2);
    /// [`crate::Command::Lost`]; copies of keys in memory that tell their revision.
    pub const LOSSES: Self = Self(3);
    /// The newest level that this build understands.
    pub const NEWEST: Self = Self::LOSSES;

    /// The level of this number, of this build or of a newer one; 0 is that of none, and taken for
    /// the oldest.
    pub fn of_number(number: u16) -> Self {
        Self(number).max(Self::OLDEST)
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The first version that understands it, where this build knows that.
    pub fn version(self) -> Option<&'static str> {
        VERSIONS.get(usize::from(self.0).checked_sub(1)?).copied()
    }

    /// The format of a data directory that may hold what this level brought. Format 1 was before
    /// there were groups.
    pub(crate) fn format(self) -> u32 {
        u32::from(self.0) + 1
    }

    /// The newest level of which a directory of this format may hold something.
    pub fn of_format(format: u32) -> Self {
        Self::of_number(u16::try_from(format.saturating_sub(1)).unwrap_or(u16::MAX))
    }
}

impl Default for Level {
    /// That of who does not know levels.
    fn default() -> Self {
        Self::OLDEST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version() {
            Some(version) => write!(f, "{} ({version})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A version that this build cannot behave as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of the versions that this build can behave as: {}", VERSIONS.join(", "))]
pub struct UnknownVersion {
    given: String,
}

impl FromStr for Level {
    type Err = UnknownVersion;

    /// The level of a version such as `0.2`.
    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let place = VERSIONS.iter().position(|version| *version == text);
        let number = place.and_then(|place| u16::try_from(place + 1).ok());
        number.map(Self).ok_or_else(|| UnknownVersion { given: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_the_version_that_brought_it() {
        assert_eq!(VERSIONS.len(), usize::from(Level::NEWEST.number()));
        for number in 1..=Level::NEWEST.number() {
            let level = Level::of_number(number);
            assert_eq!(level.version().unwrap().parse(), Ok(level));
            assert_eq!(Level::of_format(level.format()), level);
        }
        assert_eq!(Level::of_format(1), Level::OLDEST, "0.1.0 knew no groups");
        assert_eq!(Level::of_number(0), Level::OLDEST);
        assert_eq!(Level::of_number(9).version(), None);
        let error = "0.1".parse::<Level>().unwrap_err().to_string();
        assert_eq!(error, "\"0.1\" is none of the versions that this build can behave as: 0.2, 0.3, 0.4");
    }
}
