//! The store in memory: the same state machine without log and tables. For tests and trials.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::codec::Codec;
use crate::layer::Layer;
use crate::machine::{Core, State};
use crate::read::Reader;
use crate::snapshot;
use crate::storage::{Storage, StorageError, WatchStream};
use crate::types::{RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest};
use crate::volatile::Known;

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    core: Arc<Core>,
    /// One writer at a time.
    writer: Mutex<()>,
}

impl MemoryStore {
    /// An empty store, at revision 0.
    pub fn new() -> Self {
        let core = Core::new(State::default(), Arc::new(Codec::plain()), Vec::new());
        Self { core: Arc::new(core), writer: Mutex::new(()) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Storage for MemoryStore {
    fn revision(&self) -> Revision {
        Revision(self.core.state.read().position.revision)
    }

    async fn current_revision(&self) -> Result<Revision, StorageError> {
        Ok(self.revision())
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.core.range(&request)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        crate::txn::check(&txn)?;
        let txn = self.core.encode(txn)?;
        let answer = {
            let _writer = self.writer.lock();
            self.core.apply_txn(&Reader::new(&self.core), 0, &txn)?
        };
        self.core.response(answer)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        crate::watch::watch(&self.core, crate::durable::Background::Threads, &request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        let _writer = self.writer.lock();
        self.core.check_compaction(revision.0)?;
        self.core.apply_compaction(revision.0);
        Ok(())
    }

    async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError> {
        let mut pieces = Vec::new();
        let header = snapshot::produce(&self.core, |piece| {
            pieces.push(piece);
            Ok(())
        })?;
        for piece in pieces {
            to.write_all(&piece).await?;
        }
        to.flush().await?;
        Ok(Revision(header.revision))
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError> {
        let mut reader = snapshot::Reader::open(from, Arc::clone(&self.core.codec)).await?;
        let header = reader.header().clone();
        let mut active = Layer::default();
        while let Some(rows) = reader.rows().await? {
            for record in rows {
                active.insert(Arc::new(record));
            }
        }
        let _writer = self.writer.lock();
        let mut state = self.core.state.write();
        let mut position = state.position.clone();
        position.restore(&header, active.live_keys());
        let revision = position.revision;
        let known = Known::after(0, revision);
        *state = State { active, position, known, ..State::default() };
        drop(state);
        self.core.hub.replace(revision);
        Ok(Revision(revision))
    }
}
