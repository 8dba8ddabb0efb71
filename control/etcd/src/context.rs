//! What all services share.

use std::sync::Arc;
use std::time::Duration;

use sampan_store::{RangeRequest, Revision, Storage, StorageError};
use tokio_util::sync::CancellationToken;

use crate::lease::Lessor;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::view::ClusterView;

/// What can be set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often quiet watches that asked for it are told how far they have come.
    pub progress_interval: Duration,
    /// How long a stream that wants a leader waits for one before it ends.
    pub leader_patience: Duration,
    /// The most steps, or conditions, that a transaction may have.
    pub max_txn_ops: usize,
}

impl Default for Options {
    /// As etcd's.
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_secs(600),
            leader_patience: Duration::from_secs(3),
            max_txn_ops: 128,
        }
    }
}

/// A key that is looked for without being of interest.
const PROBE: &[u8] = b"\0";

pub(crate) struct Context {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) view: Arc<dyn ClusterView>,
    pub(crate) lessor: Arc<Lessor>,
    pub(crate) options: Options,
    /// Cancelled when the server stops: streams end.
    pub(crate) stop: CancellationToken,
}

impl Context {
    /// The header of an answer as of `revision`.
    pub(crate) fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.view.cluster_id(),
            member_id: self.view.member_id(),
            revision: number(revision.0),
            raft_term: self.view.leadership().term,
        }
    }

    /// The oldest revision that can still be read.
    pub(crate) async fn oldest(&self) -> Result<Revision, StorageError> {
        let probe = RangeRequest { count_only: true, ..RangeRequest::key(PROBE) };
        match self.storage.range(probe.at(Revision(0))).await {
            Ok(_) => Ok(Revision(0)),
            Err(StorageError::Compacted { oldest, .. }) => Ok(oldest),
            Err(error) => Err(error),
        }
    }

    /// The header of an answer as of now.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.storage.revision())
    }
}

/// A count or revision as the wire has it; none of ours comes near the sign.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
