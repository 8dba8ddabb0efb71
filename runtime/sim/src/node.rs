//! A `sampan` process to measure.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

/// Why a benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("input or output failed")]
    Io(#[from] std::io::Error),
    #[error("the API refused")]
    Api(#[from] kube::Error),
    #[error("the kubeconfig is not usable")]
    Config(#[from] kube::config::KubeconfigError),
    #[error("HTTP failed")]
    Http(#[from] hyper::Error),
    #[error("the store cannot be reached")]
    Unreachable(#[from] tonic::transport::Error),
    #[error("the store refused")]
    Refused(#[from] Box<tonic::Status>),
    #[error("{0}")]
    Failed(String),
}

const PATIENCE: Duration = Duration::from_secs(300);

/// A running process with its directory.
pub(crate) struct NodeProcess {
    child: Child,
    data: PathBuf,
}

impl NodeProcess {
    /// Starts `sampan dev` on `data`; returns at once.
    pub(crate) fn spawn(sampan: &Path, data: &Path, max_pods: usize) -> Result<Self, BenchError> {
        // A kubeconfig of an earlier run would name a port that nobody listens on.
        drop(std::fs::remove_file(data.join("kubeconfig.yaml")));
        let child = Command::new(sampan)
            .arg("dev")
            .arg("--data-dir")
            .arg(data)
            .args(["--https-listen-port", "0", "--node-name", "bench", "--cluster-cidr", "10.240.0.0/16"])
            .args(["--max-pods", &max_pods.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Self { child, data: data.to_owned() })
    }

    /// Starts and waits until the node is Ready and a pod's service account is there.
    pub(crate) async fn ready(sampan: &Path, data: &Path, max_pods: usize) -> Result<Self, BenchError> {
        let mut node = Self::spawn(sampan, data, max_pods)?;
        node.wait_ready().await?;
        let client = node.client().await?;
        let accounts = Api::<k8s_openapi::api::core::v1::ServiceAccount>::default_namespaced(client);
        let deadline = Instant::now() + PATIENCE;
        while accounts.get_opt("default").await?.is_none() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(node)
    }

    /// Waits until the node object is Ready.
    pub(crate) async fn wait_ready(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(BenchError::Failed(format!("sampan ended with {status}")));
            }
            if self.is_ready().await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err(BenchError::Failed("the node did not become ready".to_owned()))
    }

    async fn is_ready(&self) -> bool {
        if !self.data.join("kubeconfig.yaml").exists() {
            return false;
        }
        let Ok(client) = self.client().await else { return false };
        let Ok(nodes) = Api::<Node>::all(client).list(&ListParams::default()).await else { return false };
        nodes.items.iter().any(|node| {
            let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        })
    }

    pub(crate) async fn client(&self) -> Result<kube::Client, BenchError> {
        let config = Kubeconfig::read_from(self.data.join("kubeconfig.yaml"))?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64, BenchError> {
        crate::process::resident(self.child.id())
    }

    /// CPU time used so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64((ticks(11) + ticks(12)) as f64 / per_second as f64))
    }

    /// Asks the process to stop and waits.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(std::io::Error::from)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // A process that has ended already is as wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Creates an HTTP pod.
pub(crate) async fn create_http_pod(pods: &Api<Pod>, name: &str) -> Result<(), BenchError> {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "sampan/hello-http", "ports": [{"containerPort": 8080}]}],
        },
    });
    let pod: Pod = serde_json::from_value(pod).map_err(|error| BenchError::Failed(error.to_string()))?;
    pods.create(&PostParams::default(), &pod).await?;
    Ok(())
}
