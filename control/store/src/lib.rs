//! Bytes and revisions: the store beneath the API server.
//!
//! The model is etcd's: one revision counter, keys in byte order, compare-and-swap
//! transactions, ranges and watches at a revision, compaction. Nothing here knows
//! Kubernetes types; values are opaque. Only the API server uses this crate.
//!
//! [`MemoryStore`] and [`Machine`] share one state machine (`machine`, `evaluate`, `read`). A
//! transaction over the machine goes: prepared, into the [`wal`] by whoever orders commands,
//! applied, [`Storage::watch`]'s hub; later, in the background, into the tables.

mod attached;
mod codec;
mod command;
pub mod conformance;
mod disjoint;
mod disk;
mod durable;
mod evaluate;
mod event;
mod hub;
mod layer;
mod level;
mod machine;
mod memory;
mod read;
mod record;
mod seal;
mod snapshot;
mod span;
mod storage;
mod tables;
mod txn;
mod types;
mod volatile;
pub mod wal;
mod watch;

pub use command::{ClusterId, Command, Effect};
pub use disjoint::Disjoint;
pub use disk::{Disk, DiskFaults, DiskOp};
pub use durable::{
    Applied, Background, Build, Compaction, Cut, DurableConfig, DurableLog, Forget, Machine, OpenError,
    Opened, Prepared, Standing, Stats,
};
pub use level::{Level, UnknownVersion};
pub use machine::Answer;
pub use memory::MemoryStore;
pub use snapshot::{SnapshotCheck, SnapshotFault, SnapshotInfo, SnapshotWriter};
pub use storage::{Storage, StorageError, WatchStream};
pub use txn::MAX_TXN_BYTES;
pub use types::{
    Compare, KeyValue, LeaseId, Op, OpResult, Operand, RangeRequest, RangeResponse, Refusal, Relation,
    Revision, Txn, TxnResponse, WatchBatch, WatchEvent, WatchRequest, prefix_end,
};
pub use volatile::CopyOf;
