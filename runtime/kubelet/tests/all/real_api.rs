//! The node agent against the API server itself: what one writes, the other accepts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, PostParams};
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_apiserver::{ApiServer, UserInfo};
use sampan_kubelet::{Config, Kubelet};
use sampan_network::{Addressing, PodNetwork, RangeConfig};
use sampan_store::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fake_runtime::{FakeImages, FakeRuntime};
use crate::harness::PATIENCE;

struct Cluster {
    client: kube::Client,
    runtime: Arc<FakeRuntime>,
    pods: Api<Pod>,
    _dir: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl Cluster {
    async fn start() -> Self {
        let pki = Arc::new(Pki::in_memory(ServingNames::new([], [])).unwrap());
        let config = sampan_apiserver::Config::new(Arc::new(MemoryStore::new()), pki, "127.0.0.1:6443");
        let server = ApiServer::new(config).await.unwrap();
        let admin = kube::Client::new(server.service(UserInfo::admin("admin")), "default");
        let client = kube::Client::new(server.service(UserInfo::node("n1")), "default");
        let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
        let account = serde_json::from_value(json!({ "metadata": { "name": "default" } })).unwrap();
        accounts.create(&PostParams::default(), &account).await.ok();
        // A controller's work: every pod shows it beside its token.
        let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), "default");
        let authority = json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": "x" } });
        maps.create(&PostParams::default(), &serde_json::from_value(authority).unwrap()).await.unwrap();
        let range = RangeConfig { addressing: Addressing::Loopback, ..Default::default() };
        let network = Arc::new(PodNetwork::set_up(&range).await.unwrap());
        let (runtime, dir) = (FakeRuntime::new(), tempfile::tempdir().unwrap());
        let images = Arc::new(FakeImages::default());
        let mut config = Config::new("n1", dir.path(), client, runtime.clone(), images, network);
        config.pressure.disk_available = 0.0;
        let kubelet = Kubelet::new(config).await.unwrap();
        let stop = CancellationToken::new();
        let (token, mut ready) = (stop.clone(), kubelet.ready());
        tokio::spawn(async move { kubelet.run(token).await.unwrap() });
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
        let pods = Api::namespaced(admin.clone(), "default");
        Self { client: admin, runtime, pods, _dir: dir, _stop: stop.drop_guard() }
    }

    async fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n1");
        let pod = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap();
        self.pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let pod = serde_json::to_value(self.pods.get(name).await.unwrap()).unwrap();
            if wanted(&pod) {
                return pod;
            }
            assert!(begun.elapsed() < PATIENCE, "{pod:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, |pod| pod["status"]["phase"] == phase).await
    }
}

#[tokio::test]
async fn the_nodes_object_is_accepted_whole() {
    let cluster = Cluster::start().await;
    let node = Api::<Node>::all(cluster.client.clone()).get("n1").await.unwrap();
    let status = node.status.unwrap();
    assert!(status.conditions.unwrap().iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    assert!(status.capacity.unwrap().contains_key("cpu"));
    assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("127.42.0.0/24"));
}

#[tokio::test]
async fn a_pod_lives_and_ends_through_the_api() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let map = serde_json::from_value(json!({ "metadata": { "name": "cfg" }, "data": { "k": "v" } })).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    cluster
        .pod(
            "p",
            json!({
                "volumes": [{ "name": "v", "projected": { "sources": [
                    { "configMap": { "name": "cfg" } }, { "serviceAccountToken": { "path": "token" } }
                ] } }],
                "containers": [{
                    "name": "a", "image": "there:1", "command": ["run"],
                    "volumeMounts": [{ "name": "v", "mountPath": "/v" }]
                }]
            }),
        )
        .await;
    let pod = cluster.phase("p", "Running").await;
    assert_eq!(pod["status"]["podIP"], "127.42.0.1");
    let ready =
        pod["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!(ready["status"], "True");
    let mounts = cluster.runtime.newest("a").unwrap().config.mounts;
    let volume = mounts.iter().find(|mount| mount.container_path == "/v").unwrap();
    let token = std::fs::read_to_string(volume.host_path.join("token")).unwrap();
    assert_eq!(token.split('.').count(), 3, "a signed token: {token}");
    let version = |pod: &Value| pod["metadata"]["resourceVersion"].clone();
    // Another pod's life passes; this one's object is not written again.
    cluster.pod("q", json!({ "restartPolicy": "Never", "containers": [{ "name": "b", "image": "there:1", "command": ["exit", "3"] }] })).await;
    let q = cluster.phase("q", "Failed").await;
    assert_eq!(q["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    let again = serde_json::to_value(cluster.pods.get("p").await.unwrap()).unwrap();
    assert_eq!(version(&again), version(&pod));
    cluster.pods.delete("p", &DeleteParams::default()).await.unwrap();
    let begun = Instant::now();
    while cluster.pods.get_opt("p").await.unwrap().is_some() {
        assert!(begun.elapsed() < PATIENCE, "the object stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn events_reach_the_api() {
    let cluster = Cluster::start().await;
    cluster.pod("p", json!({ "containers": [{ "name": "a", "image": "missing:1" }] })).await;
    cluster
        .until("p", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
        })
        .await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let begun = Instant::now();
    loop {
        let seen: Vec<String> = events
            .list(&Default::default())
            .await
            .unwrap()
            .into_iter()
            .filter_map(|event| event.reason)
            .collect();
        if ["Pulling", "Failed", "BackOff"].iter().all(|reason| seen.iter().any(|s| s == reason)) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
