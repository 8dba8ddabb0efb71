//! What a node agent is made from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Taint;
use sampan_client::ApiLink;
use sampan_cri::{ContainerRuntime, ImageService};
use sampan_network::PodNetwork;
use tokio::sync::watch;

/// What the node says of itself where the machine is not to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of disk.
    pub ephemeral_storage_bytes: Option<u64>,
}

/// When the node is under pressure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// Less available memory than this, in bytes.
    pub memory_available_bytes: u64,
    /// Less free room than this, as a part of the disk.
    pub disk_available: f64,
    /// Fewer free inodes than this, as a part of the disk's.
    pub inodes_free: f64,
    /// Fewer free process ids than this, as a part of the machine's.
    pub pids_available: f64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            memory_available_bytes: 100 << 20,
            disk_available: 0.10,
            inodes_free: 0.05,
            pids_available: 0.05,
        }
    }
}

/// How often things are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periods {
    /// The lease is renewed.
    pub lease: Duration,
    /// The node's conditions are checked.
    pub node_check: Duration,
    /// The node's status is written even if nothing changed.
    pub node_report: Duration,
    /// Objects that pods refer to and that are not watched are read again.
    pub objects: Duration,
    /// Volumes with a size limit are measured.
    pub volume_usage: Duration,
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            node_check: Duration::from_secs(10),
            node_report: Duration::from_secs(300),
            objects: Duration::from_secs(60),
            volume_usage: Duration::from_secs(10),
        }
    }
}

/// Tells how far this machine's clock is behind the servers' (negative: ahead); nothing where it
/// agrees, or no server has told its time yet.
pub type ClockSkew = Arc<dyn Fn() -> SignedDuration + Send + Sync>;

/// What a node agent is made from.
#[derive(Clone)]
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// Labels to give the node.
    pub node_labels: BTreeMap<String, String>,
    /// Taints to register the node with.
    pub node_taints: Vec<Taint>,
    /// Where the node keeps what belongs to pods.
    pub data_dir: PathBuf,
    /// The API.
    pub client: kube::Client,
    /// How things stand between `client` and the API's servers, where that can change: when they
    /// can be reached anew, what could not be written is written at once.
    pub link: Option<watch::Receiver<ApiLink>>,
    /// How far this machine's clock is off, where somebody measures it: the node then has the
    /// condition `ClockSkew`.
    pub clock_skew: Option<ClockSkew>,
    /// What runs containers.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// The node's images.
    pub images: Arc<dyn ImageService>,
    /// The node's pod network.
    pub network: Arc<PodNetwork>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// What the node says of itself.
    pub capacity: Capacity,
    /// When the node is under pressure.
    pub pressure: Pressure,
    /// How often things are looked at.
    pub periods: Periods,
    /// Host and port of the `kubernetes` service, for the environment of pods.
    pub api_service: Option<(String, u16)>,
    /// The port of this agent's own server, as the node's status tells it.
    pub server_port: Option<u16>,
    /// At most this long may all pods together take to end when the node stops.
    pub shutdown_grace: Duration,
    /// `gitVersion` of this program.
    pub version: String,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("node_name", &self.node_name)
            .field("data_dir", &self.data_dir)
            .field("max_pods", &self.max_pods)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// A configuration with defaults for all that may have one.
    pub fn new(
        node_name: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        client: kube::Client,
        runtime: Arc<dyn ContainerRuntime>,
        images: Arc<dyn ImageService>,
        network: Arc<PodNetwork>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            node_labels: BTreeMap::new(),
            node_taints: Vec::new(),
            data_dir: data_dir.into(),
            client,
            link: None,
            clock_skew: None,
            runtime,
            images,
            network,
            max_pods: 110,
            capacity: Capacity::default(),
            pressure: Pressure::default(),
            periods: Periods::default(),
            api_service: None,
            server_port: None,
            shutdown_grace: Duration::from_secs(30),
            version: format!("v1.35.0+sampan.{}", env!("CARGO_PKG_VERSION")),
        }
    }
}
