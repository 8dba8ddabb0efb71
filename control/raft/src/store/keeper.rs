//! What a member does beside serving: lets the log go that checkpoints cover, forgets history.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use sampan_store::{Forget, Revision};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Core, TAIL_BYTES};

/// How long openraft may take to note a checkpoint.
const NOTED_WITHIN: Duration = Duration::from_secs(10);

/// After each checkpoint, lets go what of the log is in the tables; where there are others, a tail
/// (no more than a segment) is kept for those who lag.
pub(super) async fn purge(core: Arc<Core>) {
    let mut progress = core.machine.progress();
    let mut done = None;
    loop {
        let checkpointed = core.machine.checkpointed().applied;
        let tail = if core.log.is_alone() { 0 } else { TAIL_BYTES.min(core.machine.config().segment_bytes) };
        if let Some(upto) = core.log.purgeable(checkpointed, tail)
            && done < Some(upto)
            && purge_upto(&core, upto).await
        {
            done = Some(upto);
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// Tells openraft of the checkpoint, then purges.
async fn purge_upto(core: &Core, upto: u64) -> bool {
    let mut metrics = core.raft.data_metrics();
    let known = |metrics: &DataMetrics| snapshot_covers(metrics, upto);
    if !known(&metrics) {
        core.progress.checkpoint.store(true, Ordering::SeqCst);
        if core.raft.trigger().snapshot().await.is_err() {
            return false;
        }
        let noted = async {
            while !known(&metrics) {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(NOTED_WITHIN, noted).await.is_err() {
            return false;
        }
    }
    core.raft.trigger().purge_log(upto).await.is_ok()
}

type DataMetrics = openraft::alias::WatchReceiverOf<
    crate::types::TypeConfig,
    openraft::metrics::RaftDataMetrics<crate::types::TypeConfig>,
>;

fn snapshot_covers(metrics: &DataMetrics, upto: u64) -> bool {
    metrics.borrow_watched().snapshot.is_some_and(|snapshot| snapshot.index >= upto)
}

/// How long a cut that nobody asks for stays, about.
const ROUND: Duration = Duration::from_secs(60);

/// Forgets history on time. The leader proposes it; what lives in memory only everybody forgets
/// alone.
pub(super) async fn forget(core: Arc<Core>) {
    let interval = core.machine.config().compaction.interval;
    let mut sampled = core.machine.revision().0;
    let mut due = Instant::now() + interval;
    loop {
        let round = Instant::now() + ROUND;
        sleep_until(if interval.is_zero() { round } else { due.min(round) }).await;
        core.progress.drop_old_cut();
        if interval.is_zero() || Instant::now() < due {
            continue;
        }
        due = Instant::now() + interval;
        let newest = core.machine.revision().0;
        forget_before(&core, sampled).await;
        sampled = newest;
        core.machine.keep_house();
    }
}

async fn forget_before(core: &Core, sampled: u64) {
    match core.machine.to_forget(sampled) {
        Forget::All { revision } if core.leadership.borrow().mine => {
            if let Err(error) = core.propose_compact(Revision(revision)).await {
                tracing::debug!(?error, "history is forgotten later");
            }
        }
        Forget::Volatile { revision } => core.machine.forget_volatile(revision),
        Forget::All { .. } | Forget::Nothing => {}
    }
}
