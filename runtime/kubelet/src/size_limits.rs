//! Volumes with a size limit: measured now and then; a pod that outgrew its volume is evicted.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::manager::{Manager, Slot};
use crate::volumes::empty_dir::{self, SizeLimit};
use crate::volumes::usage;

/// Measures every `period` until `shutdown`.
pub(crate) async fn run(manager: Arc<Manager>, period: Duration, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        for slot in manager.all() {
            if slot.is_ending() {
                continue;
            }
            if let Some(limit) = exceeded(&slot).await {
                manager.evict(&slot, message(&limit));
            }
        }
    }
}

fn message(limit: &SizeLimit) -> String {
    format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", limit.volume, limit.text)
}

/// The first limit of a pod that is exceeded.
async fn exceeded(slot: &Slot) -> Option<SizeLimit> {
    let limits = empty_dir::size_limits(&slot.pod());
    if limits.is_empty() {
        return None;
    }
    let volumes = slot.volumes();
    tokio::task::spawn_blocking(move || {
        limits.into_iter().find(|limit| {
            volumes.get(&limit.volume).is_some_and(|volume| usage::bytes(&volume.path) > limit.bytes)
        })
    })
    .await
    .ok()
    .flatten()
}
