//! The store by consensus: openraft on the write-ahead log and the state machine, membership, snapshots, reads.
//!
//! [`RaftStore`] is a [`sampan_store::Storage`]. A transaction goes from the caller to the leader
//! ([`forward`]), through the log ([`log`]: one writer, one sync for all that wait) and the members
//! ([`network`], [`server`]) into the state machine ([`machine`]), which answers. One voter runs
//! the same code without a network.

mod types;

pub use types::{Entry, Member, MemberId, Proposal, RaftLogId, Reply, StoredMembership, TypeConfig, Vote};
