//! The durable store's knobs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::DiskFaults;
use crate::level::Level;
use crate::storage::StorageError;

/// Where the work behind the writes is done: checkpoints, the log's syncs, reads of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// On threads of its own.
    #[default]
    Threads,
    /// In place, by whoever causes it: for simulations, which must do everything in one order.
    Inline,
}

impl Background {
    /// Runs what may touch the disk, away from the async workers where there are threads.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        match self {
            Self::Inline => work(),
            Self::Threads => tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
                Err(StorageError::Unavailable { why: format!("reading the store failed: {error}") })
            }),
        }
    }
}

/// How a [`super::Machine`] is set up. [`DurableConfig::new`] gives what suits a small node.
#[derive(Clone)]
pub struct DurableConfig {
    /// The data directory; made if there is none.
    pub dir: PathBuf,
    /// The size of one log segment. It bounds one transaction, too, and must be the same on all
    /// members; so must the prefixes below.
    pub segment_bytes: usize,
    /// How much the overlay gathers before it is written to the tables. Smaller saves memory,
    /// larger saves the device bytes.
    pub checkpoint_bytes: usize,
    /// What the tables keep of themselves in memory.
    pub redb_cache_bytes: usize,
    /// About how much of a snapshot for another member is read and sent at once; one record at the least.
    pub snapshot_frame_bytes: usize,
    /// When history is forgotten.
    pub compaction: Compaction,
    /// Keys that begin with one of these live in memory only: a restart forgets them.
    pub volatile_prefixes: Vec<Bytes>,
    /// Values of keys that begin with one of these are sealed before they are logged.
    pub sealed_prefixes: Vec<Bytes>,
    /// The file with the keys to seal with; made if there are sealed prefixes and no keys yet.
    pub keys: PathBuf,
    /// How old the last good snapshot may grow while the state changes; zero keeps none.
    ///
    /// It is written while running or at a clean shutdown, so it costs the device the size of
    /// the live state once per interval: 10 MB a day are 0.1 kB/s.
    pub last_good_interval: Duration,
    /// The newest level that this member takes part in: that of the build, or an older one that it
    /// is to behave as. A directory of a newer one is not opened.
    pub level: Level,
    /// Where the work behind the writes is done.
    pub background: Background,
    /// For tests: where the disk fails.
    pub faults: Option<Arc<dyn DiskFaults>>,
}

/// When history is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// How often. History lasts between one and two intervals; zero keeps all.
    pub interval: Duration,
    /// So many revisions are kept, however old.
    pub keep_revisions: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), keep_revisions: 1_000 }
    }
}

impl DurableConfig {
    /// The defaults, with the key file in the data directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            keys: dir.join("seal.keys"),
            dir,
            segment_bytes: 4 << 20,
            checkpoint_bytes: 4 << 20,
            redb_cache_bytes: 4 << 20,
            snapshot_frame_bytes: 256 << 10,
            compaction: Compaction::default(),
            volatile_prefixes: Vec::new(),
            sealed_prefixes: Vec::new(),
            last_good_interval: Duration::from_secs(24 * 3600),
            level: Level::NEWEST,
            background: Background::Threads,
            faults: None,
        }
    }

    /// What is wrong with the values, if anything is.
    pub(super) fn problem(&self) -> Option<String> {
        const LEAST: usize = 16 << 10;
        if self.segment_bytes < LEAST || self.checkpoint_bytes < LEAST {
            return Some(format!("segments and checkpoints need at least {LEAST} bytes"));
        }
        if self.volatile_prefixes.iter().chain(&self.sealed_prefixes).any(Bytes::is_empty) {
            return Some("a volatile or sealed prefix is empty".into());
        }
        None
    }
}

impl std::fmt::Debug for DurableConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableConfig").field("dir", &self.dir).finish_non_exhaustive()
    }
}
