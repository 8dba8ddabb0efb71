//! This machine's node: network, images, WebAssembly runtime and kubelet, put together.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use jiff::SignedDuration;
use sampan_client::ApiLink;
use sampan_kubelet::Kubelet;
use sampan_network::{PodNetwork, RangeConfig};
use sampan_wasm::artifact::Compiler;
use sampan_wasm::engine::Engines;
use sampan_wasm::images::ImageStore;
use sampan_wasm::{RuntimeConfig, WasmRuntime};
use tokio::sync::watch;

use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::settings::NodeSettings;

/// All pods together get so long to end when the node stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(60);
/// And the kubelet so long beyond that to tell what became of them.
const PATIENCE: Duration = Duration::from_secs(75);

/// Where in the cluster the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The range of pod addresses.
    pub(crate) cluster_cidr: Ipv4Net,
    /// The range of service addresses.
    pub(crate) service_cidr: Ipv4Net,
    /// The length of a node's part of the range; `None`: by the number of its pods.
    pub(crate) prefix: Option<u8>,
    /// Which part is this node's.
    pub(crate) index: u32,
    /// The port of the `kubernetes` service.
    pub(crate) api_port: u16,
}

/// How the node reaches the API.
pub(crate) struct Api {
    client: kube::Client,
    link: Option<watch::Receiver<ApiLink>>,
    clock_skew: Option<Arc<dyn Fn() -> SignedDuration + Send + Sync>>,
}

impl Api {
    /// In this process.
    pub(crate) fn local(client: kube::Client) -> Self {
        Self { client, link: None, clock_skew: None }
    }

    /// In this process, as far as it is there.
    pub(crate) fn own(node: &sampan_agent::OwnNode) -> Self {
        Self { client: node.client(), link: Some(node.api_link()), clock_skew: None }
    }

    /// Elsewhere.
    pub(crate) fn remote(agent: &sampan_agent::Agent) -> Self {
        Self { client: agent.client(), link: Some(agent.api_link()), clock_skew: Some(agent.clock_skew()) }
    }
}

/// Starts the node. Its kubelet's server is handed to `reached`, by which others get to it.
pub(crate) async fn start(
    components: &mut Components,
    settings: &NodeSettings,
    place: &Place,
    api: Api,
    reached: impl FnOnce(axum::Router),
) -> Result<(), CommandError> {
    check_room(settings, place)?;
    let range = RangeConfig {
        cluster: place.cluster_cidr,
        max_pods: settings.max_pods,
        node_address: settings.ip,
        node_index: place.index,
        node_prefix: place.prefix,
        ..RangeConfig::default()
    };
    let network = PodNetwork::set_up(&range).await.doing(|| "pod addresses cannot be had".to_owned())?;
    let network = Arc::new(network);
    let (runtime, images) = containers(settings)?;
    let facts = runtime.facts();
    let bearable = u32::try_from(facts.max_pods).unwrap_or(u32::MAX);
    if bearable < settings.max_pods {
        facts.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    let max_pods = settings.max_pods.min(bearable);
    let mut config = sampan_kubelet::Config::new(
        &settings.name,
        settings.data_dir.join("kubelet"),
        api.client,
        Arc::new(runtime),
        images,
        network.clone(),
    );
    config.node_labels.clone_from(&settings.labels);
    config.node_taints.clone_from(&settings.taints);
    config.max_pods = max_pods;
    config.shutdown_grace = SHUTDOWN_GRACE;
    config.api_service = place.service_cidr.hosts().next().map(|ip| (ip.to_string(), place.api_port));
    config.link = api.link;
    config.clock_skew = api.clock_skew;
    let kubelet = Kubelet::new(config).await.doing(|| "the node cannot start".to_owned())?;
    reached(kubelet.server());
    components.start("node", PATIENCE, |shutdown| async move {
        if let Err(error) = kubelet.run(shutdown).await {
            tracing::error!(error = %sampan_client::informer::chain(&error), "the node failed");
        }
        network.tear_down().await;
    });
    Ok(())
}

/// All nodes of a cluster have parts of the same length; this node's pods must fit into one.
fn check_room(settings: &NodeSettings, place: &Place) -> Result<(), CommandError> {
    let needed = sampan_network::plan::node_prefix(settings.max_pods);
    match place.prefix {
        Some(prefix) if prefix > needed => Err(CommandError::new(format!(
            "a node of this cluster has a /{prefix} of pod addresses, and --max-pods {} needs a /{needed}; \
             give less, or begin the cluster with --node-cidr-mask-size {needed}",
            settings.max_pods
        ))),
        _ => Ok(()),
    }
}

/// The runtime and the images, over the same engines.
fn containers(settings: &NodeSettings) -> Result<(WasmRuntime, Arc<ImageStore>), CommandError> {
    let engines =
        Engines::new().doing(|| "WebAssembly cannot run here; 'sampan check' tells more".to_owned())?;
    let images =
        ImageStore::open(&settings.data_dir.join("images"), engines.clone(), Compiler::this_program())
            .doing(|| "the images cannot be used".to_owned())?;
    let images = Arc::new(images);
    let mut config = RuntimeConfig::new(settings.data_dir.join("runtime"));
    config.host_addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), settings.address()];
    let runtime = WasmRuntime::new(config, engines, images.clone())
        .doing(|| "the WebAssembly runtime cannot start".to_owned())?;
    Ok((runtime, images))
}
