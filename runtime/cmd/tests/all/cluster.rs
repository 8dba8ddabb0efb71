//! A cluster for one test: its own process, directory, port and pod addresses.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

/// Long enough for a busy machine; nothing waits so long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn sampan() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_sampan")))
}

/// A binary, with nothing of the environment that would change what it does.
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_remove("RUST_LOG").env_remove("SAMPAN_DATA_DIR").env_remove("SAMPAN_CONFIG_FILE");
    command
}

/// A port that nobody listens on, for a moment at least.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A pod range that no other test of this machine uses now.
pub(crate) fn range() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    format!("10.{}.{}.0/20", 60 + number % 180, (number / 180 % 16) * 16)
}

/// A running `sampan dev`.
pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    range: String,
    extra: Vec<String>,
    process: Option<Child>,
}

impl Cluster {
    /// Starts a cluster in a fresh directory and waits until it is ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(extra: &[&str]) -> Self {
        let mut cluster = Self {
            directory: tempfile::tempdir().unwrap(),
            range: range(),
            extra: extra.iter().map(ToString::to_string).collect(),
            process: None,
        };
        cluster.resume().await;
        cluster
    }

    /// Starts the process on the cluster's directory and waits until the API is ready.
    pub(crate) async fn resume(&mut self) {
        // The kubeconfig of the last run names a port that nobody listens on any more.
        drop(std::fs::remove_file(self.kubeconfig()));
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let child = sampan()
            .arg("dev")
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--https-listen-port", "0", "--node-name", "test", "--cluster-cidr", &self.range])
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("the cluster ended with {status}: {}", self.errors());
            }
            if self.kubeconfig().exists() && self.is_ready().await {
                return;
            }
            assert!(Instant::now() < deadline, "not ready in time: {}", self.errors());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let Ok(client) = self.try_client().await else { return false };
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        client.request_text(request).await.is_ok_and(|text| text == "ok")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("stderr")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig.yaml")
    }

    /// What the process wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    async fn try_client(&self) -> Result<kube::Client, Box<dyn std::error::Error>> {
        client_of(&self.kubeconfig()).await
    }

    pub(crate) async fn client(&self) -> kube::Client {
        self.try_client().await.unwrap()
    }

    pub(crate) async fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client().await)
    }

    /// Creates a pod from its manifest, once the namespace's service account is there.
    pub(crate) async fn create_pod(&self, manifest: serde_json::Value) -> Pod {
        let pod: Pod = serde_json::from_value(manifest).unwrap();
        let pods = self.pods().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match pods.create(&PostParams::default(), &pod).await {
                Ok(made) => return made,
                // The controller that makes the default service account may still be at it.
                Err(kube::Error::Api(status))
                    if status.code == 403
                        && status.message.contains("serviceaccount")
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("creating the pod: {error}"),
            }
        }
    }

    /// Waits until a pod is as wanted; returns it.
    pub(crate) async fn wait_for(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let pods = self.pods().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pod = pods.get_opt(name).await.unwrap();
            if let Some(pod) = &pod
                && wanted(pod)
            {
                return pod.clone();
            }
            assert!(
                Instant::now() < deadline,
                "pod {name} is not as wanted: {}\n{}",
                serde_json::to_string_pretty(&pod.map(|p| (p.metadata, p.status))).unwrap(),
                self.errors()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn wait_for_phase(&self, name: &str, phase: &str) -> Pod {
        self.wait_for(name, |pod| phase_of(pod) == phase).await
    }

    /// Ends the process at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Asks the process to stop and waits; returns its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > deadline {
                process.kill().unwrap();
                panic!("did not stop in time: {}", self.errors());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    /// Stops it as a user would, so that its route goes as well; a test that failed does not wait.
    fn drop(&mut self) {
        if self.process.is_none() || std::thread::panicking() {
            return self.kill();
        }
        self.stop();
    }
}

pub(crate) async fn client_of(kubeconfig: &Path) -> Result<kube::Client, Box<dyn std::error::Error>> {
    // Whichever test comes first installs it for the process.
    drop(rustls::crypto::ring::default_provider().install_default());
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

pub(crate) fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

pub(crate) fn restarts_of(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    statuses.first().map_or(0, |status| status.restart_count)
}
