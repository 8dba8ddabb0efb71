//! Files as the store writes them, with a place where tests make the disk fail.
//!
//! Log and tables write through [`DiskFile`]; it counts what goes to the device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use rustix::fs::{Advice, AtFlags, OFlags, StatxFlags};

/// The least that a device writes.
const SECTOR: usize = 512;
/// Direct writes that need more than this are not worth it.
const PAGE: usize = 4096;

/// What the store is about to do to its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp<'a> {
    /// Write `bytes` bytes at `offset`.
    Write {
        /// The file.
        path: &'a Path,
        /// Where in the file.
        offset: u64,
        /// How many.
        bytes: usize,
    },
    /// Change the file's length.
    SetLen {
        /// The file.
        path: &'a Path,
        /// The new length.
        len: u64,
    },
    /// Make everything written durable.
    Sync {
        /// The file.
        path: &'a Path,
    },
}

/// Asked before each operation; an error takes the operation's place. For tests.
pub trait DiskFaults: Send + Sync + 'static {
    /// Whether the operation may go ahead.
    fn before(&self, op: DiskOp<'_>) -> io::Result<()>;

    /// A file has another name from now on, in the place of what had it.
    fn renamed(&self, _from: &Path, _to: &Path) {}

    /// How long the log's next sync takes. Asked where the log has no thread that could wait.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }
}

/// The disk that a part of the store writes to.
#[derive(Clone, Default)]
pub struct Disk {
    faults: Option<Arc<dyn DiskFaults>>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    syncs: AtomicU64,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk of its own counters, failing as `faults` says.
    pub fn new(faults: Option<Arc<dyn DiskFaults>>) -> Self {
        Self { faults, counters: Arc::default() }
    }

    /// Bytes handed to the device so far.
    pub fn written(&self) -> u64 {
        self.counters.written.load(Ordering::Relaxed)
    }

    /// How often data was made durable so far.
    pub fn syncs(&self) -> u64 {
        self.counters.syncs.load(Ordering::Relaxed)
    }

    /// Opens a file to read and write, readable by its owner only; `create` makes a missing one.
    pub(crate) fn open(&self, path: &Path, create: Create) -> io::Result<DiskFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match create {
            Create::No => {}
            Create::Anew => {
                options.create(true).truncate(true);
            }
        }
        Ok(DiskFile { file: options.open(path)?, path: RwLock::new(path.to_owned()), disk: self.clone() })
    }

    /// Opens a file whose last writer may have ended at any moment, and makes what it shows
    /// durable: a write that was never synced must not be believed, since a power cut can still
    /// take it back.
    pub(crate) fn open_left(&self, path: &Path) -> io::Result<DiskFile> {
        let file = self.open(path, Create::No)?;
        file.sync_data()?;
        // After a sync that failed the page cache may show what the device does not have, and
        // never will: what is read from here on is read from the device.
        if let Err(error) = rustix::fs::fadvise(&file.file, 0, None, Advice::DontNeed) {
            tracing::debug!(%error, path = %path.display(), "the page cache keeps what it has of a file");
        }
        Ok(file)
    }

    /// Opens a file that is written in place, sector by sector: past the page cache where the file
    /// system can, so that a small write costs the device the sectors that it touches, and no page.
    ///
    /// Returns the bytes that offset, length and memory of each write must be a multiple of.
    pub(crate) fn open_direct(&self, path: &Path) -> io::Result<(DiskFile, usize)> {
        let file = self.open(path, Create::No)?;
        // Where tests make the disk fail, they look at files through the page cache.
        let wanted = if self.faults.is_none() { direct_alignment(&file.file) } else { None };
        let align = wanted.filter(|_| {
            let flags = rustix::fs::fcntl_getfl(&file.file);
            flags.and_then(|flags| rustix::fs::fcntl_setfl(&file.file, flags | OFlags::DIRECT)).is_ok()
        });
        Ok((file, align.unwrap_or(SECTOR)))
    }

    fn check(&self, op: DiskOp<'_>) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.before(op))
    }
}

/// What to do about a missing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Create {
    No,
    Anew,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    path: RwLock<PathBuf>,
    disk: Disk,
}

impl DiskFile {
    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    pub(crate) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    /// Reads the whole file.
    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()?).map_err(io::Error::other)?;
        let mut out = vec![0; len];
        self.file.read_exact_at(&mut out, 0)?;
        Ok(out)
    }

    pub(crate) fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.check(DiskOp::Write { path: &self.path.read(), offset, bytes: data.len() })?;
        self.file.write_all_at(data, offset)?;
        self.disk.counters.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Renames the file, in the place of what has that name.
    pub(crate) fn rename(&self, to: &Path) -> io::Result<()> {
        let mut path = self.path.write();
        std::fs::rename(&*path, to)?;
        if let Some(faults) = &self.disk.faults {
            faults.renamed(&path, to);
        }
        to.clone_into(&mut path);
        Ok(())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check(DiskOp::SetLen { path: &self.path.read(), len })?;
        self.file.set_len(len)
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.disk.check(DiskOp::Sync { path: &self.path.read() })?;
        self.file.sync_data()?;
        self.disk.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What direct writes to a file must be aligned to, where it takes any.
fn direct_alignment(file: &File) -> Option<usize> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let known = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let align = usize::try_from(stat.stx_dio_offset_align.max(stat.stx_dio_mem_align)).ok()?;
    (known && stat.stx_dio_offset_align > 0 && align.is_power_of_two() && align <= PAGE)
        .then_some(align.max(SECTOR))
}

/// Makes created, renamed and removed names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether an error says that the device is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
