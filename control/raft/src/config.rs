//! How a member is set up, and why it could not start.

use std::sync::Arc;

use openraft::SnapshotPolicy;
use sampan_store::{ClusterId, DurableConfig};

use crate::types::{Member, MemberId};

/// How a member is set up.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The data directory and what belongs to it.
    pub store: DurableConfig,
    /// This member.
    pub member: Member,
    /// How fast it notices that others are gone.
    pub timing: Timing,
}

impl RaftConfig {
    /// The defaults.
    pub fn new(store: DurableConfig, member: Member) -> Self {
        Self { store, member, timing: Timing::default() }
    }
}

/// How fast members notice that others are gone; the same on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader shows itself, in milliseconds.
    pub heartbeat: u64,
    /// How long the others wait for it at least, in milliseconds.
    pub election_min: u64,
    /// How long they wait at most, in milliseconds.
    pub election_max: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat: 60, election_min: 150, election_max: 300 }
    }
}

/// How a member begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first member of a new cluster, or whatever the directory says.
    Bootstrap,
    /// Wait to be taken in by a leader, or whatever the directory says.
    Join,
    /// The sole survivor: a cluster of this member alone, with everything that its log has.
    ForceNew,
}

/// Why a member could not start, on one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Store(#[from] sampan_store::OpenError),
    /// The data directory is another member's.
    #[error(
        "data directory {dir} is that of member {found:016x} of cluster {cluster}; this is member {id:016x}"
    )]
    Foreign {
        /// The directory.
        dir: String,
        /// A member that its group has.
        found: MemberId,
        /// Its cluster.
        cluster: ClusterId,
        /// This member.
        id: MemberId,
    },
    /// The log cannot be used.
    #[error("the log of data directory {dir} cannot be used: {why}")]
    Log {
        /// The directory.
        dir: String,
        /// Why.
        why: String,
    },
    /// Consensus could not start.
    #[error("consensus could not start: {why}")]
    Start {
        /// Why.
        why: String,
    },
}

/// What openraft is told.
pub(crate) fn openraft(timing: Timing) -> Result<Arc<openraft::Config>, OpenError> {
    let config = openraft::Config {
        cluster_name: "sampan".into(),
        heartbeat_interval: timing.heartbeat,
        election_timeout_min: timing.election_min,
        election_timeout_max: timing.election_max,
        install_snapshot_timeout: 60_000,
        // The checkpoints decide, see `keeper`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        replication_lag_threshold: u64::MAX / 2,
        enable_pre_vote: Some(true),
        // Entries leave a leader while it still writes them. One that was restarted may lack some
        // that others have, and must not give their places in its term to new ones.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| OpenError::Start { why: error.to_string() })
}
