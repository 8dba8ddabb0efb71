//! A member that is alone keeps the promises of the seam, also when it is tiny.

use std::sync::Arc;

use sampan_store::DurableConfig;
use sampan_store::conformance::{Store, run_all};

use crate::support::{open, small};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_durable_store_keeps_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    run_all(|| async {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(open(&DurableConfig::new(dir.path().join(number.to_string()))).await) as Store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_store_that_checkpoints_all_the_time_keeps_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    run_all(|| async {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut config = small(&dir.path().join(number.to_string()));
        // The largest transaction must still fit.
        config.segment_bytes = 2 << 20;
        config.checkpoint_bytes = 16 << 10;
        config.sealed_prefixes = vec!["/k/".into()];
        Arc::new(open(&config).await) as Store
    })
    .await;
}
