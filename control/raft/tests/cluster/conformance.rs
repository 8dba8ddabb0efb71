//! The store's own conformance suite, on the leader of three and through a follower.

use std::sync::Arc;

use async_trait::async_trait;
use sampan_raft::RaftStore;
use sampan_store::conformance::{self, Store};
use sampan_store::{
    RangeRequest, RangeResponse, Revision, Storage, StorageError, Txn, TxnResponse, WatchRequest, WatchStream,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::Cluster;

/// Restoring replaces the whole cluster, which one that runs refuses.
fn but_restores(name: &str) -> bool {
    !name.contains("snapshot")
}

/// A member, and the cluster that it needs to live.
struct Within {
    store: Arc<RaftStore>,
    _cluster: Cluster,
}

#[async_trait]
impl Storage for Within {
    fn revision(&self) -> Revision {
        self.store.revision()
    }
    async fn current_revision(&self) -> Result<Revision, StorageError> {
        self.store.current_revision().await
    }
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.store.range(request).await
    }
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        self.store.txn(txn).await
    }
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        self.store.watch(request).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        self.store.compact(revision).await
    }
    async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError> {
        self.store.snapshot(to).await
    }
    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError> {
        self.store.restore(from).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_three_conforms() {
    conformance::run_where(but_restores, || async {
        let cluster = Cluster::all_durable(3).await;
        let store = cluster.store(cluster.leader().await);
        Arc::new(Within { store, _cluster: cluster }) as Store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_three_conforms() {
    conformance::run_where(but_restores, || async {
        let cluster = Cluster::all_durable(3).await;
        let leader = cluster.leader().await;
        let store = cluster.store(cluster.other(&[leader]));
        Arc::new(Within { store, _cluster: cluster }) as Store
    })
    .await;
}
