//! Why a backup could not be made, read or kept.

use std::io;

use sampan_store::{SnapshotFault, StorageError};

/// Why a backup could not be made, read or kept. Each is one line; none holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store gave no snapshot.
    #[error("the store gave no snapshot")]
    Store(#[source] StorageError),
    /// Where the snapshot came from, it ended with an error.
    #[error("the snapshot could not be read")]
    Incoming(#[source] io::Error),
    /// A setting or a name cannot be used.
    #[error("{why}")]
    Setting {
        /// Which, and why.
        why: String,
    },
    /// There is a file or an object of that name, and it was not to be replaced.
    #[error("{at} exists already")]
    Exists {
        /// Path or address.
        at: String,
    },
    /// There is nothing of that name.
    #[error("{at} does not exist")]
    Missing {
        /// Path or address.
        at: String,
    },
    /// No space is left; nothing of the backup was kept.
    #[error("no space is left for {at}")]
    NoSpace {
        /// Path or address.
        at: String,
    },
    /// A file or directory could not be read or written.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bucket's server did not do what was asked of it.
    #[error("{doing}: {why}")]
    Bucket {
        /// What was being done.
        doing: String,
        /// What it said.
        why: String,
    },
    /// It is no backup, or not as it was written: foreign, cut off, changed.
    #[error("the backup cannot be used: {why}")]
    Unsound {
        /// What is wrong with it.
        why: String,
    },
    /// It is of a later program.
    #[error("the backup has format {format}; this program knows up to {known}")]
    Newer {
        /// Its format.
        format: u16,
        /// The newest format that this program knows.
        known: u16,
    },
    /// It is sealed, and no passphrase was given.
    #[error("the backup is sealed; its passphrase is needed")]
    PassphraseNeeded,
    /// It is sealed with another passphrase.
    #[error("the passphrase is wrong")]
    PassphraseWrong,
    /// A passphrase was given, so that a sealed backup was expected, but this one is not.
    #[error("the backup is not sealed, but a passphrase was given")]
    NotSealed,
    /// The system lacks what sealing needs.
    #[error("sealing failed: {why}")]
    Sealing {
        /// What is lacking.
        why: String,
    },
}

impl BackupError {
    pub(crate) fn unsound(why: impl Into<String>) -> Self {
        Self::Unsound { why: why.into() }
    }

    pub(crate) fn setting(why: impl Into<String>) -> Self {
        Self::Setting { why: why.into() }
    }

    /// A failure of the file system while `doing` something `at` a place.
    pub(crate) fn io(doing: &str, at: &dyn std::fmt::Display, source: io::Error) -> Self {
        let at = at.to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { at },
            io::ErrorKind::NotFound => Self::Missing { at },
            io::ErrorKind::AlreadyExists => Self::Exists { at },
            _ => Self::Io { doing: format!("{doing} {at} failed"), source },
        }
    }

    /// What a reader of ours reported through [`io::Error`], or that it could not be read.
    pub(crate) fn reading(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(source) => Self::Io { doing: "reading the backup failed".into(), source },
        }
    }

    /// The error of this crate within an error that a reader of [`crate::open`] returned.
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<SnapshotFault> for BackupError {
    fn from(fault: SnapshotFault) -> Self {
        match fault {
            SnapshotFault::Newer { format, known } => Self::Newer { format, known },
            other => Self::unsound(other.to_string()),
        }
    }
}

impl From<BackupError> for io::Error {
    fn from(error: BackupError) -> Self {
        Self::other(error)
    }
}

/// An error with its sources, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
