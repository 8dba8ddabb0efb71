//! A leader without followers needs no ticks: nobody waits for its heartbeats, and nobody else can
//! be elected. An idle node sleeps the longer for it.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;

use crate::store::Core;
use crate::types::MemberId;

/// Lets openraft tick while there is somebody to tick for; until Raft ends.
pub(crate) async fn follow(core: Arc<Core>) {
    let mut metrics = core.raft.server_metrics();
    loop {
        let needed = {
            let now = metrics.borrow_watched();
            let members = now.membership_config.membership().nodes().map(|(id, _)| *id);
            is_needed(core.id, now.current_leader, members)
        };
        core.raft.runtime_config().tick(needed);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Whether `id` must notice that time passes: as long as it does not lead, or others are there.
fn is_needed(id: MemberId, leader: Option<MemberId>, mut members: impl Iterator<Item = MemberId>) -> bool {
    leader != Some(id) || members.any(|member| member != id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_that_is_alone_needs_no_ticks() {
        // leader, members, needed
        let table = [
            (None, &[][..], true),
            (None, &[1], true),
            (Some(2), &[1, 2], true),
            (Some(1), &[1, 2], true),
            (Some(1), &[1], false),
        ];
        for (leader, members, needed) in table {
            let found = is_needed(1, leader, members.iter().copied());
            assert_eq!(found, needed, "{leader:?} {members:?}");
        }
    }
}
