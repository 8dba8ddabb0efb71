//! What Raft is told of our types: members, proposals, answers.
//!
//! Nothing here is serialised by openraft: the log's form is [`sampan_store::Command`], the
//! wire's is this crate's own.

use std::fmt;
use std::sync::Arc;

use sampan_store::wal::LogId;
use sampan_store::{Answer, Command, StorageError};
use serde::{Deserialize, Serialize};

/// Names a member for as long as the cluster lives: the first 8 bytes (big endian) of the id of
/// its key. Never 0.
pub type MemberId = u64;

/// What every member knows of each: the node record of the replicated membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member's id.
    pub id: MemberId,
    /// The server's name, for people.
    pub name: String,
    /// Where it is reached: `host:port`, best first.
    pub addresses: Vec<String>,
    /// The SHA-256 of its public key.
    pub key: [u8; 32],
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:016x})", self.name, self.id)
    }
}

/// A command on its way through the log; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal(pub Arc<Command>);

impl Proposal {
    /// Proposes a command.
    pub fn new(command: Command) -> Self {
        Self(Arc::new(command))
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// What an applied command gave, for the caller on the member that proposed it.
#[derive(Debug)]
pub enum Reply {
    /// Nothing beyond having been applied: blank and membership entries, reservations.
    Done,
    /// A transaction's answer, its values in their envelopes.
    Txn(Answer),
    /// The revision that the command led to: volatile effects, reigns.
    Revision(u64),
    /// The command was taken back before it took place; it changed nothing.
    Refused(StorageError),
    /// The command could not be applied: the state machine has failed.
    Failed(String),
}

openraft::declare_raft_types!(
    /// The type configuration of our Raft.
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = MemberId,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;

/// One entry of the log in memory.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// The name of an entry as openraft has it; it counts from 0, the store's log from 1.
pub type RaftLogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// The membership with the entry that it came from.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot is of.
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// The name of an entry as the store's log has it; none is `0.0`.
pub(crate) fn to_wal(id: Option<RaftLogId>) -> LogId {
    id.map_or_else(LogId::default, |id| LogId { term: id.leader_id.term, index: id.index + 1 })
}

/// The name of an entry as openraft has it.
pub(crate) fn from_wal(id: LogId) -> Option<RaftLogId> {
    let index = id.index.checked_sub(1)?;
    Some(RaftLogId::new(CommittedLeaderId::new(id.term), index))
}
