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
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest revision that can still be read and watched from.
        oldest: Revision,
    },
    /// The revision asked for lies ahead: wait, or ask for less.
    #[error("revision {requested} is ahead of the store's {current}")]
    Future {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest revision there is.
        current: Revision,
    },
    /// No space is left where the store lives; reads go on.
    #[error("no space left on the store's device")]
    NoSpace,
    /// The transaction is larger than the store takes.
    #[error("transaction of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes of all keys and values of the transaction.
        size: usize,
        /// The most that the store takes.
        limit: usize,
    },
    /// The transaction breaks a rule of [`crate::Txn`]; sending it again cannot help.
    #[error("invalid transaction: {why}")]
    Invalid {
        /// The rule that it breaks.
        why: String,
    },
    /// A snapshot or data file is damaged or foreign.
    #[error("{what}")]
    Corrupt {
        /// What is damaged, and how.
        what: String,
    },
    /// The store is shutting down, or a disk error ended it.
    #[error("the store is not available: {why}")]
    Unavailable {
        /// What ended it.
        why: String,
    },
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
/// at the newest revision sees every transaction acknowledged before it began. A transaction
/// that was refused with [`StorageError::NoSpace`] changed nothing.
///
/// Caveat: a caller that drops the future of [`Storage::txn`] does not learn the outcome; the
/// transaction may still take place.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// The newest revision here; that of a cluster may be ahead.
    fn revision(&self) -> Revision;

    /// The newest revision, confirmed by the cluster: every transaction acknowledged before this
    /// was called has it or an older one.
    async fn current_revision(&self) -> Result<Revision, StorageError>;

    /// Reads one key or a range, at the newest or an older revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError>;

    /// Runs a transaction. The revision grows if it changed anything: by one, unless the store
    /// skipped revisions to be sure that none is ever given out twice.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError>;

    /// Follows a range from a revision on. A revision that lies ahead is waited for: events
    /// before it are not delivered. The first batch is what history holds (perhaps a mere
    /// progress mark), then come live events.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError>;

    /// Forgets history before `revision`: reads at and watches from older revisions are then
    /// refused with [`StorageError::Compacted`]. The newest state of every key stays, and so
    /// does every state from `revision` on. Compacting what is already compacted does nothing.
    async fn compact(&self, revision: Revision) -> Result<(), StorageError>;

    /// Writes the whole state at one revision (returned) to `to`, checksummed. Sealed values
    /// stay sealed; keyspaces kept in memory only and history are left out.
    async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError>;

    /// Replaces the whole state by a snapshot's, all or nothing. Watches end with
    /// [`StorageError::Compacted`]; the new revision (returned) lies far above the old one and
    /// the snapshot's, so that whoever remembers either lists again.
    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError>;
}
