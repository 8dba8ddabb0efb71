//! The log thread: gathers what waits, logs it with one sync, applies it, answers.
//!
//! It is the one writer of the state. Transactions that turn out to change nothing are answered
//! without the log. Volatile keyspaces skip the log, too: they go first in their batch, on
//! revisions reserved by the block, so that every logged entry knows the revision counter it
//! meets. When the overlay is full it becomes a frozen generation for the checkpoint thread;
//! when both are full, writers wait here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;

use super::batch::{Batch, Proposal, Reply, Touched, logged_size};
use super::checkpointer::{Job, chain};
use super::shared::Shared;
use crate::disk::is_no_space;
use crate::machine::{Command, Frozen, Home};
use crate::read::Reader;
use crate::storage::StorageError;
use crate::tables::Tables;
use crate::types::Txn;
use crate::wal::{LogId, Record, Wal};

/// How many revisions volatile keyspaces use up before they cost the log an entry.
const RESERVE: u64 = 10_000;
/// A batch is closed at this size, so that its first writer does not wait for too many others.
const BATCH_BYTES: usize = 1 << 20;
/// Nor is it ever larger than this; the largest transaction fits.
const MOST_BYTES: usize = 2 * crate::MAX_TXN_BYTES;
/// The term of a node that is alone.
const TERM: u64 = 1;

/// What the log thread is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Txn(Proposal),
    Compact {
        revision: u64,
        reply: Option<Reply<()>>,
    },
    CompactVolatile {
        revision: u64,
    },
    /// Bring everything applied so far into the tables.
    Checkpoint {
        reply: Reply<()>,
    },
    /// Put restored tables in the place of everything.
    Install {
        tables: Box<Tables>,
        snapshot: crate::snapshot::Header,
        reply: Reply<u64>,
    },
    /// Checkpoint, then end.
    Close {
        reply: Reply<()>,
    },
    /// End, as a crash would.
    Stop,
}

pub(super) struct Engine {
    shared: Arc<Shared>,
    wal: Wal,
    requests: Receiver<Request>,
    checkpointer: Sender<Job>,
    /// The request that did not fit into the last batch.
    waiting: Option<Request>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    End,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        wal: Wal,
        requests: Receiver<Request>,
        checkpointer: Sender<Job>,
    ) -> Self {
        Self { shared, wal, requests, checkpointer, waiting: None }
    }

    pub(super) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        loop {
            let (batch, control) = self.gather();
            if !batch.is_empty() {
                self.commit(batch);
            }
            let then = match control {
                Some(request) => self.control(request),
                None => Then::GoOn,
            };
            if then == Then::End {
                return;
            }
        }
    }

    /// Waits for something to do, then takes what is there. A request that is no transaction
    /// ends the batch and comes after it.
    fn gather(&mut self) -> (Batch, Option<Request>) {
        let limit = self.wal.max_batch().saturating_sub(4 * Wal::RECORD_OVERHEAD).min(MOST_BYTES);
        let mut batch = Batch::default();
        let mut next = match self.waiting.take() {
            Some(request) => Some(request),
            // Whoever asks is gone: the same as being told to stop.
            None => Some(self.requests.recv().unwrap_or(Request::Stop)),
        };
        while let Some(request) = next {
            match request {
                Request::Txn(proposal) => {
                    let bytes = logged_size(&proposal.txn);
                    if bytes > limit {
                        let refusal = StorageError::TooLarge { size: bytes, limit };
                        let _ = proposal.reply.send(Err(refusal));
                    } else if batch.takes(bytes, limit) {
                        batch.push(proposal, bytes);
                    } else {
                        self.waiting = Some(Request::Txn(proposal));
                        break;
                    }
                }
                Request::Compact { revision, reply } => batch.compact(revision, reply),
                control => return (batch, Some(control)),
            }
            if !batch.takes(0, BATCH_BYTES) {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        (batch, None)
    }

    fn commit(&mut self, batch: Batch) {
        let mut batch = batch;
        let shared = Arc::clone(&self.shared);
        self.answer_unchanged(&Reader::new(&shared.core), &mut batch);
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.make_room() {
            return refuse(batch, &error);
        }
        // Only now: making room moves what a reader holds on to.
        let reader = Reader::new(&shared.core);
        let reserved = {
            let position = &shared.core.state.read().position;
            position.reserved.saturating_sub(position.revision)
        };
        let (volatile, durable): (Vec<_>, Vec<_>) = std::mem::take(&mut batch.proposals)
            .into_iter()
            .partition(|proposal| proposal.home == Home::Volatile);
        let reserve = volatile.len() as u64 > reserved;
        let (early, late) = if reserve { (Vec::new(), volatile) } else { (volatile, Vec::new()) };
        self.apply_volatile(&reader, early);
        self.commit_logged(&reader, Logged { durable, compactions: batch.compactions, reserve, late });
    }

    /// Answers those that change nothing, unless an earlier one of the batch may make them do so.
    fn answer_unchanged(&self, reader: &Reader<'_>, batch: &mut Batch) {
        let mut touched = Touched::default();
        let mut left = Vec::with_capacity(batch.proposals.len());
        for proposal in batch.proposals.drain(..) {
            let answer = if touched.concerns(&proposal.txn) {
                Ok(None)
            } else {
                self.shared.core.answer_unchanged(reader, &proposal.txn)
            };
            match answer {
                Ok(None) => {
                    touched.add(&proposal.txn);
                    left.push(proposal);
                }
                Ok(Some(answer)) => send(proposal.reply, Ok(answer)),
                Err(error) => send(proposal.reply, Err(error)),
            }
        }
        batch.proposals = left;
    }

    fn apply_volatile(&self, reader: &Reader<'_>, proposals: Vec<Proposal>) {
        for Proposal { txn, reply, .. } in proposals {
            send(reply, self.shared.core.apply_txn(reader, 0, &txn));
        }
    }

    fn commit_logged(&mut self, reader: &Reader<'_>, logged: Logged) {
        let Logged { durable, compactions, reserve, late } = logged;
        let revision = self.shared.core.state.read().position.revision;
        let mut commands: Vec<Command> = Vec::with_capacity(durable.len() + 2);
        let mut replies = Vec::with_capacity(durable.len());
        for Proposal { txn, reply, .. } in durable {
            commands.push(Command::Txn { floor: revision, txn });
            replies.push(reply);
        }
        let transactions = commands.len();
        for (revision, _) in &compactions {
            commands.push(Command::Compact { revision: *revision });
        }
        if reserve {
            let upto = revision + transactions as u64 + late.len() as u64 + RESERVE;
            commands.push(Command::Reserve { upto });
        }
        if commands.is_empty() {
            return self.apply_volatile(reader, late);
        }
        if let Err(error) = self.log(&commands) {
            let left = replies.into_iter().chain(late.into_iter().map(|proposal| proposal.reply));
            left.for_each(|reply| send(reply, Err(again(&error))));
            let compactions = compactions.into_iter().filter_map(|(_, reply)| reply);
            return compactions.for_each(|reply| send(reply, Err(again(&error))));
        }
        let mut replies = replies.into_iter();
        let first = self.wal.state().last.index + 1 - commands.len() as u64;
        for (index, command) in (first..).zip(&commands) {
            self.apply(reader, index, command, &mut replies);
        }
        compactions.into_iter().filter_map(|(_, reply)| reply).for_each(|reply| send(reply, Ok(())));
        self.apply_volatile(reader, late);
    }

    /// Makes commands durable.
    fn log(&mut self, commands: &[Command]) -> Result<(), StorageError> {
        let mut records = Vec::with_capacity(commands.len() + 1);
        let checkpointed = self.shared.progress().checkpointed;
        if checkpointed > self.wal.state().purged {
            records.push(Record::Purge(checkpointed));
        }
        let next = self.wal.state().last.index + 1;
        for (index, command) in (next..).zip(commands) {
            let payload = postcard::to_allocvec(command)
                .map_err(|error| StorageError::Invalid { why: error.to_string() })?;
            records.push(Record::Entry { id: LogId { term: TERM, index }, payload: Bytes::from(payload) });
        }
        // Before the append: it may need the segments that this frees.
        self.wal.recycle(checkpointed);
        let result = self.wal.append(&records);
        self.shared.log_bytes.store(self.wal.bytes_in_use(), Ordering::Relaxed);
        match result {
            Ok(()) => {
                if self.shared.progress().log_full {
                    tracing::info!("there is space again for the store's log");
                    self.shared.update(|progress| progress.log_full = false);
                }
                Ok(())
            }
            Err(error) if is_no_space(&error) => {
                if !self.shared.progress().log_full {
                    tracing::warn!("no space left for the store's log; writes are refused");
                    self.shared.update(|progress| progress.log_full = true);
                }
                Err(StorageError::NoSpace)
            }
            Err(error) => {
                let why = format!("the log cannot be written: {error}");
                self.shared.fail(&why);
                Err(StorageError::Unavailable { why })
            }
        }
    }

    /// Applies a logged command. If that fails, state and log part ways: the store must end.
    fn apply(
        &self,
        reader: &Reader<'_>,
        index: u64,
        command: &Command,
        replies: &mut impl Iterator<Item = Reply<crate::machine::Answer>>,
    ) {
        let core = &self.shared.core;
        match command {
            Command::Txn { floor, txn } => {
                let result = if let Some(why) = self.shared.progress().failed {
                    Err(StorageError::Unavailable { why })
                } else {
                    core.apply_txn(reader, *floor, txn)
                };
                if let Err(error) = &result {
                    self.shared.fail(&format!("a transaction could not be applied: {}", chain(error)));
                }
                if let Some(reply) = replies.next() {
                    send(reply, result);
                }
            }
            Command::Reserve { upto } => core.reserve(*upto),
            Command::Compact { revision } => core.apply_compaction(*revision),
        }
        core.state.write().position.applied = LogId { term: TERM, index };
    }

    /// Sees to it that the overlay has room for another batch.
    fn make_room(&mut self) -> Result<(), StorageError> {
        if let Some(why) = self.shared.progress().failed {
            return Err(StorageError::Unavailable { why });
        }
        let config = &self.shared.config;
        let (limit, segment) = (config.checkpoint_bytes, config.segment_bytes);
        let (overlay, frozen) = {
            let state = self.shared.core.state.read();
            (state.active.bytes(), state.frozen.is_some())
        };
        // Entries that leave nothing in the overlay fill the log, too.
        let log = usize::try_from(self.wal.bytes_in_use()).unwrap_or(usize::MAX);
        let full = overlay >= limit || log > 4 * limit + 3 * segment;
        if frozen && (overlay >= 2 * limit || log > 8 * limit + 6 * segment) {
            self.shared.wait_for_checkpoint()?;
        } else if frozen || !full {
            return Ok(());
        }
        self.freeze();
        Ok(())
    }

    /// Hands the overlay to the checkpoint thread. There must be no frozen generation.
    fn freeze(&self) {
        let checkpointed = self.shared.progress().checkpointed;
        let mut state = self.shared.core.state.write();
        if state.frozen.is_some() || state.position.applied <= checkpointed && state.active.is_empty() {
            return;
        }
        let frozen = Frozen { layer: std::mem::take(&mut state.active), position: state.position.clone() };
        state.frozen = Some(Arc::new(frozen));
        drop(state);
        // The checkpoint thread outlives this one.
        let _ = self.checkpointer.send(Job::Checkpoint);
    }

    /// Brings everything applied so far into the tables.
    fn checkpoint(&self) -> Result<(), StorageError> {
        self.shared.wait_for_checkpoint()?;
        self.freeze();
        self.shared.wait_for_checkpoint()
    }

    fn control(&mut self, request: Request) -> Then {
        match request {
            Request::CompactVolatile { revision } => self.shared.core.compact_volatile(revision),
            Request::Checkpoint { reply } => send(reply, self.checkpoint()),
            Request::Install { tables, snapshot, reply } => send(reply, self.install(*tables, &snapshot)),
            Request::Close { reply } => {
                // Where a checkpoint cannot be, the log has everything all the same.
                if let Err(error) = self.checkpoint() {
                    tracing::warn!(error = chain(&error), "the store closes without a checkpoint");
                }
                let _ = self.checkpointer.send(Job::Finish);
                send(reply, Ok(()));
                return Then::End;
            }
            Request::Stop => return Then::End,
            // Gathered before it comes here.
            Request::Txn(_) | Request::Compact { .. } => {}
        }
        Then::GoOn
    }

    /// Puts restored tables in the place of everything, with one rename.
    fn install(
        &mut self,
        mut tables: Tables,
        snapshot: &crate::snapshot::Header,
    ) -> Result<u64, StorageError> {
        self.shared.wait_for_checkpoint()?;
        let core = &self.shared.core;
        let mut position = core.state.read().position.clone();
        position.restore(snapshot, tables.meta().position.keys);
        let revision = position.revision;
        tables.reposition(position.clone())?;
        let path = self.shared.dir.tables();
        let read = tables.read()?;
        let mut slot = self.shared.tables.lock();
        std::fs::rename(tables.path(), &path)?;
        tables.set_path(path);
        crate::disk::sync_dir(self.shared.dir.path())?;
        self.shared.note_tables(&tables);
        *core.state.write() = crate::machine::State {
            tables: Some(Arc::new(read)),
            volatile_oldest: revision,
            position,
            ..crate::machine::State::default()
        };
        *slot = Some(tables);
        drop(slot);
        core.hub.replace(revision);
        Ok(revision)
    }
}

/// What of a batch goes through the log, and the volatile rest that has to wait for it.
struct Logged {
    durable: Vec<Proposal>,
    compactions: Vec<(u64, Option<Reply<()>>)>,
    /// Whether a block of revisions must be reserved first.
    reserve: bool,
    late: Vec<Proposal>,
}

/// However the thread ends, watches end with it.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the log thread panicked");
        }
        self.0.core.hub.close("it was closed");
        self.0.update(|progress| progress.stopping = true);
    }
}

/// A caller that is gone needs no answer.
fn send<T>(reply: Reply<T>, result: Result<T, StorageError>) {
    let _ = reply.send(result);
}

fn refuse(batch: Batch, error: &StorageError) {
    for proposal in batch.proposals {
        send(proposal.reply, Err(again(error)));
    }
    for reply in batch.compactions.into_iter().filter_map(|(_, reply)| reply) {
        send(reply, Err(again(error)));
    }
}

/// The same refusal for another caller.
fn again(error: &StorageError) -> StorageError {
    match error {
        StorageError::NoSpace => StorageError::NoSpace,
        StorageError::Invalid { why } => StorageError::Invalid { why: why.clone() },
        other => StorageError::Unavailable { why: chain(other) },
    }
}

/// Replays one entry of the log at opening.
pub(super) fn replay(core: &crate::machine::Core, id: LogId, payload: &[u8]) -> Result<(), StorageError> {
    let command: Command = postcard::from_bytes(payload)
        .map_err(|error| StorageError::Corrupt { what: format!("entry {id} is of unknown form: {error}") })?;
    match command {
        Command::Txn { floor, txn } => apply_again(core, floor, &txn)?,
        Command::Reserve { upto } => core.reserve(upto),
        Command::Compact { revision } => core.apply_compaction(revision),
    }
    core.state.write().position.applied = id;
    Ok(())
}

fn apply_again(core: &crate::machine::Core, floor: u64, txn: &Txn) -> Result<(), StorageError> {
    core.apply_txn(&Reader::new(core), floor, txn).map(drop)
}
