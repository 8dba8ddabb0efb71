//! The last good snapshot beside the data: something to go back to when a file is damaged.
//!
//! Written at most once per interval, and only if something changed since.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::dir::DataDir;
use super::error::chain;
use super::shared::Shared;
use crate::disk::sync_dir;
use crate::snapshot;
use crate::storage::StorageError;

#[derive(Debug)]
pub(super) struct LastGood {
    interval: Duration,
    written: Option<SystemTime>,
    /// The newest change that the snapshot has, as far as this process wrote it.
    changed: Option<u64>,
}

impl LastGood {
    pub(super) fn new(dir: &DataDir, interval: Duration) -> Self {
        let written = std::fs::metadata(dir.last_good()).and_then(|metadata| metadata.modified()).ok();
        Self { interval, written, changed: None }
    }

    /// A failure leaves the old snapshot in place and the store running.
    pub(super) fn write_if_due(&mut self, shared: &Shared) {
        let changed = shared.core.state.read().position.changed;
        if !self.is_due(changed, SystemTime::now()) {
            return;
        }
        match write(shared) {
            Ok(changed) => {
                self.changed = Some(changed);
                self.written = Some(SystemTime::now());
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the last good snapshot could not be written")
            }
        }
    }

    fn is_due(&self, changed: u64, now: SystemTime) -> bool {
        if self.interval.is_zero() || changed == 0 || self.changed == Some(changed) {
            return false;
        }
        // A clock that went back counts as a long time.
        self.written
            .is_none_or(|written| now.duration_since(written).map_or(true, |age| age >= self.interval))
    }
}

fn write(shared: &Shared) -> Result<u64, StorageError> {
    let new = shared.dir.new_last_good();
    let result = write_to(shared, &new);
    if result.is_err() {
        // It would take space that may be what is missing.
        let _ = std::fs::remove_file(&new);
    }
    result
}

fn write_to(shared: &Shared, new: &Path) -> Result<u64, StorageError> {
    let mut file = io::BufWriter::new(create(new)?);
    let header = snapshot::produce(&shared.core, |piece| file.write_all(&piece).map_err(StorageError::Io))?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(new, shared.dir.last_good())?;
    sync_dir(shared.dir.path())?;
    Ok(header.changed)
}

/// Open to its owner only: values that are not sealed lie in it as they are.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_when_it_is_old_and_something_changed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // interval, written, its newest change, newest change, due
        let table = [
            (0, None, None, 5, false),
            (3_600, None, None, 0, false),
            (3_600, None, None, 5, true),
            (3_600, at(99_000), None, 5, false),
            (3_600, at(90_000), None, 5, true),
            (3_600, at(90_000), Some(5), 5, false),
            (3_600, at(90_000), Some(5), 6, true),
            (3_600, at(200_000), None, 5, true),
        ];
        for (interval, written, changed, newest, due) in table {
            let last_good = LastGood { interval: Duration::from_secs(interval), written, changed };
            assert_eq!(last_good.is_due(newest, now), due, "{last_good:?} {newest}");
        }
    }
}
