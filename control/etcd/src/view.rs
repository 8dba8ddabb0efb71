//! What the services need to know of the cluster, and ask of it. Whoever runs the store knows.

use std::pin::Pin;

use async_trait::async_trait;
use futures::{Stream, StreamExt};

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// The term that this is of.
    pub term: u64,
    /// Whether it is this member.
    pub mine: bool,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberView {
    /// Its id, never 0.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the other members reach it, as URLs.
    pub peer_urls: Vec<String>,
    /// Where clients of this API reach it, as URLs; empty where it does not serve it or is not known to.
    pub client_urls: Vec<String>,
    /// Whether it only learns, and has no vote.
    pub learner: bool,
}

/// How far this member's log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
}

/// What the store takes on this member's disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbSize {
    /// The files.
    pub file: u64,
    /// The part of them that holds something.
    pub in_use: u64,
}

/// Why the cluster refused; each is something a client acts on differently.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Only the leader can do this.
    #[error("this member does not lead")]
    NotLeader,
    /// There is no such voting member.
    #[error("no such member")]
    UnknownMember,
    /// It failed, or nobody leads.
    #[error("{why}")]
    Failed {
        /// What failed.
        why: String,
    },
}

/// Every change of leadership from now on, the present one first.
pub type LeadershipStream = Pin<Box<dyn Stream<Item = Leadership> + Send>>;

/// The cluster as one of its members sees it.
#[async_trait]
pub trait ClusterView: Send + Sync + 'static {
    /// The cluster's id.
    fn cluster_id(&self) -> u64;

    /// This member's id.
    fn member_id(&self) -> u64;

    /// Who leads now.
    fn leadership(&self) -> Leadership;

    /// Who leads, now and after each change.
    fn leadership_changes(&self) -> LeadershipStream;

    /// How far the log has come.
    fn log(&self) -> LogPosition;

    /// What the store takes on disk.
    fn db_size(&self) -> DbSize;

    /// All members.
    async fn members(&self) -> Result<Vec<MemberView>, ViewError>;

    /// Hands the leadership to a voting member; only the leader can.
    async fn transfer_leadership(&self, to: u64) -> Result<(), ViewError>;

    /// Frees, on this member, the room on disk that forgotten history takes, and returns when
    /// that is done.
    async fn reclaim(&self) -> Result<(), ViewError>;
}

/// A store that is no member of anything: it always leads. For tests and trials.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standalone;

#[async_trait]
impl ClusterView for Standalone {
    fn cluster_id(&self) -> u64 {
        1
    }

    fn member_id(&self) -> u64 {
        1
    }

    fn leadership(&self) -> Leadership {
        Leadership { leader: Some(1), term: 1, mine: true }
    }

    fn leadership_changes(&self) -> LeadershipStream {
        let leadership = self.leadership();
        Box::pin(futures::stream::iter([leadership]).chain(futures::stream::pending()))
    }

    fn log(&self) -> LogPosition {
        LogPosition::default()
    }

    fn db_size(&self) -> DbSize {
        DbSize::default()
    }

    async fn members(&self) -> Result<Vec<MemberView>, ViewError> {
        Ok(vec![MemberView { id: 1, name: "standalone".to_owned(), ..MemberView::default() }])
    }

    async fn transfer_leadership(&self, to: u64) -> Result<(), ViewError> {
        if to == 1 { Ok(()) } else { Err(ViewError::UnknownMember) }
    }

    /// There is no disk.
    async fn reclaim(&self) -> Result<(), ViewError> {
        Ok(())
    }
}
