//! Linearizable reads: the newest revision, confirmed by the cluster, on any member.
//!
//! The leader reads under its lease, and where that has run out asks a quorum; everybody else asks
//! the leader which entry a read must have seen, and waits until it has applied that. Readers that
//! come while a round is under way share the next one.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use sampan_store::{Revision, StorageError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::forward::{self, REQUEST_WITHIN};
use crate::store::{Core, LocalError};
use crate::wire::WireError;

type Waiter = oneshot::Sender<Result<Revision, WireError>>;

/// Readers that wait for the next round.
#[derive(Default)]
pub(crate) struct Reads {
    rounds: Mutex<Rounds>,
}

#[derive(Default)]
struct Rounds {
    running: bool,
    waiting: Vec<Waiter>,
}

impl Reads {
    /// Takes a reader in. True where a round must be started for it.
    fn join(&self, waiter: Waiter) -> bool {
        let mut rounds = self.rounds.lock();
        rounds.waiting.push(waiter);
        !std::mem::replace(&mut rounds.running, true)
    }

    /// The readers of the next round; `None` ends the rounds.
    fn take(&self) -> Option<Vec<Waiter>> {
        let mut rounds = self.rounds.lock();
        if rounds.waiting.is_empty() {
            rounds.running = false;
            return None;
        }
        Some(std::mem::take(&mut rounds.waiting))
    }
}

/// The newest revision as of some moment after this was called, applied here.
///
/// # Errors
/// [`StorageError::Unavailable`] where no leader confirms it in time.
pub(crate) async fn current_revision(core: &Arc<Core>) -> Result<Revision, StorageError> {
    let (waiter, answer) = oneshot::channel();
    if core.reads.join(waiter) {
        tokio::spawn(run(Arc::clone(core)));
    }
    let gone = |_| StorageError::Unavailable { why: "the store is closing".into() };
    Ok(answer.await.map_err(gone)??)
}

async fn run(core: Arc<Core>) {
    while let Some(readers) = core.reads.take() {
        let outcome = round(&core).await;
        for reader in readers {
            // A reader may have gone.
            let _ = reader.send(outcome.clone());
        }
    }
}

async fn round(core: &Core) -> Result<Revision, WireError> {
    let deadline = Instant::now() + REQUEST_WITHIN;
    let index = loop {
        if let Some(index) = forward::read_index(core, deadline).await? {
            break index;
        }
        match local_index(core).await {
            Ok(index) => break index,
            Err(LocalError::NotLeader { leader }) if Instant::now() < deadline => {
                forward::another_leader(core, leader, deadline).await;
            }
            Err(LocalError::NotLeader { .. }) => {
                return Err(WireError::Unavailable { why: "there is no leader".into() });
            }
            Err(LocalError::Unknown { why }) => return Err(WireError::Unavailable { why }),
            Err(LocalError::Storage(error)) => return Err(error.into()),
        }
    };
    core.applied_index(index, deadline).await?;
    Ok(core.machine.revision())
}

/// The index of the entry that a linearizable read must have applied, where this member leads.
///
/// # Errors
/// [`LocalError::NotLeader`] where it does not, or cannot find a quorum that says so.
pub(crate) async fn local_index(core: &Core) -> Result<u64, LocalError> {
    // A leader that was restarted goes on in its old term and does not know yet what it had
    // committed in it: once its reign began, it does.
    core.reigning().await?;
    let linearizer = match core.raft.get_read_linearizer(ReadPolicy::LeaseRead).await {
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            core.raft.get_read_linearizer(ReadPolicy::ReadIndex).await
        }
        other => other,
    };
    match linearizer {
        Ok(linearizer) => Ok(linearizer.read_log_id().log_id().index),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
            Err(LocalError::NotLeader { leader: to.leader_id })
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            Err(LocalError::NotLeader { leader: None })
        }
        Err(RaftError::Fatal(fatal)) => {
            Err(LocalError::Storage(StorageError::Unavailable { why: fatal.to_string() }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_come_during_a_round_share_the_next_one() {
        let reads = Reads::default();
        let waiter = || oneshot::channel().0;
        assert!(reads.join(waiter()), "the first starts a round");
        assert_eq!(reads.take().unwrap().len(), 1);
        assert!(!reads.join(waiter()));
        assert!(!reads.join(waiter()));
        assert_eq!(reads.take().unwrap().len(), 2);
        assert!(reads.take().is_none());
        assert!(reads.join(waiter()), "the rounds had ended");
    }
}
