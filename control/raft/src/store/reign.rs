//! Reigns: what a leader does before it serves.
//!
//! Its first command says that it begins. Once that is applied here, so is everything that came
//! before it, and revisions lie beyond all that were given out.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use sampan_store::{ClusterId, Command, StorageError};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Core, LocalError};
use crate::forward::REQUEST_WITHIN;
use crate::membership;
use crate::types::MemberId;

/// How soon a beginning that was refused is tried again: a new leader may propose nothing before a
/// quorum has answered it, which takes as long as a message.
const SOON: Duration = Duration::from_millis(5);
/// How often a beginning that failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, where one is known.
    pub leader: Option<MemberId>,
    /// Its term.
    pub term: u64,
    /// It is this member, and it serves.
    pub mine: bool,
    /// It is this member, which cannot serve as its device is full.
    pub full: bool,
}

impl Core {
    /// Waits until this member serves as the leader.
    pub(crate) async fn reigning(&self) -> Result<(), LocalError> {
        let now = *self.leadership.borrow();
        if now.mine {
            return Ok(());
        }
        let mut leadership = self.leadership.subscribe();
        let waiting = async {
            loop {
                let now = *leadership.borrow_and_update();
                if now.mine {
                    return Ok(());
                }
                if now.full {
                    return Err(StorageError::NoSpace.into());
                }
                self.check_open()?;
                self.machine.check()?;
                if now.leader != Some(self.id) {
                    return Err(LocalError::NotLeader { leader: now.leader });
                }
                if leadership.changed().await.is_err() {
                    return Err(LocalError::NotLeader { leader: None });
                }
            }
        };
        let late = |_| LocalError::NotLeader { leader: None };
        timeout_at(Instant::now() + REQUEST_WITHIN, waiting).await.map_err(late)?
    }
}

/// Follows who leads, and begins a reign whenever it is this member.
pub(super) async fn follow(core: Arc<Core>) {
    let mut metrics = core.raft.server_metrics();
    loop {
        let (leader, term) = {
            let now = metrics.borrow_watched();
            (now.current_leader, now.vote.leader_id.term)
        };
        let before = *core.leadership.borrow();
        if leader != Some(core.id) {
            core.leadership.send_if_modified(|now| {
                let next = Leadership { leader, term, mine: false, full: false };
                std::mem::replace(now, next) != next
            });
        } else if !(before.mine && before.term == term) {
            if before.leader != leader || before.term != term {
                core.leadership.send_replace(Leadership { leader, term, mine: false, full: false });
            }
            if let Err(pause) = begin(&core, term).await {
                sleep(pause).await;
                continue;
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Begins a reign; an error is how long to wait before it is tried again.
async fn begin(core: &Arc<Core>, term: u64) -> Result<(), Duration> {
    let cluster = match core.cluster() {
        known if !known.is_none() => known,
        _ => match ClusterId::generate() {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::error!(%error, "the system gives no randomness");
                return Err(AGAIN);
            }
        },
    };
    let skip = !core.machine.config().volatile_prefixes.is_empty();
    let (full, pause) = match core.write(Command::Reign { cluster, skip }).await {
        Ok(_) => {
            let still = {
                let metrics = core.raft.server_metrics();
                let now = metrics.borrow_watched();
                now.current_leader == Some(core.id) && now.vote.leader_id.term == term
            };
            if !still {
                // Somebody else brought it to its end; what follows says who.
                return Ok(());
            }
            let leader = Some(core.id);
            core.leadership.send_replace(Leadership { leader, term, mine: true, full: false });
            tracing::info!(term, cluster = %core.cluster(), "this member leads");
            tokio::spawn(membership::finish(Arc::clone(core)));
            return Ok(());
        }
        // Somebody else leads by now, or soon; or nobody has answered this member yet.
        Err(LocalError::NotLeader { .. }) => (false, SOON),
        Err(LocalError::Unknown { .. }) => (false, AGAIN),
        Err(LocalError::Storage(StorageError::NoSpace)) => (true, AGAIN),
        Err(LocalError::Storage(error)) => {
            tracing::debug!(%error, "a reign did not begin");
            (false, AGAIN)
        }
    };
    core.leadership.send_if_modified(|now| std::mem::replace(&mut now.full, full) != full);
    Err(pause)
}
