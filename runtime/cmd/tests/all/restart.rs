//! Coming back: after a stop, and after a power cut.

use k8s_openapi::api::core::v1::Pod;
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
    let anew = |pod: &Pod| is_ready(pod) && container(pod) != container(&before);
    let after = cluster.wait_for("web", anew).await;
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
    let before: Vec<_> = all_ready(&cluster, &[]).await.iter().filter_map(container).collect();
    assert_eq!(before.len(), 50);
    cluster.kill();
    cluster.resume().await;
    let pods = all_ready(&cluster, &before).await;
    let mut addresses: Vec<_> = pods.iter().map(|p| p.status.clone().unwrap().pod_ip.unwrap()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50, "each has an address of its own");
}

/// Waits until all fifty pods are ready, with other containers than those that ran `before`: the
/// node takes a moment to tell what became of them.
async fn all_ready(cluster: &Cluster, before: &[String]) -> Vec<Pod> {
    let pods = cluster.pods().await;
    let runs = |pod: &Pod| is_ready(pod) && container(pod).is_some_and(|id| !before.contains(&id));
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let list = pods.list(&ListParams::default()).await.unwrap();
        let waiting = list.items.iter().filter(|pod| !runs(pod)).count();
        if list.items.len() == 50 && waiting == 0 {
            return list.items;
        }
        assert!(std::time::Instant::now() < deadline, "{waiting} pods are not ready: {}", cluster.errors());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// The id of a pod's only container.
fn container(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.container_id.clone()
}
