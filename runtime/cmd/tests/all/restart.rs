//! Coming back: after a stop, and after a power cut.

use kube::api::ListParams;
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, is_ready};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_cluster_comes_back_with_its_pods() {
    let mut cluster = Cluster::start().await;
    cluster
        .create_pod(json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "c", "image": "sampan/hello-http"}]},
        }))
        .await;
    let before = cluster.wait_for("web", is_ready).await;
    assert_eq!(cluster.stop(), Some(0));
    cluster.resume().await;
    let after = cluster.wait_for("web", is_ready).await;
    assert_eq!(after.metadata.uid, before.metadata.uid, "the same pod, not another of its name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pods_come_back_after_a_kill() {
    let mut cluster = Cluster::start().await;
    for number in 0..50 {
        cluster
            .create_pod(json!({
                "metadata": {"name": format!("web-{number}")},
                "spec": {"containers": [{"name": "c", "image": "sampan/hello-http"}]},
            }))
            .await;
    }
    all_ready(&cluster).await;
    cluster.kill();
    cluster.resume().await;
    all_ready(&cluster).await;
    let pods = cluster.pods().await.list(&ListParams::default()).await.unwrap();
    let mut addresses: Vec<_> =
        pods.items.iter().map(|p| p.status.clone().unwrap().pod_ip.unwrap()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50, "each has an address of its own");
}

/// Waits until all fifty pods are ready and, where they ran before, were started anew.
async fn all_ready(cluster: &Cluster) {
    let pods = cluster.pods().await;
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let list = pods.list(&ListParams::default()).await.unwrap();
        if list.items.len() == 50 && list.items.iter().all(is_ready) {
            return;
        }
        let waiting = list.items.iter().filter(|p| !is_ready(p)).count();
        assert!(std::time::Instant::now() < deadline, "{waiting} pods are not ready: {}", cluster.errors());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
