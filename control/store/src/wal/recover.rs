//! Reading the log back: which records stand, where the stream ends, and what is damage.
//!
//! The end of the last segment may be torn: nothing after the last whole frame was ever
//! acknowledged. Anywhere else a broken frame is damage: a segment's head says where the one
//! before it ended, so nothing can go missing unnoticed.

use std::collections::VecDeque;
use std::path::PathBuf;

use bytes::Bytes;

use super::record::{Chain, FORMAT, LogId, LogState, Record, read_frame};
use super::segment::{Segment, Segments};
use super::{Full, Recovered, Wal, WalError};

/// What one segment says.
struct Scan {
    records: Vec<Record>,
    used: u64,
    chain: Chain,
}

pub(super) fn recover(
    segments: Segments,
    applied: LogId,
    installed: LogId,
) -> Result<(Wal, Recovered), WalError> {
    let dir = segments.dir().to_owned();
    let numbers = segments.numbers().map_err(|source| WalError::Io { path: dir.clone(), source })?;
    let mut replay = Replay::new(applied);
    let mut full = VecDeque::new();
    let mut current: Option<(Segment, Chain)> = None;
    for number in &numbers {
        let path = segments.path(*number);
        let io = |source| WalError::Io { path: path.clone(), source };
        let scan = scan(&segments.read(*number).map_err(io)?, *number, &path)?;
        if let Some((before, _)) = current.take() {
            full.push_back(Full { number: before.number(), last: replay.state.last });
        }
        if scan.records.is_empty() {
            // Nothing in it became durable, or it is damaged: then the next one's head, which
            // says where the log ended, does not fit.
            full.push_back(Full { number: *number, last: replay.state.last });
            continue;
        }
        replay.segment(&scan.records).map_err(|why| corrupt(path.clone(), &why))?;
        current = Some((segments.resume(*number, scan.used).map_err(io)?, scan.chain));
    }
    let mut jump = None;
    if replay.state.last.index < applied.index && applied == installed {
        // The program ended between the installation of a whole state and the log's being told.
        replay.state.apply(&Record::Purge(applied));
        jump = Some(applied);
    }
    if replay.state.last.index < applied.index {
        let why = format!("ends at entry {}, but the tables hold entries up to {applied}", replay.state.last);
        return Err(corrupt(dir, &why));
    }
    let next_number = numbers.last().map_or(1, |last| last + 1);
    let (current, chain) = match current {
        Some((segment, chain)) => (Some(segment), chain),
        None => (None, Chain::of_segment(0)),
    };
    let mut state = replay.state;
    state.purged = state.purged.max(replay.begins_after);
    let mut entries: Vec<_> = replay.entries.into();
    entries.retain(|(id, _)| id.index > state.purged.index);
    let recovered = Recovered { entries };
    let wal = Wal { segments, current, full, next_number, chain, state, unsure: true, jump };
    Ok((wal, recovered))
}

fn scan(bytes: &[u8], number: u64, path: &std::path::Path) -> Result<Scan, WalError> {
    let mut chain = Chain::of_segment(number);
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some((payload, after)) = read_frame(rest, &mut chain) {
        let record: Record = postcard::from_bytes(payload)
            .map_err(|error| corrupt(path.to_owned(), &format!("has a record of unknown form: {error}")))?;
        match (&record, records.is_empty()) {
            (Record::Head { format, .. }, _) if *format > FORMAT => {
                return Err(WalError::NewerFormat { path: path.to_owned(), found: *format });
            }
            (Record::Head { segment, .. }, true) if *segment == number => {}
            (Record::Head { .. }, _) | (_, true) => {
                return Err(corrupt(path.to_owned(), "does not begin as its name says"));
            }
            _ => {}
        }
        records.push(record);
        rest = after;
    }
    Ok(Scan { records, used: (bytes.len() - rest.len()) as u64, chain })
}

/// The stream's state while it is read.
struct Replay {
    applied: LogId,
    started: bool,
    /// The entry before the first that is left.
    begins_after: LogId,
    state: LogState,
    entries: VecDeque<(LogId, Bytes)>,
}

impl Replay {
    fn new(applied: LogId) -> Self {
        Self {
            applied,
            started: false,
            begins_after: LogId::default(),
            state: LogState::default(),
            entries: VecDeque::new(),
        }
    }

    fn segment(&mut self, records: &[Record]) -> Result<(), String> {
        for record in records {
            match record {
                Record::Head { state, .. } => self.head(state)?,
                Record::Entry { id, payload } => self.entry(*id, payload)?,
                Record::TruncateAfter(id) => self.truncate_after(*id),
                Record::Vote(_) | Record::Purge(_) | Record::Committed(_) | Record::Resumed { .. } => {}
            }
            self.state.apply(record);
        }
        Ok(())
    }

    fn head(&mut self, state: &LogState) -> Result<(), String> {
        let ends = self.state.last.index;
        if self.started && ends < state.last.index {
            return Err(format!(
                "follows entry {}, but the log before it ends at entry {ends}",
                state.last.index
            ));
        }
        if !self.started && state.last.index > self.applied.index {
            return Err(format!(
                "begins behind entry {}, but the tables hold entries up to {} only",
                state.last, self.applied
            ));
        }
        if !self.started {
            self.begins_after = state.last;
        }
        self.started = true;
        self.truncate_after(state.last);
        Ok(())
    }

    fn entry(&mut self, id: LogId, payload: &Bytes) -> Result<(), String> {
        if id.index != self.state.last.index + 1 {
            return Err(format!("has entry {id} after entry {}", self.state.last));
        }
        self.entries.push_back((id, payload.clone()));
        Ok(())
    }

    fn truncate_after(&mut self, id: LogId) {
        while self.entries.back().is_some_and(|(last, _)| last.index > id.index) {
            self.entries.pop_back();
        }
    }
}

fn corrupt(path: PathBuf, why: &str) -> WalError {
    WalError::Corrupt { path, why: why.to_owned() }
}
