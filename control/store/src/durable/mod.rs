//! The state machine on disk, that somebody else orders commands for.
//!
//! A transaction is prepared (rules checked, values put into their envelopes), logged by whoever
//! orders commands, and applied to an overlay in memory, which answers. The checkpoint thread
//! ([`checkpointer`]) brings full generations of the overlay into the tables; the log is needed
//! only for what is not there yet. Applying is deterministic.

mod checkpointer;
mod config;
mod cut;
mod dir;
mod error;
mod keyfile;
mod last_good;
mod open;
mod restore;
mod seals;
mod shared;
mod stats;
mod volatile;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::command::{ClusterId, Command, Effect};
use crate::layer::Layer;
use crate::level::Level;
use crate::machine::{Answer, Home, Position};
use crate::read::Reader;
use crate::snapshot;
use crate::storage::{StorageError, WatchStream};
use crate::types::{RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest};
use crate::volatile::Known;
use crate::wal::{LogId, Wal};
use checkpointer::Job;
pub use config::{Background, Compaction, DurableConfig};
pub use cut::{Build, Cut};
pub use error::OpenError;
use error::chain;
pub use shared::DurableLog;
use shared::Shared;
pub use stats::Stats;

/// An opened data directory.
#[derive(Debug)]
pub struct Opened {
    /// The state machine, as the last checkpoint left it.
    pub machine: Machine,
    /// The log beside it.
    pub wal: Wal,
    /// What the log holds: the entries after the last purged one, applied or not.
    pub entries: Vec<(LogId, Bytes)>,
}

/// The state machine on disk; see the module's description.
///
/// End it with [`Machine::finish`] and [`Machine::halt`]; one that is merely dropped ends as in a
/// crash, which loses nothing that the log has.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The log's last entry when it was opened: what comes up to here was applied before.
    replayed: LogId,
}

/// A transaction that keeps the rules, its values in their envelopes.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The transaction.
    pub txn: Txn,
    /// Whether its keys live in memory only.
    pub volatile: bool,
}

/// Where the machine stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last log entry that the state holds.
    pub applied: LogId,
    /// The newest revision.
    pub revision: u64,
    /// Revisions up to here may have been given out although their entries are lost.
    pub reserved: u64,
    /// Reads and watches before this revision are refused.
    pub compacted: u64,
    /// The cluster, once one reigned.
    pub cluster: ClusterId,
    /// What the group has agreed to use.
    pub level: Level,
    /// The entry that the membership came with.
    pub membership_at: LogId,
    /// The membership, in the form of who orders the commands; empty where there is none yet.
    pub membership: Bytes,
}

impl Standing {
    fn of(position: &Position) -> Self {
        Self {
            applied: position.applied,
            revision: position.revision,
            reserved: position.reserved,
            compacted: position.compacted,
            cluster: position.order.cluster,
            level: position.level,
            membership_at: position.order.membership_at,
            membership: position.order.membership.clone(),
        }
    }
}

/// What a command gave.
#[derive(Debug)]
pub enum Applied {
    /// Nothing that anyone waits for.
    Nothing,
    /// A transaction's answer, its values in their envelopes.
    Txn(Answer),
    /// The revision that it led to.
    Revision(u64),
}

/// What history is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// None.
    Nothing,
    /// That of the volatile keyspaces alone; needs no command.
    Volatile {
        /// Before this revision.
        revision: u64,
    },
    /// All, by a command.
    All {
        /// Before this revision.
        revision: u64,
    },
}

impl Machine {
    /// Opens a data directory, making it if there is none.
    pub async fn open(config: DurableConfig) -> Result<Opened, OpenError> {
        if config.background == Background::Inline {
            return open::open(config);
        }
        let dir = config.dir.clone();
        match tokio::task::spawn_blocking(move || open::open(config)).await {
            Ok(result) => result,
            Err(error) => Err(OpenError::io(&dir, std::io::Error::other(error))),
        }
    }

    /// Tells the machine of its log. Until then it takes everything applied for durable.
    pub fn set_log(&self, log: Arc<dyn DurableLog>) {
        // Only the first counts; there is one log.
        let _ = self.shared.log.set(log);
    }

    /// How the machine was set up.
    pub fn config(&self) -> &DurableConfig {
        &self.shared.config
    }

    /// The member that waits in this directory to be taken into a group, if one does: its log may
    /// have entries from before the group had it.
    ///
    /// # Errors
    /// The file system's.
    pub fn joining(&self) -> std::io::Result<Option<u64>> {
        self.shared.dir.joining()
    }

    /// Remembers which member waits in this directory, or that none does any more.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_joining(&self, member: Option<u64>) -> std::io::Result<()> {
        self.shared.dir.set_joining(member)
    }

    /// Where the machine stands.
    pub fn standing(&self) -> Standing {
        Standing::of(&self.shared.core.state.read().position)
    }

    /// Where the tables stand, durably: a restart needs the log's entries after this only.
    pub fn checkpointed(&self) -> Standing {
        Standing::of(&self.shared.progress().position)
    }

    /// The newest revision here.
    pub fn revision(&self) -> Revision {
        Revision(self.shared.core.state.read().position.revision)
    }

    /// The last log entry applied.
    pub fn applied(&self) -> LogId {
        self.shared.core.state.read().position.applied
    }

    /// Changes whenever a checkpoint ended, or the machine failed.
    pub fn progress(&self) -> watch::Receiver<()> {
        self.shared.moved.subscribe()
    }

    /// Why nothing can be written any more, if so.
    pub fn check(&self) -> Result<(), StorageError> {
        self.shared.check()
    }

    /// Checks a transaction's rules and puts its values into their envelopes.
    pub fn prepare(&self, txn: Txn) -> Result<Prepared, StorageError> {
        crate::txn::check(&txn)?;
        let core = &self.shared.core;
        let home = core.home(&txn)?;
        let txn = core.encode(txn)?;
        let limit = Wal::max_batch_of(self.shared.config.segment_bytes)
            .saturating_sub(4 * Wal::RECORD_OVERHEAD)
            .min(2 * crate::MAX_TXN_BYTES);
        let size = crate::txn::logged_size(&txn);
        if size > limit {
            return Err(StorageError::TooLarge { size, limit });
        }
        Ok(Prepared { txn, volatile: home == Home::Volatile })
    }

    /// Answers a prepared transaction that changes nothing, if it is one, from the present state.
    pub fn answer_unchanged(&self, txn: &Txn) -> Result<Option<Answer>, StorageError> {
        let core = &self.shared.core;
        core.answer_unchanged(&Reader::new(core), txn)
    }

    /// What a prepared transaction over volatile keys does, without doing it. The answer's
    /// revision is that of the state it met.
    pub fn evaluate_volatile(&self, txn: &Txn) -> Result<(Answer, Vec<Effect>), StorageError> {
        self.shared.core.evaluate_volatile(txn)
    }

    /// An answer as callers get it.
    pub fn response(&self, answer: Answer) -> Result<TxnResponse, StorageError> {
        self.shared.core.response(answer)
    }

    /// Applies a command, the one after the last. An error means that state and log part ways:
    /// the machine has failed.
    pub fn apply(&self, id: LogId, command: &Command) -> Result<Applied, StorageError> {
        let shared = &self.shared;
        let _writer = shared.writer.lock();
        shared.check()?;
        match self.apply_locked(id, command) {
            Ok(applied) => {
                shared.core.state.write().position.applied = id;
                if command.placeholder().is_some() {
                    shared.passed.fetch_add(command.weight(), Ordering::Relaxed);
                }
                shared.freeze_if_full();
                Ok(applied)
            }
            Err(error) => {
                shared.fail(&format!("entry {id} could not be applied: {}", chain(&error)));
                Err(error)
            }
        }
    }

    fn apply_locked(&self, id: LogId, command: &Command) -> Result<Applied, StorageError> {
        let core = &self.shared.core;
        Ok(match command {
            Command::Txn { floor, txn } => Applied::Txn(core.apply_txn(&Reader::new(core), *floor, txn)?),
            Command::Reserve { upto } => {
                core.reserve(*upto);
                Applied::Nothing
            }
            Command::Compact { revision } => {
                core.apply_compaction(*revision);
                Applied::Nothing
            }
            Command::Blank => Applied::Nothing,
            Command::Membership { membership } => {
                let mut state = core.state.write();
                state.position.order.membership_at = id;
                state.position.order.membership = membership.clone();
                Applied::Nothing
            }
            Command::Volatile { effects } => Applied::Revision(core.apply_effects(effects)?),
            Command::Forgotten => Applied::Revision(core.apply_forgotten(id.index, 1)),
            Command::VolatileBatch { transactions } => {
                let mut last = core.state.read().position.revision;
                for effects in transactions {
                    last = core.apply_effects(effects)?;
                }
                Applied::Revision(last)
            }
            Command::ForgottenBatch { revisions } => {
                Applied::Revision(core.apply_forgotten(id.index, *revisions))
            }
            Command::Level { level } => {
                self.raise(Level::of_number(*level))?;
                Applied::Nothing
            }
            Command::Reign { cluster, skip } => Applied::Revision(core.reign(*cluster, *skip)),
            Command::Lost => {
                let again = id.index <= self.replayed.index;
                Applied::Revision(core.lose_volatile(id.index, again))
            }
        })
    }

    /// The group is at a level from here on. The directory says so at once, so that no older
    /// program takes it for one that it understands; where its device is full, the next checkpoint
    /// sees to it, as nothing of that level is in the tables before.
    fn raise(&self, level: Level) -> Result<(), StorageError> {
        let shared = &self.shared;
        if level > shared.config.level {
            let why =
                format!("the group is at level {level}, and this member knows {} only", shared.config.level);
            return Err(StorageError::Invalid { why });
        }
        shared.core.raise(level);
        if let Err(error) = shared.dir.mark(level) {
            tracing::debug!(%error, "the data directory says later that it is of a new format");
        }
        Ok(())
    }

    /// Waits until the overlay has room. Refuses where that will not be soon.
    pub async fn room(&self) -> Result<(), StorageError> {
        self.shared.check()?;
        if !self.shared.is_crowded() {
            return Ok(());
        }
        self.shared.wait_until(|shared| !shared.is_crowded()).await
    }

    /// Brings everything applied so far into the tables.
    pub async fn checkpoint(&self) -> Result<(), StorageError> {
        self.shared.check()?;
        self.shared.wait_until(|shared| !shared.has_frozen()).await?;
        {
            let _writer = self.shared.writer.lock();
            self.shared.freeze();
        }
        self.shared.wait_until(|shared| !shared.has_frozen()).await
    }

    /// Whether history before `revision` can be forgotten: it cannot lie ahead.
    pub fn check_compaction(&self, revision: u64) -> Result<(), StorageError> {
        self.shared.core.check_compaction(revision)
    }

    /// What is to be forgotten now, `sampled` being the revision one round ago.
    pub fn to_forget(&self, sampled: u64) -> Forget {
        let state = self.shared.core.state.read();
        let (position, keep) = (&state.position, self.shared.config.compaction.keep_revisions);
        let revision = sampled.min(position.revision.saturating_sub(keep));
        if revision > position.compacted && position.changed > position.compacted {
            Forget::All { revision }
        } else if revision > state.known.oldest {
            Forget::Volatile { revision }
        } else {
            Forget::Nothing
        }
    }

    /// Forgets the history of the volatile keyspaces before `revision`.
    pub fn forget_volatile(&self, revision: u64) {
        let _writer = self.shared.writer.lock();
        self.shared.core.state.write().forget_volatile(revision);
    }

    /// Sweeps history and keeps the last good snapshot where no thread does.
    pub fn keep_house(&self) {
        if self.shared.config.background == Background::Inline {
            self.shared.sweep();
            self.shared.last_good.lock().write_if_due(&self.shared);
        }
    }

    /// Notes how many bytes of log wait for a checkpoint.
    pub fn note_log(&self, bytes: u64) {
        self.shared.log_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes that the log's device is full, or that it is not.
    pub fn note_log_full(&self, full: bool) {
        if self.shared.progress().log_full != full {
            if full {
                tracing::warn!("no space left for the store's log; writes are refused");
            } else {
                tracing::info!("there is space again for the store's log");
            }
            self.shared.update(|progress| progress.log_full = full);
        }
    }

    /// The machine cannot go on: writes are refused from now on, watches end.
    pub fn fail(&self, why: &str) {
        self.shared.fail(why);
    }

    /// Reads one key or a range, here and now.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.check_open()?;
        if let Some(response) = self.shared.core.range_in_memory(&request) {
            return response;
        }
        let core = Arc::clone(&self.shared.core);
        self.shared.config.background.run(move || core.range(&request)).await
    }

    /// Follows a range, see [`crate::Storage::watch`].
    pub fn watch(&self, request: &WatchRequest) -> Result<WatchStream, StorageError> {
        self.check_open()?;
        crate::watch::watch(&self.shared.core, self.shared.config.background, request)
    }

    /// Writes the whole state at one revision, see [`crate::Storage::snapshot`].
    pub async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError> {
        self.check_open()?;
        let core = Arc::clone(&self.shared.core);
        if self.shared.config.background == Background::Inline {
            let mut pieces = Vec::new();
            let header = snapshot::produce(&core, |piece| {
                pieces.push(piece);
                Ok(())
            })?;
            for piece in pieces {
                to.write_all(&piece).await?;
            }
            to.flush().await?;
            return Ok(Revision(header.revision));
        }
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(4);
        let producer = tokio::task::spawn_blocking(move || {
            snapshot::produce(&core, |piece| {
                let gone = |_| StorageError::Unavailable { why: "nobody takes the snapshot".into() };
                sender.blocking_send(piece).map_err(gone)
            })
        });
        while let Some(piece) = pieces.recv().await {
            to.write_all(&piece).await?;
        }
        let header =
            producer.await.map_err(|error| StorageError::Unavailable { why: error.to_string() })??;
        to.flush().await?;
        Ok(Revision(header.revision))
    }

    /// Replaces the whole state by a snapshot's, see [`crate::Storage::restore`]. Only where no
    /// other member has a copy of the state: it does not go through the log.
    pub async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError> {
        self.shared.check()?;
        let (tables, header) = restore::build(&self.shared, from).await?;
        loop {
            self.shared.wait_until(|shared| !shared.has_frozen()).await?;
            let shared = Arc::clone(&self.shared);
            self.shared.config.background.run(move || shared.settle_log()).await?;
            let _writer = self.shared.writer.lock();
            let state = self.shared.core.state.read();
            if state.frozen.is_some() {
                continue;
            }
            let mut position = state.position.clone();
            drop(state);
            self.shared.settle_log()?;
            position.restore(&header, tables.meta().position.keys);
            let revision = position.revision;
            let known = Known::after(0, revision);
            cut::put_in_place(&self.shared, tables, position, Layer::default(), known)?;
            return Ok(Revision(revision));
        }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let progress = self.shared.progress();
        let state = self.shared.core.state.read();
        let frozen = state.frozen.as_ref().map(|frozen| &frozen.layer);
        let in_memory = state.active.len() + frozen.map_or(0, Layer::len);
        let records = progress.records + in_memory as u64;
        Stats {
            keys: state.position.keys + state.volatile.live_keys(),
            revision: state.position.revision,
            compacted: state.position.compacted,
            history: records.saturating_sub(state.position.keys),
            overlay_bytes: (state.active.bytes() + frozen.map_or(0, Layer::bytes)) as u64,
            volatile_bytes: state.volatile.bytes() as u64,
            volatile_lost: state.known.lost_at,
            log_bytes: self.shared.log_bytes.load(Ordering::Relaxed),
            tables_bytes: progress.tables_bytes,
            log_written: self.shared.log_disk.written(),
            tables_written: self.shared.tables_disk.written(),
            fsyncs: self.shared.log_disk.syncs() + self.shared.tables_disk.syncs(),
            checkpoints: progress.checkpoints,
            out_of_space: progress.log_full || progress.tables_full,
            watchers: self.shared.core.hub.watchers() as u64,
        }
    }

    /// Brings everything into the tables, and keeps the last good snapshot where it is due: what
    /// comes before an end in good order. The log must still be there.
    pub async fn finish(&self) {
        if let Err(error) = self.checkpoint().await {
            // Where a checkpoint cannot be, the log has everything all the same.
            tracing::warn!(error = chain(&error), "the store closes without a checkpoint");
        }
        self.keep_house();
        self.shared.ask(Job::Finish);
    }

    /// Ends as a crash would, but with the directory free for the next one. The log must have
    /// ended. Blocks. Whatever is asked of the machine afterwards is refused.
    pub fn halt(&self) {
        let thread = self.stop();
        end(&self.shared, thread);
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        self.shared.update(|progress| progress.stopping = true);
        self.shared.ask(Job::Stop);
        self.thread.lock().take()
    }

    fn check_open(&self) -> Result<(), StorageError> {
        let progress = self.shared.progress();
        if progress.stopping {
            let why = progress.failed.unwrap_or_else(|| "it was closed".into());
            return Err(StorageError::Unavailable { why });
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Waits for the thread and lets everything go.
fn end(shared: &Shared, thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        tracing::error!("a thread of the store panicked");
    }
    // Whoever writes now is the last one.
    let _writer = shared.writer.lock();
    shared.end();
}

#[cfg(test)]
mod tests;
