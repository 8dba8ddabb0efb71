//! What the store's handle, its log thread and its checkpoint thread share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex};

use super::config::DurableConfig;
use super::dir::DataDir;
use crate::disk::Disk;
use crate::machine::Core;
use crate::storage::StorageError;
use crate::tables::Tables;
use crate::wal::LogId;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) dir: DataDir,
    pub(super) config: DurableConfig,
    pub(super) log_disk: Disk,
    pub(super) tables_disk: Disk,
    /// Locked by the checkpoint thread while it writes; gone once the store is closed.
    pub(super) tables: Mutex<Option<Tables>>,
    pub(super) log_bytes: AtomicU64,
    progress: Mutex<Progress>,
    progressed: Condvar,
}

/// How far the background is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The last log entry that the tables hold durably.
    pub(super) checkpointed: LogId,
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

impl Shared {
    pub(super) fn new(
        core: Arc<Core>,
        dir: DataDir,
        config: DurableConfig,
        disks: (Disk, Disk),
        tables: Tables,
    ) -> Self {
        let progress = Progress {
            checkpointed: tables.meta().position.applied,
            records: tables.meta().records,
            tables_bytes: tables.file_len(),
            ..Progress::default()
        };
        Self {
            core,
            dir,
            config,
            log_disk: disks.0,
            tables_disk: disks.1,
            tables: Mutex::new(Some(tables)),
            log_bytes: AtomicU64::new(0),
            progress: Mutex::new(progress),
            progressed: Condvar::new(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Changes the progress and wakes whoever waits for it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock());
        self.progressed.notify_all();
    }

    /// Notes what was durably brought into the tables.
    pub(super) fn note_tables(&self, tables: &Tables) {
        self.update(|progress| {
            progress.checkpointed = tables.meta().position.applied;
            progress.records = tables.meta().records;
            progress.tables_bytes = tables.file_len();
        });
    }

    /// Waits until the state has no generation on its way into the tables. Refuses where that
    /// will not be soon.
    pub(super) fn wait_for_checkpoint(&self) -> Result<(), StorageError> {
        let mut progress = self.progress.lock();
        loop {
            if let Some(why) = &progress.failed {
                return Err(StorageError::Unavailable { why: why.clone() });
            }
            if self.core.state.read().frozen.is_none() {
                return Ok(());
            }
            if progress.tables_full {
                // Whoever waits to retry may do so now.
                self.progressed.notify_all();
                return Err(StorageError::NoSpace);
            }
            self.progressed.wait(&mut progress);
        }
    }

    /// Waits until something changes, for `at_most`; tells whether the store is closing.
    pub(super) fn pause(&self, at_most: std::time::Duration) -> bool {
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
}
