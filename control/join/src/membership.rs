//! The group of servers, as the routes need it. Implemented over the replicated store.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::KeyId;

/// A server as a member of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number: [`KeyId::member_id`] of its key.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `host:port` each, where it is reached.
    pub addresses: Vec<String>,
    /// Its key.
    pub key: KeyId,
}

/// A member and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// Whether it votes; else it learns.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Whether the leader hears from it, where that is known.
    pub reachable: Option<bool>,
    /// How many entries of the log it lacks, where that is known.
    pub lag: Option<u64>,
    /// The newest level that it understands, where that is known; not told before 0.3.
    #[serde(default)]
    pub level: Option<u16>,
    /// The level that the group is at; not told before 0.3.
    #[serde(default)]
    pub group_level: Option<u16>,
}

/// Why the group did not change.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// There is no such member.
    #[error("there is no member {0}")]
    NotFound(String),
    /// The change would harm the group, or another one is under way.
    #[error("{0}")]
    Refused(String),
    /// The machine does not understand what the group uses.
    #[error("{0}")]
    TooOld(String),
    /// There is no leader now, or it cannot be reached.
    #[error("the members cannot agree now: {0}")]
    Unavailable(String),
}

/// What can be asked of the group. A call answers once the group has agreed on it.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// All members.
    async fn list(&self) -> Result<Vec<MemberState>, MembershipError>;

    /// Adds a member that learns and does not vote. One that is there already stays what it is, with
    /// these addresses.
    async fn add_learner(&self, member: Member) -> Result<(), MembershipError>;

    /// Makes a learner a voter. Refused while it lags behind.
    async fn promote(&self, id: u64) -> Result<(), MembershipError>;

    /// Takes a member out.
    async fn remove(&self, id: u64) -> Result<(), MembershipError>;

    /// A member is reached elsewhere now.
    async fn update(&self, id: u64, addresses: Vec<String>) -> Result<(), MembershipError>;
}

/// A member's number as people see it.
pub fn format_member_id(id: u64) -> String {
    format!("{id:016x}")
}
