//! Why a data directory could not be opened, one line each.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::is_no_space;
use crate::storage::StorageError;
use crate::tables::TablesError;
use crate::wal::WalError;

/// Why a data directory could not be opened. Nothing in it was changed, except where a snapshot
/// was being put in place.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("data directory {} is in use by {}", path.display(), holder(*process))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, where it says.
        process: Option<u32>,
    },
    /// It cannot be read or written.
    #[error("data directory {} cannot be used", path.display())]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// It holds something else.
    #[error("data directory {} is not a sampan store: it holds {found}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Something in it that is not ours.
        found: String,
    },
    /// A newer program wrote it.
    #[error("data directory {} has format {found}; this program knows up to {supported}", path.display())]
    NewerFormat {
        /// The directory or file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program knows.
        supported: u32,
    },
    /// A file in it is damaged.
    #[error("{} is damaged: {why}{}", path.display(), offer(last_good_snapshot.as_deref()))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The newest snapshot kept beside it, for [`super::Machine::rebuild`].
        last_good_snapshot: Option<PathBuf>,
    },
    /// The keys to open sealed values are missing or wrong.
    #[error("key file {} {why}", path.display())]
    Keys {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration cannot work.
    #[error("the store's configuration cannot work: {why}")]
    Config {
        /// Why.
        why: String,
    },
    /// A snapshot could not be put in place.
    #[error("snapshot {} could not be restored", path.display())]
    Snapshot {
        /// The snapshot.
        path: PathBuf,
        /// Why.
        source: StorageError,
    },
    /// The device is full.
    #[error("no space left on the device of {}", path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
    },
}

fn holder(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".into(), |process| format!("process {process}"))
}

fn offer(snapshot: Option<&Path>) -> String {
    snapshot.map_or_else(
        || "; there is no snapshot to go back to".into(),
        |snapshot| format!("; the last good snapshot is {}", snapshot.display()),
    )
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        if is_no_space(&source) {
            return Self::NoSpace { path: path.to_owned() };
        }
        Self::Unusable { path: path.to_owned(), source }
    }

    pub(super) fn tables(path: &Path, last_good: Option<PathBuf>, error: TablesError) -> Self {
        match error {
            TablesError::Io(source) if source.kind() != io::ErrorKind::NotFound => Self::io(path, source),
            TablesError::Io(_) => Self::corrupt(path, "the file is missing", last_good),
            TablesError::Corrupt(why) => Self::corrupt(path, &why, last_good),
        }
    }

    pub(super) fn wal(last_good: Option<PathBuf>, error: WalError) -> Self {
        match error {
            WalError::Io { path, source } => Self::io(&path, source),
            WalError::NewerFormat { path, found } => {
                Self::NewerFormat { path, found: found.into(), supported: crate::wal::FORMAT.into() }
            }
            WalError::Corrupt { path, why } => Self::corrupt(&path, &why, last_good),
        }
    }

    pub(super) fn corrupt(path: &Path, why: &str, last_good_snapshot: Option<PathBuf>) -> Self {
        Self::Corrupt { path: path.to_owned(), why: why.to_owned(), last_good_snapshot }
    }
}

/// An error with its sources, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
