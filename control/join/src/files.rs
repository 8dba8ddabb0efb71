//! Private files, replaced atomically.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::JoinError;

/// A file's text, if it is there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, JoinError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error(path, source)),
    }
}

/// Writes a file that only its owner may read: the old text or the new one is there at any time.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), JoinError> {
    replace(path, text).map_err(|source| error(path, source))
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a directory that only its owner may enter, and those above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), JoinError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| error(path, source))
}

/// Gives a directory its name, for good.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), JoinError> {
    std::fs::File::open(from)
        .and_then(|dir| dir.sync_all())
        .and_then(|()| std::fs::rename(from, to))
        .and_then(|()| sync_parent(to))
        .map_err(|source| error(to, source))
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn error(path: &Path, source: std::io::Error) -> JoinError {
    JoinError::File { path: path.to_owned(), source }
}
