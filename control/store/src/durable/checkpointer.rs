//! The checkpoint thread: brings generations into the tables, forgets history on time, keeps
//! the last good snapshot. While nothing changes it writes nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::engine::Request;
use super::last_good::LastGood;
use super::shared::Shared;
use crate::disk::is_no_space;
use crate::storage::StorageError;
use crate::tables::Tables;

/// How often a full device is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// At least so many records of history are swept by a checkpoint or a transaction of its own.
const SWEEP: usize = 1_000;

/// What the log thread asks for.
#[derive(Debug)]
pub(super) enum Job {
    /// The state has a generation for the tables.
    Checkpoint,
    /// The store closes: the last chance for a snapshot.
    Finish,
}

pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    log: Sender<Request>,
    last_good: LastGood,
    /// The newest revision at the last round: what is older has had its time.
    sampled: u64,
}

impl Checkpointer {
    pub(super) fn new(shared: Arc<Shared>, jobs: Receiver<Job>, log: Sender<Request>) -> Self {
        let last_good = LastGood::new(&shared.dir, shared.config.last_good_interval);
        let sampled = shared.core.state.read().position.revision;
        Self { shared, jobs, log, last_good, sampled }
    }

    pub(super) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        let round = self.round();
        let mut due = Instant::now() + round;
        loop {
            match self.jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Job::Checkpoint) => self.checkpoint(),
                Ok(Job::Finish) => self.last_good.write_if_due(&self.shared),
                Err(RecvTimeoutError::Timeout) => {
                    due = Instant::now() + round;
                    self.forget_history();
                    self.last_good.write_if_due(&self.shared);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How often to look after history and snapshot.
    fn round(&self) -> Duration {
        const LONG: Duration = Duration::from_secs(24 * 3600);
        let config = &self.shared.config;
        let wanted = [config.compaction.interval, config.last_good_interval];
        wanted.into_iter().filter(|interval| !interval.is_zero()).min().unwrap_or(LONG).min(LONG)
    }

    fn checkpoint(&mut self) {
        let Some(frozen) = self.shared.core.state.read().frozen.clone() else { return };
        let mut tables = self.shared.tables.lock();
        let Some(tables) = &mut *tables else { return };
        let budget = SWEEP.max(frozen.layer.len() * 2);
        let written = tables.checkpoint(&frozen, budget).and_then(|()| self.settle(tables));
        match written {
            Ok(Settled::Yes) => {}
            // The log still has everything.
            Ok(Settled::NotBeforeTheEnd) => return,
            Err(error) => return self.shared.fail(&format!("a checkpoint failed: {}", chain(&error))),
        }
        match tables.read() {
            Ok(read) => {
                let mut state = self.shared.core.state.write();
                state.tables = Some(Arc::new(read));
                state.frozen = None;
            }
            Err(error) => return self.shared.fail(&format!("the tables cannot be read: {}", chain(&error))),
        }
        self.shared.note_tables(tables);
        self.shared.update(|progress| progress.checkpoints += 1);
    }

    /// Waits until the device has taken what it owes the tables.
    fn settle(&self, tables: &Tables) -> Result<Settled, StorageError> {
        loop {
            match tables.settle() {
                Ok(()) => {
                    if self.shared.progress().tables_full {
                        tracing::info!("there is space again; the store's tables are up to date");
                        self.shared.update(|progress| progress.tables_full = false);
                    }
                    return Ok(Settled::Yes);
                }
                Err(error) if is_no_space(&error) => {
                    if !self.shared.progress().tables_full {
                        tracing::warn!("no space left for the store's tables; new writes will be refused");
                        self.shared.update(|progress| progress.tables_full = true);
                    }
                    if self.shared.pause(RETRY) {
                        return Ok(Settled::NotBeforeTheEnd);
                    }
                }
                Err(error) => return Err(StorageError::Io(error)),
            }
        }
    }

    /// Asks for compaction of what is older than one round, and sweeps what earlier ones left.
    fn forget_history(&mut self) {
        let compaction = self.shared.config.compaction;
        if compaction.interval.is_zero() {
            return;
        }
        let (position, volatile_oldest) = {
            let state = self.shared.core.state.read();
            (state.position.clone(), state.volatile_oldest)
        };
        let target = self.sampled.min(position.revision.saturating_sub(compaction.keep_revisions));
        self.sampled = position.revision;
        let request = if target > position.compacted && position.changed > position.compacted {
            Some(Request::Compact { revision: target, reply: None })
        } else if target > volatile_oldest {
            // Only keyspaces in memory have history: no need to log anything.
            Some(Request::CompactVolatile { revision: target })
        } else {
            None
        };
        if let Some(request) = request {
            // The log thread is gone only when the store closes.
            let _ = self.log.send(request);
        }
        self.sweep(position.compacted);
    }

    fn sweep(&self, compacted: u64) {
        let mut tables = self.shared.tables.lock();
        let Some(tables) = &mut *tables else { return };
        if tables.unswept(compacted) < SWEEP as u64 || self.shared.progress().tables_full {
            // It rides in the next checkpoint.
            return;
        }
        while tables.unswept(compacted) > 0 {
            let swept = tables.sweep(compacted, SWEEP).and_then(|()| self.settle(tables));
            match swept {
                Ok(Settled::Yes) => {}
                Ok(Settled::NotBeforeTheEnd) => return,
                Err(error) => return self.shared.fail(&format!("a sweep failed: {}", chain(&error))),
            }
        }
        match tables.read() {
            Ok(read) => {
                self.shared.core.state.write().tables = Some(Arc::new(read));
                self.shared.note_tables(tables);
            }
            Err(error) => self.shared.fail(&format!("the tables cannot be read: {}", chain(&error))),
        }
    }
}

/// The log thread may wait for this one: it must learn of a panic.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the checkpoint thread panicked");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Yes,
    /// The store closes first.
    NotBeforeTheEnd,
}

/// An error with its sources, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
