//! Container logs: from the guest's output streams to files in the CRI format.
//!
//! [`Log`] is the bounded queue between a guest and its file; a guest waits when it is full.
//! There is no task and no open file per container: whoever puts the first chunk into an empty
//! queue starts a writer on the blocking threads, which leaves when the queue is empty.

mod format;
mod rotate;
mod stream;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use self::format::Formatter;
pub(crate) use self::format::Source;
use self::rotate::LogFile;
pub use self::rotate::Rotation;
pub(crate) use self::stream::LogStream;

/// How many bytes may wait to be written; then the guest waits.
const CAPACITY: usize = 64 << 10;

/// What a chunk costs beside its bytes, so that a guest that writes single bytes waits too.
const OVERHEAD: usize = 64;

struct Chunk {
    source: Source,
    time: SystemTime,
    bytes: Bytes,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    writing: bool,
    closed: bool,
    waiting: Vec<Waker>,
}

/// What the writer holds between bursts. Only one writer runs at a time.
struct Writer {
    formatter: Formatter,
    file: LogFile,
}

struct Shared {
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    written: Notify,
    bytes_on_disk: AtomicU64,
    lost: AtomicBool,
    blocking: Handle,
}

/// A container's log. Clones share it.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

impl Log {
    /// A log at `path`, written on the blocking threads of `blocking`. Nothing is made on disk
    /// before the first line.
    #[must_use]
    pub(crate) fn new(path: PathBuf, rotation: Rotation, blocking: Handle) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            writer: Mutex::new(Writer {
                formatter: Formatter::default(),
                file: LogFile::new(path, rotation),
            }),
            written: Notify::new(),
            bytes_on_disk: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            blocking,
        }))
    }

    /// One of the guest's two output streams.
    #[must_use]
    pub(crate) fn stream(&self, source: Source) -> LogStream {
        LogStream::new(self.clone(), source)
    }

    /// Makes the file, empty, where there is none, so that a reader finds it.
    pub(crate) fn touch(&self) {
        self.0.writer.lock().file.touch();
    }

    /// Adds a whole line of the host's own (a trap's text) to the guest's error stream.
    pub(crate) fn line(&self, text: &str) {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend_from_slice(text.trim_end().as_bytes());
        bytes.push(b'\n');
        self.push(Source::Stderr, bytes.into());
    }

    /// Bytes of the log's files on disk.
    #[must_use]
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.0.bytes_on_disk.load(Ordering::Relaxed)
    }

    /// Ends the log: what waits is written, unfinished lines are finished, the file closed.
    pub(crate) async fn close(&self) {
        {
            let mut queue = self.0.queue.lock();
            queue.closed = true;
            self.start_writer(&mut queue);
        }
        loop {
            let written = self.0.written.notified();
            if !self.0.queue.lock().writing {
                return;
            }
            written.await;
        }
    }

    /// How many bytes a guest may write now.
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.0.queue.lock().bytes)
    }

    /// Waits for room.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut queue = self.0.queue.lock();
        match CAPACITY.saturating_sub(queue.bytes) {
            0 => {
                if !queue.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    queue.waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    fn push(&self, source: Source, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let chunk = Chunk { source, time: SystemTime::now(), bytes };
        let mut queue = self.0.queue.lock();
        queue.bytes += chunk.bytes.len() + OVERHEAD;
        queue.chunks.push_back(chunk);
        self.start_writer(&mut queue);
    }

    fn start_writer(&self, queue: &mut Queue) {
        if !std::mem::replace(&mut queue.writing, true) {
            let log = self.clone();
            self.0.blocking.spawn_blocking(move || log.write_out());
        }
    }

    /// The writer: batches until the queue is empty. Runs on a blocking thread.
    fn write_out(&self) {
        let mut writer = self.0.writer.lock();
        let mut text = Vec::new();
        loop {
            let (chunks, closed) = {
                let mut queue = self.0.queue.lock();
                if queue.chunks.is_empty() && !queue.closed {
                    queue.writing = false;
                    break;
                }
                queue.bytes = 0;
                queue.waiting.drain(..).for_each(Waker::wake);
                (std::mem::take(&mut queue.chunks), queue.closed)
            };
            for chunk in &chunks {
                writer.formatter.chunk(chunk.source, chunk.time, &chunk.bytes, &mut text);
            }
            let last = closed && chunks.is_empty();
            if last {
                writer.formatter.finish(&mut text);
            }
            self.append(&mut writer, &text);
            text.clear();
            if last {
                let mut queue = self.0.queue.lock();
                queue.closed = false;
                queue.writing = false;
                break;
            }
        }
        writer.file.rest();
        drop(writer);
        self.0.written.notify_waiters();
    }

    /// A full disk loses lines, not the guest; said once, until a write succeeds again.
    fn append(&self, writer: &mut Writer, text: &[u8]) {
        match writer.file.append(text) {
            Ok(()) => self.0.lost.store(false, Ordering::Relaxed),
            Err(error) if !self.0.lost.swap(true, Ordering::Relaxed) => {
                tracing::warn!(path = %writer.file.path().display(), %error, "container log lines are lost");
            }
            Err(_) => {}
        }
        self.0.bytes_on_disk.store(writer.file.bytes_on_disk(), Ordering::Relaxed);
    }
}
