//! The log's one writer: gathers what waits and writes it with one sync.
//!
//! A member that is alone puts off what nobody would miss (volatile entries, purges) until the
//! next write that matters. Where its device is full, it takes the entries back that could not be
//! written: they become blank ones, which cost nothing, and whoever proposed them learns of it.
//! A member of many cannot: others may have them already. It waits for space.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::EntryPayload;
use openraft::storage::IOFlushed;
use sampan_store::wal::{LogId, Record, Wal};
use sampan_store::{Background, Command, Machine};
use tokio::sync::oneshot;

use super::{Shared, codec, no_space};
use crate::types::{Entry, RaftLogId, TypeConfig, to_wal};

/// A write is closed at this size, so that its first writer does not wait for too many others.
const BATCH_BYTES: usize = 1 << 20;
/// So many records are put off at most,
const PUT_OFF: usize = 10_000;
/// and this is how often a full device is tried again by one that must wait.
const RETRY: Duration = Duration::from_millis(200);

/// Who waits for a write.
pub(super) enum Done {
    Raft(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<io::Result<()>>),
    Thread(std::sync::mpsc::Sender<io::Result<()>>),
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Raft(flushed) => flushed.io_completed(result),
            // A caller that is gone needs no answer.
            Self::Caller(caller) => drop(caller.send(result)),
            Self::Thread(caller) => drop(caller.send(result)),
        }
    }
}

/// What the writer is asked to do.
pub(super) enum Job {
    /// Write entries.
    Append { entries: Vec<Entry>, done: Done },
    /// Write a vote or a truncation.
    Record { record: Record, done: Done },
    /// Entries up to here are no longer needed.
    Purge { upto: LogId },
    /// Write what was put off.
    Flush { done: Done },
    /// End.
    Stop { flush: bool },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(codec::weight).sum(),
            _ => 0,
        }
    }

    /// Nobody does it any more.
    pub(super) fn refuse(self) {
        match self {
            Self::Append { done, .. } | Self::Record { done, .. } | Self::Flush { done } => {
                done.tell(Err(super::ended()));
            }
            Self::Purge { .. } | Self::Stop { .. } => {}
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    End,
}

pub(super) struct Writer {
    wal: Wal,
    shared: Weak<Shared>,
    machine: Weak<Machine>,
    background: Background,
    /// What the next write says first.
    put_off: Vec<Record>,
    /// The newest commit that the log says.
    committed: Option<RaftLogId>,
    failed: bool,
}

/// What is written together.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    dones: Vec<Done>,
    must_sync: bool,
    purge: Option<LogId>,
    then: Option<Then>,
}

impl Writer {
    pub(super) fn new(wal: Wal, shared: &Arc<Shared>, machine: &Arc<Machine>) -> Self {
        Self {
            wal,
            shared: Arc::downgrade(shared),
            machine: Arc::downgrade(machine),
            background: machine.config().background,
            put_off: Vec::new(),
            committed: None,
            failed: false,
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut bytes = first.bytes();
            let mut batch = vec![first];
            while bytes < BATCH_BYTES {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += job.bytes();
                batch.push(job);
            }
            if self.process(batch) == Then::End {
                break;
            }
        }
        // Whoever asks from now on is told that there is nobody.
        while let Ok(job) = jobs.try_recv() {
            job.refuse();
        }
    }

    /// Does what is asked, with one sync at most but for what does not fit into one segment.
    pub(super) fn process(&mut self, jobs: Vec<Job>) -> Then {
        let Some(shared) = self.shared.upgrade() else {
            jobs.into_iter().for_each(Job::refuse);
            return Then::End;
        };
        let batch = match self.gather(&shared, jobs) {
            Ok(batch) => batch,
            Err((batch, error)) => {
                self.fail(&error);
                return tell(batch, &Err(error));
            }
        };
        let Batch { records, dones, must_sync, purge, then } = batch;
        if let Some(upto) = purge {
            // Before the write: it may need the segments that this frees.
            self.wal.recycle(upto);
        }
        self.put_off.extend(records);
        let result = if self.failed {
            Err(super::ended())
        } else if must_sync || self.put_off.len() > PUT_OFF {
            self.write(&shared, then == Some(Then::End))
        } else {
            Ok(())
        };
        self.note(&shared);
        let batch = Batch { dones, then, ..Batch::default() };
        tell(batch, &result)
    }

    fn gather(&self, shared: &Shared, jobs: Vec<Job>) -> Result<Batch, (Batch, io::Error)> {
        let alone = shared.alone.load(Ordering::SeqCst);
        let mut batch = Batch::default();
        let mut failed = None;
        for job in jobs {
            match job {
                Job::Append { entries, done } => {
                    for entry in &entries {
                        batch.must_sync |= !alone || !codec::is_volatile(entry);
                        match codec::stored_payload_of(entry) {
                            Ok(payload) => {
                                batch.records.push(Record::Entry { id: to_wal(Some(entry.log_id)), payload })
                            }
                            Err(error) => failed = Some(error),
                        }
                    }
                    batch.dones.push(done);
                }
                Job::Record { record, done } => {
                    batch.records.push(record);
                    batch.dones.push(done);
                    batch.must_sync = true;
                }
                Job::Purge { upto } => {
                    batch.records.push(Record::Purge(upto));
                    batch.purge = batch.purge.max(Some(upto));
                }
                Job::Flush { done } => {
                    batch.dones.push(done);
                    batch.must_sync |= !self.put_off.is_empty() || !batch.records.is_empty();
                }
                Job::Stop { flush } => {
                    batch.must_sync |= flush && !(self.put_off.is_empty() && batch.records.is_empty());
                    batch.then = Some(Then::End);
                }
            }
        }
        match failed {
            None => Ok(batch),
            Some(error) => Err((batch, error)),
        }
    }

    /// Writes everything that was put off, and what is new.
    fn write(&mut self, shared: &Shared, last_chance: bool) -> io::Result<()> {
        let committed = shared.memory.lock().committed;
        if committed > self.committed {
            self.put_off.insert(0, Record::Committed(to_wal(committed)));
        }
        loop {
            match self.append_chunks() {
                Ok(()) => {
                    self.committed = self.committed.max(committed);
                    self.note_full(shared, false);
                    return Ok(());
                }
                Err(error) if no_space(&error) => {
                    self.note_full(shared, true);
                    if shared.alone.load(Ordering::SeqCst) && self.take_back(shared) {
                        return Ok(());
                    }
                    if self.background == Background::Inline || last_chance {
                        return Err(error);
                    }
                    std::thread::sleep(RETRY);
                    if self.machine.upgrade().is_none_or(|machine| machine.check().is_err()) {
                        return Err(error);
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    return Err(error);
                }
            }
        }
    }

    /// Appends what was put off, as much at a time as fits into a segment.
    fn append_chunks(&mut self) -> io::Result<()> {
        let limit = self.wal.max_batch().saturating_sub(4 * Wal::RECORD_OVERHEAD).min(4 * BATCH_BYTES);
        while !self.put_off.is_empty() {
            let mut bytes = 0;
            let fits = self.put_off.iter().take_while(|record| {
                bytes += size(record);
                bytes <= limit
            });
            let count = fits.count().max(1);
            let chunk: Vec<Record> = self.put_off.drain(..count).collect();
            if let Err(error) = self.wal.append(&chunk) {
                let rest = std::mem::replace(&mut self.put_off, chunk);
                self.put_off.extend(rest);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes back the entries that a full device did not take. Not a membership: it has a meaning
    /// beyond whoever waits for it.
    fn take_back(&mut self, shared: &Shared) -> bool {
        let blank = match Command::Blank.to_bytes() {
            Ok(blank) => blank,
            Err(_) => return false,
        };
        let mut memory = shared.memory.lock();
        let entries = memory.read(&.., usize::MAX);
        let by_id = |id: &LogId| entries.iter().find(|entry| to_wal(Some(entry.log_id)) == *id);
        let kept =
            |id: &LogId| by_id(id).is_none_or(|entry| matches!(entry.payload, EntryPayload::Membership(_)));
        if self.put_off.iter().any(|record| matches!(record, Record::Entry { id, .. } if kept(id))) {
            return false;
        }
        for record in &mut self.put_off {
            let Record::Entry { id, payload } = record else { continue };
            // Blank entries and volatile ones are no loss.
            let stands_for_another = |command: Command| command.placeholder().is_some();
            if *payload == blank || Command::from_bytes(payload).is_ok_and(stands_for_another) {
                continue;
            }
            if let Some(entry) = by_id(id) {
                memory.take_back(entry.log_id);
            }
            *payload = blank.clone();
        }
        true
    }

    fn note_full(&self, shared: &Shared, full: bool) {
        if shared.full.swap(full, Ordering::SeqCst) != full
            && let Some(machine) = self.machine.upgrade()
        {
            machine.note_log_full(full);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.failed = true;
        if let Some(machine) = self.machine.upgrade() {
            machine.fail(&format!("the log cannot be written: {error}"));
        }
    }

    /// Tells the machine how much log waits for a checkpoint.
    fn note(&self, shared: &Shared) {
        let Some(machine) = self.machine.upgrade() else { return };
        let tail = if shared.alone.load(Ordering::SeqCst) { 0 } else { crate::store::TAIL_BYTES };
        machine.note_log(self.wal.bytes_in_use().saturating_sub(tail as u64));
    }
}

/// At most what a record takes.
fn size(record: &Record) -> usize {
    const SMALL: usize = 64;
    let payload = match record {
        Record::Entry { payload, .. } => payload.len(),
        _ => SMALL,
    };
    payload + Wal::RECORD_OVERHEAD
}

fn tell(batch: Batch, result: &io::Result<()>) -> Then {
    for done in batch.dones {
        done.tell(match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        });
    }
    batch.then.unwrap_or(Then::GoOn)
}
