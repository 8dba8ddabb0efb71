//! Backups as files: written beside, made durable, renamed; open to their owner only.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{Entry, Existing, Sink};
use crate::BackupError;
use crate::format::hex;
use crate::secret::random;

/// What the names of unfinished files end with; they begin with a dot.
const PARTIAL: &str = ".partial";
/// No backup takes so long: an unfinished file that is older was left by a crash.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

pub(super) async fn create(dir: &Path, name: &str, existing: Existing) -> Result<Box<dyn Sink>, BackupError> {
    let target = dir.join(name);
    match tokio::fs::symlink_metadata(&target).await {
        Ok(found) if existing == Existing::Refuse || found.is_dir() => {
            return Err(BackupError::Exists { at: target.display().to_string() });
        }
        _ => {}
    }
    let mut random_part = [0; 8];
    random(&mut random_part)?;
    let partial = dir.join(format!(".{name}.{}{PARTIAL}", hex(&random_part)));
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).await;
    let file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BackupError::Missing { at: format!("the directory {}", dir.display()) },
        _ => BackupError::io("writing", &target.display(), source),
    })?;
    let unfinished = Unfinished(Some(partial));
    Ok(Box::new(NewFile { file, unfinished, dir: dir.to_owned(), target, existing }))
}

/// A file that is not yet where it belongs.
struct NewFile {
    file: File,
    unfinished: Unfinished,
    dir: PathBuf,
    target: PathBuf,
    existing: Existing,
}

/// Removes the file when it is dropped, unless that was renamed.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[async_trait]
impl Sink for NewFile {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BackupError> {
        let written = self.file.write_all(&bytes).await;
        written.map_err(|source| BackupError::io("writing", &self.target.display(), source))
    }

    async fn commit(self: Box<Self>) -> Result<(), BackupError> {
        let Self { mut file, mut unfinished, dir, target, existing } = *self;
        let failed = |source| BackupError::io("writing", &target.display(), source);
        // What was handed over last may fail only now.
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        let Some(partial) = unfinished.0.take() else { return Ok(()) };
        let to = target.clone();
        let renamed = tokio::task::spawn_blocking(move || {
            let result = rename(&partial, &to, existing);
            if result.is_err() {
                let _ = std::fs::remove_file(&partial);
            }
            result.and_then(|()| std::fs::File::open(&dir)?.sync_all())
        });
        renamed.await.map_err(io::Error::other).and_then(|result| result).map_err(failed)
    }

    async fn discard(self: Box<Self>) {
        let Self { mut file, unfinished, .. } = *self;
        // Nothing is written any more once the file goes.
        let _ = file.flush().await;
        drop(file);
        drop(unfinished);
    }
}

/// Renames; whether there is something already is decided by the file system where it can.
fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    if existing == Existing::Replace {
        return std::fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

pub(super) async fn read(dir: &Path, name: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, BackupError> {
    Ok(Box::new(open(dir, name).await?))
}

pub(super) async fn begin_of(dir: &Path, name: &str, most: usize) -> Result<Bytes, BackupError> {
    let mut file = open(dir, name).await?.take(most as u64);
    let mut out = BytesMut::new();
    while file.read_buf(&mut out).await.map_err(BackupError::reading)? > 0 {}
    Ok(out.freeze())
}

async fn open(dir: &Path, name: &str) -> Result<File, BackupError> {
    let path = dir.join(name);
    File::open(&path).await.map_err(|source| BackupError::io("reading", &path.display(), source))
}

pub(super) async fn delete(dir: &Path, name: &str) -> Result<(), BackupError> {
    let path = dir.join(name);
    let removed = tokio::fs::remove_file(&path).await;
    removed.map_err(|source| BackupError::io("deleting", &path.display(), source))
}

pub(super) async fn entries(dir: &Path) -> Result<Vec<Entry>, BackupError> {
    Ok(files(dir).await?.into_iter().map(|(name, found)| Entry { name, size: found.len() }).collect())
}

pub(super) async fn prepare(dir: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::io("creating", &dir.display(), source);
    tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).await.map_err(failed)?;
    for (name, found) in files(dir).await? {
        let unfinished = name.starts_with(".sampan-") && name.ends_with(PARTIAL);
        let age = found.modified().ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
        if unfinished && age.is_some_and(|age| age > ABANDONED) {
            delete(dir, &name).await?;
        }
    }
    Ok(())
}

/// The regular files of a directory; of one that is not there, none.
async fn files(dir: &Path) -> Result<Vec<(String, std::fs::Metadata)>, BackupError> {
    let failed = |source| BackupError::io("reading", &dir.display(), source);
    let mut read = match tokio::fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut files = Vec::new();
    while let Some(entry) = read.next_entry().await.map_err(failed)? {
        // One that went meanwhile is not there.
        let Ok(found) = entry.metadata().await else { continue };
        if let (true, Ok(name)) = (found.is_file(), entry.file_name().into_string()) {
            files.push((name, found));
        }
    }
    Ok(files)
}
