//! What can go wrong with the images on disk, and what it means behind the kubelet's seam.

use std::io;
use std::path::{Path, PathBuf};

use sampan_cri::ImageError;

use super::ReferenceError;
use crate::artifact::{ArtifactError, Unrunnable};

/// Why the library could not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The name does not parse.
    #[error("couldn't parse image name {name:?}: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// The name belongs to an image of the program.
    #[error("{0} is built into sampan: it can be neither replaced nor removed")]
    BuiltIn(String),
    /// An import needs a name, not a digest.
    #[error("{0:?} names a digest; an import is given a name and a tag")]
    DigestGiven(String),
    /// The file is no image, or a broken one.
    #[error("{}: {why}", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The image is sound, but cannot run here.
    #[error("{}: {why}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{doing} {}", .path.display())]
    Io {
        /// What was being done: `reading`.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The index is not what was written.
    #[error("the list of images {} is damaged ({why}); remove it and import the images again", .path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Why it is not understood.
        why: String,
    },
}

impl LibraryError {
    /// An operation on a file failed.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// The text with that of its source: for seams that take a text.
    #[must_use]
    pub fn full(&self) -> String {
        match self {
            Self::Io { source, .. } => format!("{self}: {source}"),
            other => other.to_string(),
        }
    }

    /// As the kubelet is told about it.
    #[must_use]
    pub(crate) fn for_kubelet(self, reference: &str) -> ImageError {
        match self {
            Self::Name { name, source } => ImageError::InvalidName { name, why: source.to_string() },
            Self::Unsupported { why, .. } => ImageError::Unsupported { name: reference.to_owned(), why },
            Self::Broken { why, .. } => ImageError::Pull { name: reference.to_owned(), why },
            other => ImageError::Store(other.full()),
        }
    }
}

/// As the kubelet is told about a module that is not ready to run.
pub(crate) fn unready(error: &ArtifactError, reference: &str) -> ImageError {
    let name = reference.to_owned();
    match error {
        ArtifactError::Refused(_) => ImageError::Unsupported { name, why: error.to_string() },
        ArtifactError::Compiler(_) | ArtifactError::Damaged(_) | ArtifactError::NotFound(_) => {
            ImageError::Pull { name, why: error.to_string() }
        }
        ArtifactError::Cache { .. } => ImageError::Store(error.to_string()),
    }
}

/// What is wrong with an image that is being read; the file's name is added where it is known.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Broken, or something else than an image.
    Broken(String),
    /// Sound, but nothing for this node.
    Unsupported(String),
    /// Reading or writing failed.
    Io(&'static str, PathBuf, io::Error),
}

impl Fault {
    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Self::Broken(why.into())
    }

    pub(crate) fn unsupported(why: impl Into<String>) -> Self {
        Self::Unsupported(why.into())
    }

    /// An operation on a file of our own failed.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io(doing, path, error)
    }

    /// With the name of the image's file.
    pub(crate) fn of(self, path: &Path) -> LibraryError {
        let image = path.to_owned();
        match self {
            Self::Broken(why) => LibraryError::Broken { path: image, why },
            Self::Unsupported(why) => LibraryError::Unsupported { path: image, why },
            Self::Io(doing, path, source) => LibraryError::Io { doing, path, source },
        }
    }
}

impl From<Unrunnable> for Fault {
    fn from(unrunnable: Unrunnable) -> Self {
        match unrunnable {
            Unrunnable::NotWebAssembly | Unrunnable::Invalid(_) => Self::Broken(unrunnable.to_string()),
            _ => Self::Unsupported(unrunnable.to_string()),
        }
    }
}
