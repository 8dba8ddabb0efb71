//! The seam: what the API server asks of a store, and how a store may refuse.

use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::types::{RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchBatch, WatchRequest};

/// Why the store refused; each variant is something a caller acts on differently.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The revision asked for was compacted away: list again.
    #[error("revision {requested} was compacted; the oldest kept is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    /// The revision asked for lies ahead: wait, or ask for less.
    #[error("revision {requested} is ahead of the store's {current}")]
    Future { requested: Revision, current: Revision },
    /// No space is left where the store lives; reads go on.
    #[error("no space left on the store's device")]
    NoSpace,
    /// The transaction is larger than the store takes.
    #[error("transaction of {size} bytes exceeds the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
    /// A snapshot or data file is damaged or foreign.
    #[error("{what}")]
    Corrupt { what: String },
    /// The store is shutting down, or a disk error ended it.
    #[error("the store is not available: {why}")]
    Unavailable { why: String },
    /// Reading or writing a snapshot stream, or the data directory, failed.
    #[error("input or output failed")]
    Io(#[from] std::io::Error),
}

/// Events in revision order, without gaps or repeats. Ends with an error where the watcher
/// fell too far behind ([`StorageError::Compacted`]: list again) or the store went away.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchBatch, StorageError>> + Send>>;

/// A revisioned key-value store. Every implementation passes the conformance suite of this crate.
///
/// Guarantees: transactions are atomic, linearizable, and durable when they return; a read
/// at the newest revision sees every transaction acknowledged before it began.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// The newest revision.
    fn revision(&self) -> Revision;

    /// Reads one key or a range, at the newest or an older revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError>;

    /// Runs a transaction. The revision grows by one if it changed anything.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError>;

    /// Follows a range from a revision on.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError>;

    /// Forgets history before `revision`; the newest state of every key stays.
    async fn compact(&self, revision: Revision) -> Result<(), StorageError>;

    /// Writes the whole state at one revision (returned) to `to`, checksummed.
    async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError>;

    /// Replaces the whole state by a snapshot's. Watches end; revisions never go back.
    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError>;
}
