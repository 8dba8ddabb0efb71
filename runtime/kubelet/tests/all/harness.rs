//! A node under test, and ways to wait for what should come.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use sampan_kubelet::{Config, Kubelet};
use sampan_network::{Addressing, PodNetwork, RangeConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::fake_api::FakeApi;
use crate::fake_runtime::{FakeImages, FakeRuntime};

/// Far beyond what anything takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestNode {
    pub api: Arc<FakeApi>,
    pub runtime: Arc<FakeRuntime>,
    pub images: Arc<FakeImages>,
    pub kubelet: Arc<Kubelet>,
    pub dir: Arc<tempfile::TempDir>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl TestNode {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::launch(FakeApi::new(), FakeRuntime::new(), dir, adjust).await
    }

    async fn launch(
        api: Arc<FakeApi>,
        runtime: Arc<FakeRuntime>,
        dir: Arc<tempfile::TempDir>,
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let range = RangeConfig { addressing: Addressing::Loopback, max_pods: 400, ..Default::default() };
        let network = Arc::new(PodNetwork::set_up(&range).await.unwrap());
        let images = Arc::new(FakeImages::default());
        let mut config =
            Config::new("n1", dir.path(), api.client(), runtime.clone(), images.clone(), network);
        config.periods.volume_usage = Duration::from_millis(100);
        config.pressure.disk_available = 0.0;
        config.shutdown_grace = Duration::from_secs(20);
        adjust(&mut config);
        let kubelet = Arc::new(Kubelet::new(config).await.unwrap());
        let stop = CancellationToken::new();
        let (runner, token) = (kubelet.clone(), stop.clone());
        let task = tokio::spawn(async move { runner.run(token).await.unwrap() });
        let mut ready = kubelet.ready();
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
        Self { api, runtime, images, kubelet, dir, stop, task }
    }

    /// Stops the agent in order.
    pub async fn stop(self) -> (Arc<FakeApi>, Arc<FakeRuntime>, Arc<tempfile::TempDir>) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap();
        (self.api, self.runtime, self.dir)
    }

    /// Starts a new agent where an earlier one stopped.
    pub async fn start_again(
        (api, runtime, dir): (Arc<FakeApi>, Arc<FakeRuntime>, Arc<tempfile::TempDir>),
    ) -> Self {
        Self::launch(api, runtime.after_crash(), dir, |_| {}).await
    }

    /// The agent is gone from one moment to the next; a new one starts.
    pub async fn crash(self) -> Self {
        self.task.abort();
        self.task.await.ok();
        Self::start_again((self.api, self.runtime, self.dir)).await
    }

    /// Makes a pod that is bound to the node.
    pub fn pod(&self, name: &str, mut spec: Value) -> Value {
        spec["nodeName"] = json!("n1");
        self.api.create("pods", "ns", json!({ "metadata": { "name": name }, "spec": spec }))
    }

    /// A pod of one container that does what its command says.
    pub fn simple(&self, name: &str, policy: &str, command: &[&str]) -> Value {
        self.pod(
            name,
            json!({
                "restartPolicy": policy,
                "containers": [{ "name": "a", "image": "there:1", "command": command }]
            }),
        )
    }

    /// Waits until the pod is as wanted; returns it.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(
            what,
            || self.api.get("pods", "ns", name).filter(|pod| wanted(pod)),
            || format!("{:#}", self.api.get("pods", "ns", name).unwrap_or_default()),
        )
        .await
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn gone(&self, name: &str) {
        eventually(
            "the object is gone",
            || self.api.get("pods", "ns", name).is_none().then_some(()),
            String::new,
        )
        .await;
    }

    /// Waits until the first container waits for this reason; returns the message.
    pub async fn waiting(&self, name: &str, reason: &str) -> String {
        let pod = self.until(name, reason, |pod| waiting(pod)["reason"] == reason).await;
        waiting(&pod)["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits for an event of a pod; returns its message.
    pub async fn event(&self, name: &str, reason: &str) -> String {
        let find = || {
            self.api
                .list("events")
                .into_iter()
                .find(|event| event["involvedObject"]["name"] == name && event["reason"] == reason)
                .map(|event| event["message"].as_str().unwrap().to_owned())
        };
        eventually(reason, find, || format!("{:#?}", self.api.list("events"))).await
    }

    /// Asks the agent's server.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = self.kubelet.server().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

pub fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

/// Waits for something to be there.
pub async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>, otherwise: impl Fn() -> String) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}: {}", otherwise());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
