//! The durable store: log first, tables later.
//!
//! A transaction is put in its envelope by whoever proposes it, logged by the log thread
//! together with all that wait ([`engine`]), applied to an overlay in memory, and answered. The
//! checkpoint thread ([`checkpointer`]) brings full generations of the overlay into the tables;
//! the log is needed only for what is not there yet. Async callers never wait for the disk on
//! their own thread.

mod batch;
mod checkpointer;
mod config;
mod dir;
mod engine;
mod error;
mod keyfile;
mod last_good;
mod open;
mod restore;
mod seals;
mod shared;
mod stats;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::snapshot;
use crate::storage::{Storage, StorageError, WatchStream};
use crate::types::{RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest};
use batch::{Proposal, Reply};
pub use config::{Compaction, DurableConfig};
use engine::Request;
pub use error::OpenError;
use shared::Shared;
pub use stats::Stats;

/// A store on disk; see [`crate::Storage`] for what it promises.
///
/// Close it with [`DurableStore::close`]; one that is merely dropped ends as in a crash, which
/// loses nothing but makes the next start replay the log.
#[derive(Debug)]
pub struct DurableStore {
    shared: Arc<Shared>,
    requests: Sender<Request>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl DurableStore {
    /// Opens the store in a data directory, making it if there is none.
    pub async fn open(config: DurableConfig) -> Result<Self, OpenError> {
        let dir = config.dir.clone();
        match tokio::task::spawn_blocking(move || open::open(config)).await {
            Ok(result) => result,
            Err(error) => Err(OpenError::io(&dir, std::io::Error::other(error))),
        }
    }

    /// Ends the store in good order: everything into the tables, files closed, directory free.
    /// Whatever is asked of it afterwards is refused.
    pub async fn close(&self) -> Result<(), StorageError> {
        let closed = self.ask(|reply| Request::Close { reply }).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let shared = Arc::clone(&self.shared);
        let end = tokio::task::spawn_blocking(move || end(&shared, threads));
        end.await.map_err(|error| StorageError::Unavailable { why: error.to_string() })?;
        closed
    }

    /// Brings everything acknowledged so far into the tables. Nobody needs to call this.
    pub async fn checkpoint(&self) -> Result<(), StorageError> {
        self.ask(|reply| Request::Checkpoint { reply }).await
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let progress = self.shared.progress();
        let state = self.shared.core.state.read();
        let frozen = state.frozen.as_ref().map(|frozen| &frozen.layer);
        let in_memory = state.active.len() + frozen.map_or(0, crate::layer::Layer::len);
        let records = progress.records + in_memory as u64;
        Stats {
            keys: state.position.keys + state.volatile.live_keys(),
            revision: state.position.revision,
            compacted: state.position.compacted,
            history: records.saturating_sub(state.position.keys),
            overlay_bytes: (state.active.bytes() + frozen.map_or(0, crate::layer::Layer::bytes)) as u64,
            volatile_bytes: state.volatile.bytes() as u64,
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

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(request(reply)).is_err() {
            return Err(self.ended());
        }
        answer.await.unwrap_or_else(|_| Err(self.ended()))
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.shared.progress().stopping { Err(self.ended()) } else { Ok(()) }
    }

    fn ended(&self) -> StorageError {
        let why = self.shared.progress().failed.unwrap_or_else(|| "it was closed".into());
        StorageError::Unavailable { why }
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        // No checkpoint and no snapshot: this may be a panic, and callers in a hurry drop.
        let _ = self.requests.send(Request::Stop);
        end(&self.shared, std::mem::take(&mut *self.threads.lock()));
    }
}

/// Waits for the threads and lets everything go.
fn end(shared: &Shared, threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
    {
        let mut state = shared.core.state.write();
        state.closed = true;
        state.tables = None;
    }
    // The tables' file is closed before the directory is let go.
    drop(shared.tables.lock().take());
    shared.dir.release();
}

#[async_trait]
impl Storage for DurableStore {
    fn revision(&self) -> Revision {
        Revision(self.shared.core.state.read().position.revision)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.check_open()?;
        if let Some(response) = self.shared.core.range_in_memory(&request) {
            return response;
        }
        let core = Arc::clone(&self.shared.core);
        blocking(move || core.range(&request)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        crate::txn::check(&txn)?;
        let core = &self.shared.core;
        let home = core.home(&txn)?;
        let txn = core.encode(txn)?;
        let answer = self.ask(|reply| Request::Txn(Proposal { txn, home, reply })).await?;
        core.response(answer)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        self.check_open()?;
        crate::watch::watch(&self.shared.core, &request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        self.shared.core.check_compaction(revision.0)?;
        self.ask(|reply| Request::Compact { revision: revision.0, reply: Some(reply) }).await
    }

    async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError> {
        self.check_open()?;
        let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(4);
        let core = Arc::clone(&self.shared.core);
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

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError> {
        self.check_open()?;
        let (tables, snapshot) = restore::build(&self.shared, from).await?;
        let tables = Box::new(tables);
        self.ask(|reply| Request::Install { tables, snapshot, reply }).await.map(Revision)
    }
}

/// Runs what may touch the disk away from the async workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StorageError::Unavailable { why: format!("a read failed: {error}") }))
}
