//! The write-ahead log: one ordered stream of records in segments written beforehand and used
//! again and again.
//!
//! Appending to a file that grows costs the device two to four times the bytes, since the file
//! system journals each change of length; here only data blocks are rewritten in place. A
//! segment begins with a [`Record::Head`] that says all that older segments said, so a segment
//! whose entries are all in the tables is free at once, to become a later segment.
//!
//! One thread owns a [`Wal`] and calls it: [`Wal::append`] returns once the records are durable.
//! It never runs on its own and knows nothing of what entries mean. With votes, truncation and
//! commit marks in its stream it is a Raft log as well as the log of a single node.

mod record;
mod recover;
mod segment;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
pub(crate) use record::FORMAT;
use record::{Chain, FRAME, begin_frame, end_frame, seal_frames};
pub use record::{LogId, LogState, Record, Vote};
use segment::{Segment, Segments};

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A segment that must be whole is not.
    #[error("log segment {} {why}", path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer program wrote it.
    #[error("log segment {} has format {found}; this program knows up to {FORMAT}", path.display())]
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// Its format.
        found: u16,
    },
    /// Reading or writing failed.
    #[error("the log in {} cannot be used", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// What the log held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The entries that are left after the last purged one, in order.
    pub entries: Vec<(LogId, bytes::Bytes)>,
}

/// A segment that is no longer written to, and the last entry in it or before it.
#[derive(Debug)]
struct Full {
    number: u64,
    last: LogId,
}

/// See the module's description.
#[derive(Debug)]
pub struct Wal {
    segments: Segments,
    current: Option<Segment>,
    /// Older segments that still hold entries that are needed.
    full: VecDeque<Full>,
    next_number: u64,
    chain: Chain,
    state: LogState,
    /// Whether frames that were never acknowledged may lie behind the end.
    unsure: bool,
    /// What the next append must say first, so that its entries follow what is in the tables.
    jump: Option<LogId>,
}

impl Wal {
    /// Opens the log in `dir`, making it if there is none. `applied` is the last entry that the
    /// tables hold. It must not lie beyond the log's end, unless it is `installed`, the last one
    /// of a state that was put into the tables as a whole. What is found is durable.
    pub fn open(
        dir: &Path,
        segment_bytes: usize,
        disk: &Disk,
        applied: LogId,
        installed: LogId,
    ) -> Result<(Self, Recovered), WalError> {
        let segments = Segments::open(dir, segment_bytes, disk)
            .map_err(|source| WalError::Io { path: dir.to_owned(), source })?;
        recover::recover(segments, applied, installed)
    }

    /// The most bytes that the payloads of one [`Wal::append`] may have, counting
    /// [`Wal::RECORD_OVERHEAD`] for each.
    pub fn max_batch(&self) -> usize {
        Self::max_batch_of(self.segments.size())
    }

    /// The same for segments of so many bytes.
    pub fn max_batch_of(segment_bytes: usize) -> usize {
        segment_bytes.saturating_sub(segment::HEAD_ROOM)
    }

    /// What a record costs beside its payload.
    pub const RECORD_OVERHEAD: usize = FRAME + 32;

    /// What the stream says so far.
    pub fn state(&self) -> LogState {
        self.state
    }

    /// The bytes of log that a restart would read.
    pub fn bytes_in_use(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, Segment::used);
        (self.full.len() * self.segments.size()) as u64 + current
    }

    /// Appends records, all in one segment, and makes them durable. After an error none of them
    /// is in the log, and the next call tries anew.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut extra = Vec::new();
        if self.unsure {
            extra.push(Record::Resumed { nonce: RandomState::new().hash_one(()) });
        }
        extra.extend(self.jump.map(Record::Purge));
        let mut state = self.state;
        let mut batch = Batch::default();
        for record in &extra {
            batch.push(record)?;
        }
        for record in records {
            batch.push(record)?;
            state.apply(record);
        }
        if batch.bytes.len() > self.max_batch() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a batch exceeds the log's segments"));
        }
        match &self.current {
            Some(segment) if segment.room() >= batch.bytes.len() => self.append_here(batch)?,
            _ => self.append_in_next_segment(batch)?,
        }
        self.state = state;
        self.unsure = false;
        self.jump = None;
        Ok(())
    }

    /// Lets segments go whose entries all are in the tables.
    pub fn recycle(&mut self, applied: LogId) {
        while self.full.front().is_some_and(|full| full.last.index <= applied.index) {
            if let Some(full) = self.full.pop_front() {
                self.segments.recycle(full.number);
            }
        }
    }

    fn append_here(&mut self, mut batch: Batch) -> io::Result<()> {
        let Some(segment) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let mut chain = self.chain;
        batch.seal(&mut chain)?;
        if let Err(error) = segment.append(&batch.bytes) {
            // Nobody knows what of it the device holds: its beginning is wiped if the device lets
            // us, and what is left behind never follows from the frames that come next.
            self.unsure = true;
            if let Err(error) = segment.take_back() {
                tracing::warn!(%error, "the log could not wipe a refused write");
            }
            return Err(error);
        }
        self.chain = chain;
        Ok(())
    }

    fn append_in_next_segment(&mut self, batch: Batch) -> io::Result<()> {
        let number = self.next_number;
        let mut segment = self.segments.acquire(number)?;
        self.next_number += 1;
        let mut whole = Batch::default();
        whole.push(&Record::Head { format: FORMAT, segment: number, state: self.state })?;
        whole.bytes.extend_from_slice(&batch.bytes);
        let mut chain = Chain::of_segment(number);
        whole.seal(&mut chain)?;
        if let Err(error) = segment.append(&whole.bytes) {
            // Whatever it holds is void: the next segment's head says where the log ended.
            drop(segment);
            self.segments.recycle(number);
            return Err(error);
        }
        if let Some(full) = self.current.replace(segment) {
            self.full.push_back(Full { number: full.number(), last: self.state.last });
        }
        self.chain = chain;
        Ok(())
    }
}

/// The frames of records that are written together; sealed once it is known where.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    fn push(&mut self, record: &Record) -> io::Result<()> {
        let start = self.bytes.len();
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.reserve(FRAME + record.size_hint());
        begin_frame(&mut bytes);
        self.bytes = postcard::to_io(record, bytes).map_err(io::Error::other)?;
        end_frame(&mut self.bytes, start).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Gives each frame its checksum.
    fn seal(&mut self, chain: &mut Chain) -> io::Result<()> {
        seal_frames(&mut self.bytes, chain).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests;
