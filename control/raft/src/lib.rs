//! The store by consensus: openraft on the write-ahead log and the state machine, membership, snapshots, reads.
//!
//! [`RaftStore`] is a [`sampan_store::Storage`]. A transaction goes from the caller to the leader
//! (`forward`), through the log ([`log`]: one writer, one sync for all that wait) and the members
//! (`network`, `server`) into the state machine (`machine`), which answers. One voter runs the
//! same code without a network.

mod alone;
mod config;
mod directory;
mod forward;
mod level;
pub mod log;
mod machine;
mod membership;
mod network;
pub mod peers;
mod quic;
mod reads;
mod server;
mod session;
mod snapshot_stream;
mod store;
mod tick;
mod types;
mod volatile_batch;
mod volatile_sync;
pub mod wire;

pub use alone::NoPeers;
pub use config::{OpenError, RaftConfig, Start, Timing};
pub use level::Levels;
pub use machine::{SnapshotData, StateMachine};
pub use peers::Peers;
pub use quic::QuicPeers;
pub use store::{Leadership, RaftStore};
pub use types::{Entry, Member, MemberId, Proposal, RaftLogId, Reply, StoredMembership, TypeConfig, Vote};
pub use wire::{MembershipError, Standing as MemberStatus};
