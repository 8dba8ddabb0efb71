//! A kubelet on an agent: it starts without servers, and keeps its pods when servers come and go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use sampan_agent::Agent;
use sampan_kubelet::{Config, Kubelet};
use sampan_network::{Addressing, PodNetwork, RangeConfig};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::*;
use crate::fake_runtime::{FakeImages, FakeRuntime};

/// An agent with its kubelet.
struct TestNode {
    agent: Agent,
    runtime: Arc<FakeRuntime>,
    kubelet: JoinHandle<()>,
    stop: CancellationToken,
}

impl TestNode {
    async fn start(authority: &Authority, dir: &Path, seeds: Vec<String>, runtime: Arc<FakeRuntime>) -> Self {
        let agent = agent(authority, &dir.join("agent"), seeds).await;
        let range = RangeConfig { addressing: Addressing::Loopback, ..RangeConfig::default() };
        let network = Arc::new(PodNetwork::set_up(&range).await.unwrap());
        let images = Arc::new(FakeImages::default());
        let mut config =
            Config::new("n1", dir.join("kubelet"), agent.client(), runtime.clone(), images, network);
        config.pressure.disk_available = 0.0;
        config.link = Some(agent.api_link());
        config.clock_skew = Some(agent.clock_skew());
        config.periods.node_check = Duration::from_millis(500);
        let kubelet = Kubelet::new(config).await.unwrap();
        agent.router().connect(kubelet.server());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let kubelet = tokio::spawn(async move { kubelet.run(token).await.unwrap() });
        Self { agent, runtime, kubelet, stop }
    }

    /// The process is gone from one moment to the next; what it had written is there.
    async fn crash(self) -> Arc<FakeRuntime> {
        self.agent.mirror().save().await.unwrap();
        self.kubelet.abort();
        self.kubelet.await.ok();
        self.agent.stop().await;
        self.runtime.after_crash()
    }

    async fn until(&self, pods: &Api<Pod>, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        eventually(what, || async { pods.get(name).await.ok().filter(|pod| wanted(pod)) }).await
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    containers.and_then(|all| all.first()).map_or(0, |container| container.restart_count)
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_every_server_leaves_pods_running_and_nothing_restarts() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    tell(&[&one], Some(&one));
    furnish(&one.admin()).await;
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(&authority, dir.path(), vec![one.address()], FakeRuntime::new()).await;
    let made = pod(&one.admin(), "p", &["run"]).await;
    let pods: Api<Pod> = Api::namespaced(one.admin(), "default");
    node.until(&pods, "p", "the pod runs", |pod| phase(pod) == "Running").await;
    let log = eventually("the log is read through the tunnel", || async {
        node.runtime.print("a", "hello from the node");
        pods.logs("p", &Default::default()).await.ok().filter(|text| !text.is_empty())
    })
    .await;
    assert!(log.contains("hello from the node"), "{log}");

    one.vanish().await;
    node.agent.link().wait_for(|state| state.connected.is_none()).await.unwrap();
    // Meanwhile a pod comes, and what the first one shows changes.
    pod(&one.admin(), "q", &["run"]).await;
    let maps: Api<ConfigMap> = Api::namespaced(one.admin(), "default");
    let change = json!({"data": {"f": "new text"}});
    maps.patch("files", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.runtime.containers().len(), 1);
    one.reappear().await;
    node.until(&pods, "q", "the new pod runs", |pod| phase(pod) == "Running").await;
    let found = pods.get("p").await.unwrap();
    assert_eq!(found.metadata.uid, made.metadata.uid);
    assert_eq!((phase(&found), restarts(&found)), ("Running", 0));
    assert_eq!(node.runtime.containers().len(), 2);
    let mounts = node.runtime.newest("a").unwrap().config.mounts;
    let files = mounts.iter().find(|mount| mount.container_path == "/f").unwrap().host_path.join("f");
    eventually("the changed file", || async {
        std::fs::read_to_string(&files).ok().filter(|text| text == "new text")
    })
    .await;
    node.stop.cancel();
    node.kubelet.await.unwrap();
    node.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_boots_alone_starts_its_pods_and_tells_the_server_later() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    tell(&[&one], Some(&one));
    furnish(&one.admin()).await;
    let dir = tempfile::tempdir().unwrap();
    let first = TestNode::start(&authority, dir.path(), vec![one.address()], FakeRuntime::new()).await;
    let pods: Api<Pod> = Api::namespaced(one.admin(), "default");
    let mut uids = Vec::new();
    for name in ["stays", "changes", "goes"] {
        uids.push(pod(&one.admin(), name, &["run"]).await.metadata.uid.unwrap());
        first.until(&pods, name, "it runs", |pod| phase(pod) == "Running").await;
    }
    let runtime = first.crash().await;
    one.vanish().await;
    // What happens meanwhile.
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("goes", &now).await.unwrap();
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    pods.patch("changes", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();

    let second = TestNode::start(&authority, dir.path(), vec![one.address()], runtime).await;
    let own: Api<Pod> = Api::namespaced(second.agent.client(), "default");
    for (name, uid) in ["stays", "changes", "goes"].iter().zip(&uids) {
        let found = second
            .until(&own, name, "it runs again", |pod| phase(pod) == "Running" && restarts(pod) == 1)
            .await;
        assert_eq!(found.metadata.uid.as_ref(), Some(uid));
    }
    let running = |runtime: &FakeRuntime| {
        let all = runtime.containers();
        all.iter().filter(|c| !matches!(c.status.state, sampan_cri::ContainerState::Exited(_))).count()
    };
    assert_eq!(running(&second.runtime), 3);
    let keys = second.runtime.newest("a").unwrap().config.mounts;
    let key = keys.iter().find(|mount| mount.container_path == "/k").unwrap().host_path.join("k");
    assert_eq!(std::fs::read_to_string(key).unwrap(), "a well kept secret");
    assert_eq!(restarts(&pods.get("stays").await.unwrap()), 0, "the server does not know yet");
    for entry in std::fs::read_dir(dir.path().join("agent")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        for text in ["a well kept secret", "YSB3ZWxsIGtlcHQgc2VjcmV0", "plain text"] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{path:?}");
        }
    }

    // Once more without a server: what the second run knew is not lost.
    let runtime = second.crash().await;
    let second = TestNode::start(&authority, dir.path(), vec![one.address()], runtime).await;
    let own: Api<Pod> = Api::namespaced(second.agent.client(), "default");
    for name in ["stays", "changes", "goes"] {
        second
            .until(&own, name, "it runs a third time", |pod| phase(pod) == "Running" && restarts(pod) == 2)
            .await;
    }
    let begun: Vec<_> = second.runtime.containers().iter().map(|c| c.status.id.clone()).collect();

    one.reappear().await;
    for (name, uid) in ["stays", "changes"].iter().zip(&uids) {
        let found = second.until(&pods, name, "the server is told", |pod| restarts(pod) == 2).await;
        assert_eq!((phase(&found), found.metadata.uid.as_ref()), ("Running", Some(uid)));
    }
    eventually("what was deleted ends", || async { (running(&second.runtime) == 2).then_some(()) }).await;
    let now: Vec<_> = second.runtime.containers().iter().map(|c| c.status.id.clone()).collect();
    assert!(now.iter().all(|id| begun.contains(id)), "nothing was restarted: {begun:?} {now:?}");
    let nodes: Api<Node> = Api::all(one.admin());
    let ready = |node: Node| {
        let conditions = node.status?.conditions?;
        let skewed = conditions.iter().any(|c| c.type_ == "ClockSkew" && c.status == "False");
        (skewed && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")).then_some(())
    };
    eventually("the node is ready", || async { ready(nodes.get("n1").await.ok()?) }).await;
    second.stop.cancel();
    second.kubelet.await.unwrap();
    second.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_object_was_deleted_meanwhile_registers_again() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    tell(&[&one], Some(&one));
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(&authority, dir.path(), vec![one.address()], FakeRuntime::new()).await;
    let nodes: Api<Node> = Api::all(one.admin());
    let first = eventually("it registers", || async { nodes.get("n1").await.ok() }).await;
    one.vanish().await;
    node.agent.link().wait_for(|state| state.connected.is_none()).await.unwrap();
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    one.reappear().await;
    let again = eventually("it registers again", || async {
        nodes.get("n1").await.ok().filter(|node| node.status.as_ref().is_some_and(|s| s.conditions.is_some()))
    })
    .await;
    assert_ne!(first.metadata.uid, again.metadata.uid);
    node.stop.cancel();
    node.kubelet.await.unwrap();
    node.agent.stop().await;
}
