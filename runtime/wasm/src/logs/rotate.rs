//! A log file that is rotated by size: `0.log` becomes `0.log.<time>`, older ones are
//! compressed, the oldest go.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

/// When a log is rotated and how much of it is kept; the defaults are the kubelet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Size in bytes beyond which the file is put aside.
    pub max_bytes: u64,
    /// How many files are kept, the current one included; at least 2.
    pub max_files: usize,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 5 }
    }
}

/// The current file and its rotated predecessors.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: Option<File>,
    bytes: u64,
    rotated_bytes: u64,
    written_since_rest: bool,
}

impl LogFile {
    pub(super) fn new(path: PathBuf, rotation: Rotation) -> Self {
        Self { path, rotation, file: None, bytes: 0, rotated_bytes: 0, written_since_rest: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.bytes + self.rotated_bytes
    }

    pub(super) fn touch(&mut self) {
        if let Err(error) = self.open() {
            tracing::warn!(path = %self.path.display(), %error, "cannot make the container's log");
        }
        self.file = None;
    }

    /// Appends whole lines; rotates between them where they outgrow the file.
    pub(super) fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            if self.bytes >= self.rotation.max_bytes.max(1) {
                self.rotate()?;
            }
            let room =
                usize::try_from(self.rotation.max_bytes.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(through_line(rest, room));
            self.open()?.write_all(now)?;
            self.bytes += now.len() as u64;
            self.written_since_rest = true;
            rest = later;
        }
        Ok(())
    }

    /// The writer leaves. A file that saw no line since the last time is closed, so that a
    /// silent container holds no descriptor.
    pub(super) fn rest(&mut self) {
        if !std::mem::take(&mut self.written_since_rest) || self.bytes < 4096 {
            self.file = None;
        }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                if let Some(directory) = self.path.parent() {
                    fs::create_dir_all(directory)?;
                }
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.bytes = file.metadata()?.len();
                file
            }
        };
        Ok(self.file.insert(file))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        // Finer than the kubelet's seconds: a burst rotates more than once in one.
        let time = Timestamp::now().strftime(".%Y%m%d-%H%M%S-%9f").to_string();
        let aside = suffixed(&self.path, &time);
        fs::rename(&self.path, &aside)?;
        self.bytes = 0;
        self.tidy()
    }

    /// Compresses all rotated files but the newest and removes the oldest.
    fn tidy(&mut self) -> io::Result<()> {
        let mut rotated = self.rotated()?;
        let keep = self.rotation.max_files.max(2) - 1;
        let surplus = rotated.len().saturating_sub(keep);
        for old in rotated.drain(..surplus) {
            fs::remove_file(old)?;
        }
        let newest = rotated.pop();
        for path in rotated.iter_mut().filter(|path| path.extension().is_none_or(|end| end != "gz")) {
            *path = compress(path)?;
        }
        self.rotated_bytes = rotated
            .iter()
            .chain(&newest)
            .filter_map(|path| fs::metadata(path).ok())
            .map(|meta| meta.len())
            .sum();
        Ok(())
    }

    /// The rotated files, oldest first: their names sort by time.
    fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        let (Some(directory), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(vec![]);
        };
        let mut prefix = name.to_os_string();
        prefix.push(".");
        let prefix = prefix.to_string_lossy().into_owned();
        let mut found: Vec<_> = fs::read_dir(directory)?
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with(&prefix) && !name.ends_with(".tmp")
            })
            .map(|entry| entry.path())
            .collect();
        found.sort_by_key(|path| path.to_string_lossy().trim_end_matches(".gz").to_owned());
        Ok(found)
    }
}

/// Up to the end of the line that crosses `room`: a line is never torn, a file is at most one
/// line too long.
fn through_line(text: &[u8], room: usize) -> usize {
    let Some(rest) = text.get(room.saturating_sub(1)..).filter(|_| room < text.len()) else {
        return text.len();
    };
    rest.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| room.saturating_sub(1) + at + 1)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn compress(path: &Path) -> io::Result<PathBuf> {
    let (partial, whole) = (suffixed(path, ".tmp"), suffixed(path, ".gz"));
    let mut encoder = GzEncoder::new(File::create(&partial)?, Compression::fast());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&partial, &whole)?;
    fs::remove_file(path)?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn read(path: &Path) -> String {
        let mut text = String::new();
        if path.extension().is_some_and(|end| end == "gz") {
            flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        } else {
            text = fs::read_to_string(path).unwrap();
        }
        text
    }

    #[test]
    fn a_log_is_rotated_between_lines_and_the_newest_lines_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c/0.log");
        let mut log = LogFile::new(path.clone(), Rotation { max_bytes: 100, max_files: 3 });
        let mut written = String::new();
        for number in 0..200 {
            let line = format!("line {number:03}\n");
            log.append(line.as_bytes()).unwrap();
            written += &line;
        }
        let rotated = log.rotated().unwrap();
        assert_eq!(rotated.len(), 2);
        assert_eq!(rotated[0].extension().unwrap(), "gz");
        assert_ne!(rotated[1].extension().unwrap(), "gz");
        let kept: String = rotated.iter().chain([&path]).map(|path| read(path)).collect();
        assert!(written.ends_with(&kept) && kept.starts_with("line "), "{kept}");
        let on_disk: u64 = rotated.iter().chain([&path]).map(|p| fs::metadata(p).unwrap().len()).sum();
        assert_eq!(log.bytes_on_disk(), on_disk);
    }

    #[test]
    fn a_batch_larger_than_the_file_is_spread_over_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogFile::new(path, Rotation { max_bytes: 50, max_files: 100 });
        let text: String = (0..100).map(|number| format!("line {number:03}\n")).collect();
        log.append(text.as_bytes()).unwrap();
        let sizes: Vec<_> =
            log.rotated().unwrap().iter().map(|path| read(path)).map(|text| text.len()).collect();
        assert!(sizes.len() >= 15 && sizes.iter().all(|size| (50..60).contains(size)), "{sizes:?}");
    }

    #[test]
    fn a_file_found_on_disk_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        fs::write(&path, "old\n").unwrap();
        let mut log = LogFile::new(path.clone(), Rotation::default());
        log.append(b"new\n").unwrap();
        assert_eq!((read(&path).as_str(), log.bytes_on_disk()), ("old\nnew\n", 8));
    }
}
