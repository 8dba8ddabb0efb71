//! A log as a stream of bytes, across rotations, for as long as its container lives.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

use super::log_options::LogOptions;
use super::log_reader::{Filter, tail_offset};
use crate::manager::Slot;

/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Hand out this much at once, at most.
const CHUNK: usize = 32 << 10;
/// So many chunks may wait for a slow reader.
const AHEAD: usize = 4;

/// Whose log is read.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The pod.
    pub slot: Arc<Slot>,
    /// The container's name.
    pub container: String,
    /// Which of its containers.
    pub id: sampan_cri::ContainerId,
    /// The file.
    pub path: PathBuf,
}

impl Subject {
    /// Whether the container can still write.
    fn is_alive(&self) -> bool {
        self.slot
            .record(&self.container, false)
            .is_some_and(|newest| newest.id == self.id && newest.exit().is_none())
    }
}

/// The log as the options say. The stream ends with the file, or with the container.
pub fn stream(subject: Subject, options: LogOptions) -> impl Stream<Item = std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let failed = sender.clone();
        if let Err(error) = run(subject, options, sender).await {
            failed.send(Err(error)).await.ok();
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

type Sender = mpsc::Sender<std::io::Result<Bytes>>;

async fn run(subject: Subject, options: LogOptions, sender: Sender) -> std::io::Result<()> {
    let follow = options.follow;
    let mut reader = Reader::new(subject.path.clone(), options);
    loop {
        // Asked before reading, so that what is written before the end is read after it.
        let alive = follow && subject.is_alive();
        loop {
            let (back, read) = tokio::task::spawn_blocking(move || {
                let read = reader.read();
                (reader, read)
            })
            .await
            .map_err(std::io::Error::other)?;
            reader = back;
            match read? {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => {
                    if sender.send(Ok(bytes)).await.is_err() {
                        return Ok(());
                    }
                }
                None => break,
            }
        }
        if reader.filter.is_full() || !alive {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Reads a log file and the files that take its place.
struct Reader {
    path: PathBuf,
    filter: Filter,
    file: Option<File>,
    /// Rotated files that are still to be read before the present one.
    next: Vec<PathBuf>,
    tail: Option<u64>,
}

impl Reader {
    fn new(path: PathBuf, options: LogOptions) -> Self {
        Self { path, tail: options.tail, filter: Filter::new(options), file: None, next: Vec::new() }
    }

    /// The next bytes (perhaps none, if all were filtered out); `None`: there are no more now.
    fn read(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.filter.is_full() || !self.open()? {
            return Ok(None);
        }
        let mut buffer = vec![0; CHUNK];
        let count = match &mut self.file {
            Some(file) => file.read(&mut buffer)?,
            None => 0,
        };
        if count == 0 {
            return Ok(self.advance().then(Bytes::new));
        }
        let mut out = Vec::with_capacity(count);
        self.filter.push(buffer.get(..count).unwrap_or_default(), &mut out);
        Ok(Some(out.into()))
    }

    fn open(&mut self) -> std::io::Result<bool> {
        if self.file.is_some() {
            return Ok(true);
        }
        let path = if self.next.is_empty() { self.path.clone() } else { self.next.remove(0) };
        match File::open(&path) {
            Ok(mut file) => {
                if let Some(lines) = self.tail.take() {
                    let offset = tail_offset(&mut file, lines)?;
                    file.seek(SeekFrom::Start(offset))?;
                }
                self.file = Some(file);
                Ok(true)
            }
            // Nothing was written yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// At a file's end: whether another one has taken its place.
    fn advance(&mut self) -> bool {
        if !self.next.is_empty() {
            self.file = None;
            return true;
        }
        let inode = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let held = self.file.as_ref().and_then(|file| file.metadata().ok()).map(inode);
        let present = std::fs::metadata(&self.path).ok().map(inode);
        if held == present {
            return false;
        }
        // What was put aside after the file that we held comes before the present one.
        let rotated = rotated(&self.path);
        let ours = rotated.iter().position(|path| std::fs::metadata(path).ok().map(inode) == held);
        let missed = ours.and_then(|at| rotated.get(at + 1..)).unwrap_or_default();
        let missed = missed.iter().filter(|path| path.extension().is_none_or(|end| end != "gz")).cloned();
        self.next = missed.collect();
        if self.next.is_empty() && present.is_none() {
            return false;
        }
        self.file = None;
        true
    }
}

/// The rotated predecessors of a log, oldest first: their names end in a time.
fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        format!("2026-01-01T00:00:01.000000000Z stdout F {text}\n")
    }

    fn append(path: &Path, text: &str) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line(text).as_bytes()).unwrap();
    }

    fn drain(reader: &mut Reader) -> String {
        let mut all = Vec::new();
        while let Some(bytes) = reader.read().unwrap() {
            all.extend_from_slice(&bytes);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_log_is_followed_across_rotations_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut reader = Reader::new(path.clone(), LogOptions::default());
        assert_eq!(drain(&mut reader), "", "a log that is not there yet is empty");
        append(&path, "one");
        assert_eq!(drain(&mut reader), "one\n");
        append(&path, "two");
        std::fs::rename(&path, dir.path().join("0.log.20260101-000001")).unwrap();
        assert_eq!(drain(&mut reader), "two\n");
        assert_eq!(drain(&mut reader), "", "the next file is not there yet");
        append(&path, "three");
        std::fs::rename(&path, dir.path().join("0.log.20260101-000002")).unwrap();
        append(&path, "four");
        std::fs::rename(&path, dir.path().join("0.log.20260101-000003")).unwrap();
        append(&path, "five");
        assert_eq!(drain(&mut reader), "three\nfour\nfive\n");
    }

    #[test]
    fn the_tail_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for text in ["one", "two", "three"] {
            append(&path, text);
        }
        let mut reader = Reader::new(path.clone(), LogOptions { tail: Some(1), ..Default::default() });
        assert_eq!(drain(&mut reader), "three\n");
        append(&path, "four");
        assert_eq!(drain(&mut reader), "four\n");
    }
}
