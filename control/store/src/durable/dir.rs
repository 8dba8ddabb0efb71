//! The data directory: whose it is, who may use it, and what lies where.
//!
//! A directory is ours once `format` says so; that file is written last when a store is made.
//! The lock on `lock` is held as long as the store is open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::error::OpenError;
use crate::disk::sync_dir;
use crate::level::Level;

// The format of 0.1.0 is 1: its log knows one node only, its tables no cluster. From 2 on it
// follows the group's level, see [`Level::format`].
const FORMAT_WORD: &str = "sampan-store";

const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const TABLES_FILE: &str = "state.redb";
const RESTORED_FILE: &str = "restored.redb";
const RECEIVED_FILE: &str = "received.redb";
const WAL_DIR: &str = "wal";
const SEALED_FILE: &str = "sealed";
/// Names the member that waits here to be taken into a group.
const JOINING_FILE: &str = "joining";
const LAST_GOOD_FILE: &str = "last-good.snapshot";
const NEW_LAST_GOOD_FILE: &str = "last-good.snapshot.new";
/// What a file system of its own has at its root.
const LOST_AND_FOUND: &str = "lost+found";
const DAMAGED_PREFIX: &str = "damaged-";

/// A data directory of ours, locked.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// Locked while it is here.
    lock: Mutex<Option<File>>,
    /// The store was still to be made when the directory was taken.
    fresh: bool,
    /// What `format` says; 0 while there is none.
    format: Mutex<u32>,
}

impl Drop for DataDir {
    fn drop(&mut self) {
        self.release();
    }
}

impl DataDir {
    /// Takes the directory, if it is ours or empty, and holds nothing of a newer level than
    /// `newest`; `keys` may lie in it as well.
    pub(super) fn take(path: &Path, keys: &Path, newest: Level) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::io(path, source);
        match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
            _ => {}
        }
        is_ours(path, keys, newest)?;
        let lock = lock(path)?;
        // A program that ended in between may have renamed files in here without making that
        // durable: a power cut must not bring the old ones back under a log that goes on.
        sync_dir(path).map_err(unusable)?;
        // Another process may have made the store between the look and the lock.
        let format = is_ours(path, keys, newest)?.unwrap_or(0);
        let (fresh, format) = (format == 0, Mutex::new(format));
        Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock)), fresh, format })
    }

    /// Lets the next one have it; nothing may be written after this.
    pub(super) fn release(&self) {
        let Some(lock) = self.lock.lock().take() else { return };
        // Closing alone would leave it locked while a child of ours, forked just now, still has
        // our descriptors.
        if let Err(error) = lock.unlock() {
            tracing::debug!(%error, "the lock of the data directory goes with its file");
        }
    }

    /// Whether the store is still to be made.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh && *self.format.lock() == 0
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tables(&self) -> PathBuf {
        self.path.join(TABLES_FILE)
    }

    pub(super) fn restored(&self) -> PathBuf {
        self.path.join(RESTORED_FILE)
    }

    pub(super) fn received(&self) -> PathBuf {
        self.path.join(RECEIVED_FILE)
    }

    pub(super) fn wal(&self) -> PathBuf {
        self.path.join(WAL_DIR)
    }

    pub(super) fn sealed(&self) -> PathBuf {
        self.path.join(SEALED_FILE)
    }

    pub(super) fn last_good(&self) -> PathBuf {
        self.path.join(LAST_GOOD_FILE)
    }

    pub(super) fn new_last_good(&self) -> PathBuf {
        self.path.join(NEW_LAST_GOOD_FILE)
    }

    /// The last good snapshot, if there is one.
    pub(super) fn kept_snapshot(&self) -> Option<PathBuf> {
        Some(self.last_good()).filter(|path| path.exists())
    }

    /// The member that waits here to be taken into a group.
    pub(super) fn joining(&self) -> io::Result<Option<u64>> {
        match std::fs::read_to_string(self.path.join(JOINING_FILE)) {
            Ok(text) => Ok(u64::from_str_radix(text.trim_end(), 16).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Remembers which member waits here, or that none does any more.
    pub(super) fn set_joining(&self, member: Option<u64>) -> io::Result<()> {
        let path = self.path.join(JOINING_FILE);
        match member {
            Some(member) => write_durably(&path, format!("{member:016x}\n").as_bytes()),
            None => remove(std::fs::remove_file(path)),
        }
    }

    /// Clears away what an unfinished beginning left.
    pub(super) fn clear_unfinished(&self) -> Result<(), OpenError> {
        let unusable = |source| OpenError::io(&self.path, source);
        remove(std::fs::remove_file(self.tables())).map_err(unusable)?;
        remove(std::fs::remove_dir_all(self.wal())).map_err(unusable)
    }

    /// Says that the directory holds a whole store, which may have something of this level from
    /// now on. What it says never goes back.
    pub(super) fn mark(&self, level: Level) -> io::Result<()> {
        let mut format = self.format.lock();
        if *format < level.format() {
            let number = level.format();
            write_durably(&self.path.join(FORMAT_FILE), format!("{FORMAT_WORD} {number}\n").as_bytes())?;
            *format = number;
        }
        Ok(())
    }

    /// Moves tables and log aside, as evidence.
    pub(super) fn set_aside(&self) -> io::Result<()> {
        let seconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let aside = (0..)
            .map(|attempt| self.path.join(format!("{DAMAGED_PREFIX}{}", seconds + attempt)))
            .find(|path| !path.exists())
            .ok_or(io::ErrorKind::AlreadyExists)?;
        std::fs::DirBuilder::new().mode(0o700).create(&aside)?;
        for name in [WAL_DIR, TABLES_FILE] {
            remove(std::fs::rename(self.path.join(name), aside.join(name)))?;
        }
        sync_dir(&aside)?;
        sync_dir(&self.path)
    }
}

/// The format of the store that `path` holds, if it is one; an error where it holds anything else.
fn is_ours(path: &Path, keys: &Path, newest: Level) -> Result<Option<u32>, OpenError> {
    let format = path.join(FORMAT_FILE);
    match std::fs::read_to_string(&format) {
        Ok(text) => check_format(path, &text, newest).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let entries = std::fs::read_dir(path).map_err(|source| OpenError::io(path, source))?;
            for entry in entries {
                let entry = entry.map_err(|source| OpenError::io(path, source))?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let ours = [
                    LOCK_FILE,
                    TABLES_FILE,
                    RESTORED_FILE,
                    RECEIVED_FILE,
                    WAL_DIR,
                    SEALED_FILE,
                    JOINING_FILE,
                    LOST_AND_FOUND,
                ];
                let known = ours.contains(&&*name) || entry.path() == keys;
                if !known {
                    return Err(OpenError::Foreign { path: path.to_owned(), found: name.into_owned() });
                }
            }
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => check_format(path, "", newest).map(Some),
        Err(source) => Err(OpenError::io(&format, source)),
    }
}

fn check_format(path: &Path, text: &str, newest: Level) -> Result<u32, OpenError> {
    let supported = newest.format();
    let found =
        text.trim_end().strip_prefix(FORMAT_WORD).and_then(|number| number.trim().parse::<u32>().ok());
    match found {
        Some(found) if (1..=supported).contains(&found) => Ok(found),
        Some(found) => Err(OpenError::NewerFormat { path: path.to_owned(), found, supported }),
        None => Err(OpenError::Foreign {
            path: path.to_owned(),
            found: format!("a file `{FORMAT_FILE}` of something else"),
        }),
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = path.join(LOCK_FILE);
    let unusable = |source| OpenError::io(&file, source);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let process = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Locked { path: path.to_owned(), process });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    // Only a hint for the message above: a full device must not keep the store from opening.
    let hint =
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    if let Err(error) = hint {
        tracing::debug!(%error, "the lock file could not be written");
    }
    Ok(lock)
}

/// What is not there needs no removal.
fn remove(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes a small file whole or not at all, readable by its owner only.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}
