//! What the machine's handle, its checkpoint thread and its readers share, and the steps that
//! bring the overlay into the tables.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::checkpointer::Job;
use super::config::{Background, DurableConfig};
use super::dir::DataDir;
use super::error::chain;
use super::last_good::LastGood;
use crate::disk::{Disk, is_no_space};
use crate::machine::{Core, Frozen, Position};
use crate::storage::StorageError;
use crate::tables::Tables;
use crate::wal::LogId;

/// How often a full device is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// At least so many records of history are swept by a checkpoint or a transaction of its own.
const SWEEP: usize = 1_000;

/// The log under the machine, as far as the machine needs it.
pub trait DurableLog: Send + Sync + 'static {
    /// Makes the log durable up to an entry; blocks. The tables never hold an entry that the log
    /// could still lose.
    fn make_durable(&self, upto: LogId) -> Result<(), StorageError>;
}

/// See the module's description.
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) dir: DataDir,
    pub(super) config: DurableConfig,
    pub(super) log_disk: Disk,
    pub(super) tables_disk: Disk,
    /// Held by whoever changes the state.
    pub(super) writer: Mutex<()>,
    /// Locked while they are written; gone once the store is closed.
    pub(super) tables: Mutex<Option<Tables>>,
    pub(super) log_bytes: AtomicU64,
    /// What volatile entries since the last checkpoint take in the memory of the log.
    pub(super) passed: AtomicUsize,
    pub(super) log: OnceLock<Arc<dyn DurableLog>>,
    pub(super) last_good: Mutex<LastGood>,
    /// To the checkpoint thread, where there is one.
    pub(super) jobs: Mutex<Option<Sender<Job>>>,
    progress: Mutex<Progress>,
    progressed: Condvar,
    /// The same for those who wait without a thread.
    pub(super) moved: watch::Sender<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("dir", &self.dir).field("progress", &*self.progress.lock()).finish()
    }
}

/// How far the background is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Where the tables stand, durably.
    pub(super) position: Position,
    pub(super) checkpoints: u64,
    /// How many records the tables have,
    pub(super) records: u64,
    /// and how long their file is.
    pub(super) tables_bytes: u64,
    /// The tables' device is full.
    pub(super) tables_full: bool,
    /// The log's device is full.
    pub(super) log_full: bool,
    /// The store is closing: nothing waits any longer.
    pub(super) stopping: bool,
    /// What ended the store, if something did.
    pub(super) failed: Option<String>,
}

/// Whether the tables are durable now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Yes,
    /// Not now; the log still has everything.
    No,
}

impl Shared {
    pub(super) fn new(
        core: Arc<Core>,
        dir: DataDir,
        config: DurableConfig,
        disks: (Disk, Disk),
        tables: Tables,
    ) -> Self {
        let progress = Progress {
            position: tables.meta().position.clone(),
            records: tables.meta().records,
            tables_bytes: tables.file_len(),
            ..Progress::default()
        };
        let last_good = LastGood::new(&dir, config.last_good_interval);
        Self {
            core,
            dir,
            config,
            log_disk: disks.0,
            tables_disk: disks.1,
            writer: Mutex::new(()),
            tables: Mutex::new(Some(tables)),
            log_bytes: AtomicU64::new(0),
            passed: AtomicUsize::new(0),
            log: OnceLock::new(),
            last_good: Mutex::new(last_good),
            jobs: Mutex::default(),
            progress: Mutex::new(progress),
            progressed: Condvar::new(),
            moved: watch::channel(()).0,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Changes the progress and wakes whoever waits for it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock());
        self.progressed.notify_all();
        self.moved.send_replace(());
    }

    /// Notes what was durably brought into the tables.
    pub(super) fn note_tables(&self, tables: &Tables) {
        self.update(|progress| {
            progress.position = tables.meta().position.clone();
            progress.records = tables.meta().records;
            progress.tables_bytes = tables.file_len();
        });
    }

    /// Why nothing can be written any more, if so.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        let progress = self.progress.lock();
        if let Some(why) = &progress.failed {
            return Err(StorageError::Unavailable { why: why.clone() });
        }
        if progress.stopping {
            return Err(StorageError::Unavailable { why: "it was closed".into() });
        }
        Ok(())
    }

    /// Waits until `done`. Refuses where the tables' device is full.
    pub(super) async fn wait_until(&self, done: impl Fn(&Self) -> bool) -> Result<(), StorageError> {
        let mut moved = self.moved.subscribe();
        loop {
            if let Some(why) = self.progress.lock().failed.clone() {
                return Err(StorageError::Unavailable { why });
            }
            if done(self) {
                return Ok(());
            }
            if self.config.background == Background::Inline {
                // Nobody else does it.
                self.checkpoint_frozen();
                if done(self) {
                    return Ok(());
                }
            }
            if self.progress.lock().tables_full {
                // Whoever waits to retry may do so now.
                self.progressed.notify_all();
                return Err(StorageError::NoSpace);
            }
            if moved.changed().await.is_err() {
                return Err(StorageError::Unavailable { why: "it was closed".into() });
            }
        }
    }

    pub(super) fn has_frozen(&self) -> bool {
        self.core.state.read().frozen.is_some()
    }

    /// Whether there is a generation on its way and the next one is full as well.
    pub(super) fn is_crowded(&self) -> bool {
        let (overlay, frozen) = self.overlay();
        frozen && self.exceeds(overlay, 2)
    }

    fn overlay(&self) -> (usize, bool) {
        let state = self.core.state.read();
        (state.active.bytes(), state.frozen.is_some())
    }

    /// Whether overlay or log exceed their measure so many times. Entries that leave nothing in
    /// the overlay fill the log, too.
    fn exceeds(&self, overlay: usize, times: usize) -> bool {
        let limit = self.config.checkpoint_bytes;
        let log = usize::try_from(self.log_bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        overlay >= times * limit || log > times * (4 * limit + 3 * self.config.segment_bytes)
    }

    /// Begins a checkpoint where the overlay is full. The writer calls this.
    pub(super) fn freeze_if_full(&self) {
        let (overlay, frozen) = self.overlay();
        // Entries that leave nothing in the tables are let go with a checkpoint only, as all are.
        let passed = self.passed.load(Ordering::Relaxed) >= self.config.checkpoint_bytes;
        if !frozen && (passed || self.exceeds(overlay, 1)) {
            self.freeze();
        }
    }

    /// Hands the overlay on to be written into the tables, unless one is on its way already. The
    /// writer calls this.
    pub(super) fn freeze(&self) {
        let checkpointed = self.progress.lock().position.applied;
        let mut state = self.core.state.write();
        if state.frozen.is_some() || state.position.applied <= checkpointed && state.active.is_empty() {
            return;
        }
        let frozen = Frozen { layer: std::mem::take(&mut state.active), position: state.position.clone() };
        state.frozen = Some(Arc::new(frozen));
        drop(state);
        self.passed.store(0, Ordering::Relaxed);
        if self.config.background == Background::Inline {
            return self.checkpoint_frozen();
        }
        self.ask(Job::Checkpoint);
    }

    /// Asks the checkpoint thread, where there is one.
    pub(super) fn ask(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock() {
            // It is gone only when the store closes.
            let _ = jobs.send(job);
        }
    }

    /// Writes the frozen generation into the tables.
    pub(super) fn checkpoint_frozen(&self) {
        let Some(frozen) = self.core.state.read().frozen.clone() else { return };
        match self.settle(|| self.log_is_durable(frozen.position.applied)) {
            Ok(Settled::Yes) => {}
            Ok(Settled::No) => return,
            Err(error) => return self.fail(&format!("the log cannot be written: {}", chain(&error))),
        }
        // The tables never hold what an older program would take for something that it knows.
        match self.settle(|| self.dir.mark(frozen.position.level).map_err(StorageError::Io)) {
            Ok(Settled::Yes) => {}
            Ok(Settled::No) => return,
            Err(error) => return self.fail(&format!("a checkpoint failed: {}", chain(&error))),
        }
        let mut tables = self.tables.lock();
        let Some(tables) = &mut *tables else { return };
        let current = self.core.state.read().frozen.clone();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, &frozen)) {
            // The whole state was replaced meanwhile.
            return;
        }
        let budget = SWEEP.max(frozen.layer.len() * 2);
        let written = tables
            .checkpoint(&frozen, budget)
            .and_then(|()| self.settle(|| tables.settle().map_err(StorageError::Io)));
        match written {
            Ok(Settled::Yes) => {}
            Ok(Settled::No) => return,
            Err(error) => return self.fail(&format!("a checkpoint failed: {}", chain(&error))),
        }
        match tables.read() {
            Ok(read) => {
                let mut state = self.core.state.write();
                state.tables = Some(Arc::new(read));
                state.frozen = None;
            }
            Err(error) => return self.fail(&format!("the tables cannot be read: {}", chain(&error))),
        }
        self.note_tables(tables);
        self.update(|progress| progress.checkpoints += 1);
    }

    fn log_is_durable(&self, upto: LogId) -> Result<(), StorageError> {
        self.log.get().map_or(Ok(()), |log| log.make_durable(upto))
    }

    /// Makes the log durable up to what is applied.
    pub(super) fn settle_log(&self) -> Result<(), StorageError> {
        let applied = self.core.state.read().position.applied;
        self.log_is_durable(applied)
    }

    /// Does something again and again while the device is full; where there is no thread to wait
    /// on, once.
    fn settle(&self, step: impl Fn() -> Result<(), StorageError>) -> Result<Settled, StorageError> {
        loop {
            match step() {
                Ok(()) => {
                    if self.progress.lock().tables_full {
                        tracing::info!("there is space again; the store's tables are up to date");
                        self.update(|progress| progress.tables_full = false);
                    }
                    return Ok(Settled::Yes);
                }
                Err(error) if no_space(&error) => {
                    if !self.progress.lock().tables_full {
                        tracing::warn!("no space left for the store's tables; new writes will be refused");
                        self.update(|progress| progress.tables_full = true);
                    }
                    if self.config.background == Background::Inline || self.pause(RETRY) {
                        return Ok(Settled::No);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sweeps what compactions left in the tables, where it is much.
    pub(super) fn sweep(&self) {
        let compacted = self.core.state.read().position.compacted;
        let mut tables = self.tables.lock();
        let Some(tables) = &mut *tables else { return };
        if tables.unswept(compacted) < SWEEP as u64 || self.progress.lock().tables_full {
            // It rides in the next checkpoint.
            return;
        }
        while tables.unswept(compacted) > 0 {
            let swept = tables
                .sweep(compacted, SWEEP)
                .and_then(|()| self.settle(|| tables.settle().map_err(StorageError::Io)));
            match swept {
                Ok(Settled::Yes) => {}
                Ok(Settled::No) => return,
                Err(error) => return self.fail(&format!("a sweep failed: {}", chain(&error))),
            }
        }
        match tables.read() {
            Ok(read) => {
                self.core.state.write().tables = Some(Arc::new(read));
                self.note_tables(tables);
            }
            Err(error) => self.fail(&format!("the tables cannot be read: {}", chain(&error))),
        }
    }

    /// Waits until something changes, for `at_most`; tells whether the store is closing.
    fn pause(&self, at_most: Duration) -> bool {
        let mut progress = self.progress.lock();
        if !progress.stopping {
            self.progressed.wait_for(&mut progress, at_most);
        }
        progress.stopping
    }

    /// The store cannot go on: writes are refused from now on, watches end.
    pub(super) fn fail(&self, why: &str) {
        tracing::error!(why, "the store stops taking writes");
        self.update(|progress| {
            progress.failed.get_or_insert_with(|| why.to_owned());
        });
        self.core.hub.close(why);
    }

    /// Lets everything go; nothing is read or written after this.
    pub(super) fn end(&self) {
        self.update(|progress| progress.stopping = true);
        self.core.hub.close("it was closed");
        {
            let mut state = self.core.state.write();
            state.closed = true;
            state.tables = None;
        }
        // The tables' file is closed before the directory is let go.
        drop(self.tables.lock().take());
        self.dir.release();
    }
}

fn no_space(error: &StorageError) -> bool {
    match error {
        StorageError::NoSpace => true,
        StorageError::Io(error) => is_no_space(error),
        _ => false,
    }
}
