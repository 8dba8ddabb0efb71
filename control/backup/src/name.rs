//! The names of backups that are made by schedule: they say which node, when, and which revision.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sampan_store::Revision;

const PREFIX: &str = "sampan-";
const SUFFIX: &str = ".snapshot";
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// `sampan-<node>-<timestamp>-<revision>.snapshot`, the time in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupName {
    /// The node that made it.
    pub node: String,
    /// When, to the second.
    pub time: Timestamp,
    /// The store's revision that it is of.
    pub revision: Revision,
}

impl BackupName {
    /// The name of a backup that is made now.
    pub fn new(node: &str, time: Timestamp, revision: Revision) -> Self {
        Self { node: node.to_owned(), time, revision }
    }

    /// The parts of a name, if it is of this kind.
    pub fn parse(name: &str) -> Option<Self> {
        let text = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (text, revision) = text.rsplit_once('-')?;
        let (node, time) = text.rsplit_once('-')?;
        let time = jiff::civil::DateTime::strptime(TIME, time).ok()?;
        let time = TimeZone::UTC.to_timestamp(time).ok()?;
        let parsed = Self::new(node, time, Revision(revision.parse().ok()?));
        // Whatever else it may be, it is not a name that was given here.
        (!node.is_empty() && parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for BackupName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, time, revision } = self;
        write!(f, "{PREFIX}{node}-{}-{revision}{SUFFIX}", time.strftime(TIME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_were_made_of() {
        let time = "2026-11-21T15:42:07Z".parse().unwrap();
        let name = BackupName::new("edge-7.example", time, Revision(1_234));
        assert_eq!(name.to_string(), "sampan-edge-7.example-20261121T154207Z-1234.snapshot");
        assert_eq!(BackupName::parse(&name.to_string()), Some(name));
    }

    #[test]
    fn other_names_are_not_taken_for_ours() {
        for name in [
            "sampan-n-20261121T154207Z-12.snapshot.tmp",
            ".sampan-n-20261121T154207Z-12.snapshot",
            "sampan--20261121T154207Z-12.snapshot",
            "sampan-n-20261121T154207-12.snapshot",
            "sampan-n-20261321T154207Z-12.snapshot",
            "sampan-n-20261121T154207Z-012.snapshot",
            "sampan-n-20261121T154207Z-.snapshot",
            "sampan-n.snapshot",
            "before-upgrade.snapshot",
            "",
        ] {
            assert_eq!(BackupName::parse(name), None, "{name}");
        }
    }
}
