//! Bytes and revisions: the store beneath the API server.
//!
//! The model is etcd's: one revision counter, keys in byte order, compare-and-swap
//! transactions, ranges and watches at a revision, compaction. Nothing here knows
//! Kubernetes types; values are opaque. Only the API server uses this crate.

mod storage;
mod types;

pub use storage::{Storage, StorageError, WatchStream};
pub use types::{
    Compare, KeyValue, Op, OpResult, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchBatch,
    WatchEvent, WatchRequest,
};
