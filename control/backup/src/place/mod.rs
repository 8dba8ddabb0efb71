//! Where backups are: a directory, or a folder of an S3 bucket.

mod bucket;
mod directory;
mod http;
mod tls;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

pub use bucket::{Bucket, BucketSettings, PlainHttp};

use crate::BackupError;

/// Whether a backup may take the place of another one of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// What is there stays, and the backup is refused.
    #[default]
    Refuse,
    /// What is there is replaced, once the new one is complete.
    Replace,
}

/// Where backups are kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// A directory.
    Directory(PathBuf),
    /// A folder of a bucket.
    Bucket(Bucket),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

/// One backup: a place and a name there.
#[derive(Clone, Debug)]
pub struct Location {
    /// Where.
    pub place: Place,
    /// File name, or the object's name within the folder.
    pub name: String,
}

impl Location {
    /// The file at `path`; refuses a path that names none.
    pub fn file(path: &Path) -> Result<Self, BackupError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name else {
            return Err(BackupError::setting(format!("{} is not the name of a file", path.display())));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let place = Place::Directory(parent.unwrap_or(Path::new(".")).to_owned());
        Ok(Self { place, name: name.to_owned() })
    }

    /// Deletes the backup.
    pub async fn delete(&self) -> Result<(), BackupError> {
        match &self.place {
            Place::Directory(dir) => directory::delete(dir, &self.name).await,
            Place::Bucket(bucket) => bucket.delete(&self.name).await,
        }
    }

    /// Its bytes.
    pub(crate) async fn read(&self) -> Result<Box<dyn AsyncRead + Send + Unpin>, BackupError> {
        match &self.place {
            Place::Directory(dir) => directory::read(dir, &self.name).await,
            Place::Bucket(bucket) => bucket.read(&self.name).await,
        }
    }

    /// Its first bytes, at most so many.
    pub(crate) async fn begin_of(&self, most: usize) -> Result<Bytes, BackupError> {
        match &self.place {
            Place::Directory(dir) => directory::begin_of(dir, &self.name, most).await,
            Place::Bucket(bucket) => bucket.begin_of(&self.name, most).await,
        }
    }

    /// Begins to write it.
    pub(crate) async fn create(&self, existing: Existing) -> Result<Box<dyn Sink>, BackupError> {
        match &self.place {
            Place::Directory(dir) => directory::create(dir, &self.name, existing).await,
            Place::Bucket(bucket) => bucket.create(&self.name, existing).await,
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Directory(path) => path.join(&self.name).display().fmt(f),
            Place::Bucket(bucket) => write!(f, "{bucket}/{}", self.name),
        }
    }
}

/// Something stored at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// In bytes.
    pub(crate) size: u64,
}

impl Place {
    /// The files or objects there, in no order; none where there is no such directory.
    pub(crate) async fn entries(&self) -> Result<Vec<Entry>, BackupError> {
        match self {
            Self::Directory(dir) => directory::entries(dir).await,
            Self::Bucket(bucket) => bucket.entries().await,
        }
    }

    /// Makes it ready for backups: a directory is created, open to its owner only, and rid of
    /// what a crash left behind in it.
    pub(crate) async fn prepare(&self) -> Result<(), BackupError> {
        match self {
            Self::Directory(dir) => directory::prepare(dir).await,
            Self::Bucket(_) => Ok(()),
        }
    }

    /// The backup of this name there.
    pub(crate) fn at(&self, name: impl Into<String>) -> Location {
        Location { place: self.clone(), name: name.into() }
    }
}

/// A backup that is being written. It appears under its name when it is committed, whole, or not
/// at all; one that is dropped is discarded as far as that goes without waiting.
#[async_trait]
pub(crate) trait Sink: Send {
    /// The next bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), BackupError>;

    /// All was written: it appears, durably.
    async fn commit(self: Box<Self>) -> Result<(), BackupError>;

    /// It is not to be: what was stored of it goes.
    async fn discard(self: Box<Self>);
}
