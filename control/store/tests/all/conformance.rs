//! The store in memory keeps the promises of the seam.

use std::sync::Arc;

use sampan_store::MemoryStore;
use sampan_store::conformance::{Store, run_all};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_keeps_the_promises() {
    run_all(|| async { Arc::new(MemoryStore::new()) as Store }).await;
}
