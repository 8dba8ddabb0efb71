//! Segments of the log as files: made with all their blocks written, renamed when used again.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Create, Disk, DiskFile, sync_dir};

/// What a segment's head takes at most.
pub(super) const HEAD_ROOM: usize = 160;
/// A buffer up to this size is kept for the next write.
const KEPT: usize = 256 << 10;
/// Spare segments kept for reuse; more are deleted.
const SPARES: usize = 3;

/// The directory of segments.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    size: usize,
    disk: Disk,
    spares: Vec<PathBuf>,
}

/// One open segment.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    size: usize,
    file: DiskFile,
    /// What is durable ends here.
    written: u64,
    /// Writes begin and end at a multiple of this.
    align: usize,
    /// What the last piece of so many bytes begins with: it is written again with what follows it.
    tail: Vec<u8>,
    buffer: Vec<u8>,
}

impl Segments {
    pub(super) fn open(dir: &Path, size: usize, disk: &Disk) -> io::Result<Self> {
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut spares = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("spare") => spares.push(path),
                // The leftover of a program that ended while it made a segment.
                Some("new") => std::fs::remove_file(&path)?,
                _ => {}
            }
        }
        // Names too may be of a program that ended before they were durable.
        sync_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), size, disk: disk.clone(), spares })
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.wal"))
    }

    /// The numbers of the segments in use, ascending.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_suffix(".wal"))
                .and_then(|number| u64::from_str_radix(number, 16).ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What a segment holds, durably from now on.
    pub(super) fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        self.disk.open_left(&self.path(number))?.read_all()
    }

    /// Opens a segment to go on behind its first `used` bytes.
    pub(super) fn resume(&self, number: u64, used: u64) -> io::Result<Segment> {
        let path = self.path(number);
        let (file, align) = self.disk.open_direct(&path)?;
        let size = usize::try_from(file.len()?).unwrap_or(self.size);
        // Nothing is written behind a segment's end.
        let align = if size.is_multiple_of(align) { align } else { 1 };
        let mut tail = vec![0; usize::try_from(used).map_err(io::Error::other)? % align];
        if !tail.is_empty() {
            let start = used - tail.len() as u64;
            self.disk.open(&path, Create::No)?.read_exact_at(&mut tail, start)?;
        }
        Ok(Segment { number, size, file, written: used, align, tail, buffer: Vec::new() })
    }

    /// A segment to write to: a spare one, else one whose blocks are written now.
    pub(super) fn acquire(&mut self, number: u64) -> io::Result<Segment> {
        let path = self.path(number);
        while let Some(spare) = self.spares.pop() {
            let fits = std::fs::metadata(&spare).is_ok_and(|metadata| metadata.len() == self.size as u64);
            if !fits {
                // Of another size, from before the configuration changed.
                std::fs::remove_file(&spare)?;
                continue;
            }
            if let Err(error) = std::fs::rename(&spare, &path) {
                self.spares.push(spare);
                return Err(error);
            }
            sync_dir(&self.dir)?;
            return self.resume(number, 0);
        }
        let new = self.dir.join(format!("{number:016x}.new"));
        let result = self.make(&new).and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = result {
            // A half-made segment would hold on to the very space that is missing.
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        sync_dir(&self.dir)?;
        self.resume(number, 0)
    }

    fn make(&self, path: &Path) -> io::Result<()> {
        const STEP: usize = 1 << 18;
        let file = self.disk.open(path, Create::Anew)?;
        let zeros = vec![0; STEP.min(self.size)];
        let mut at = 0;
        while at < self.size {
            let step = STEP.min(self.size - at);
            file.write_all_at(zeros.get(..step).unwrap_or(&zeros), at as u64)?;
            at += step;
        }
        file.sync_data()
    }

    /// Keeps a segment for reuse, or deletes it. A failure costs space, never data.
    pub(super) fn recycle(&mut self, number: u64) {
        let path = self.path(number);
        let result = if self.spares.len() < SPARES {
            let spare = self.dir.join(format!("{number:016x}.spare"));
            std::fs::rename(&path, &spare).map(|()| {
                // A number is given again after a restart where its segment was never written to:
                // then there may have been a spare of that name, and this one has taken its place.
                if !self.spares.contains(&spare) {
                    self.spares.push(spare);
                }
            })
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = result {
            tracing::warn!(%error, path = %path.display(), "a log segment could not be recycled");
        }
    }
}

impl Segment {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn used(&self) -> u64 {
        self.written
    }

    /// How many bytes still fit.
    pub(super) fn room(&self) -> usize {
        self.size.saturating_sub(usize::try_from(self.written).unwrap_or(self.size))
    }

    /// Adds bytes, durably. After an error nobody knows what of them the device holds.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes)?;
        self.file.sync_data()?;
        self.written += bytes.len() as u64;
        let whole = bytes.len() + self.tail.len();
        let rest = whole % self.align;
        match bytes.len().checked_sub(rest).and_then(|at| bytes.get(at..)) {
            Some(tail) => self.tail = tail.to_vec(),
            None => self.tail.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Makes the frames behind the end unreadable.
    pub(super) fn take_back(&mut self) -> io::Result<()> {
        if self.room() >= super::FRAME {
            self.put(&[0; super::FRAME])?;
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Writes bytes behind the end: with what stands before them in their first sector, and zeros
    /// up to the end of their last.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.tail.len();
        let len = (before + bytes.len()).next_multiple_of(self.align);
        self.buffer.clear();
        self.buffer.resize(len + self.align, 0);
        let start = self.buffer.as_ptr().align_offset(self.align);
        let sectors = self.buffer.get_mut(start..start.saturating_add(len));
        let sectors = sectors.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let (head, rest) = sectors.split_at_mut(before);
        head.copy_from_slice(&self.tail);
        rest.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        self.file.write_all_at(sectors, self.written - before as u64)?;
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}
