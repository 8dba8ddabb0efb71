//! This machine's node: network, images, WebAssembly runtime and kubelet, put together.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use sampan_kubelet::Kubelet;
use sampan_network::{PodNetwork, RangeConfig};
use sampan_wasm::artifact::Compiler;
use sampan_wasm::engine::Engines;
use sampan_wasm::images::ImageStore;
use sampan_wasm::{RuntimeConfig, WasmRuntime};

use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::local_node::LocalNode;
use crate::settings::Settings;

/// All pods together get so long to end when the node stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(60);
/// And the kubelet so long beyond that to tell what became of them.
const PATIENCE: Duration = Duration::from_secs(75);

/// The node's address.
pub(crate) fn address(settings: &Settings) -> IpAddr {
    settings.node_ip.unwrap_or_else(sampan_network::node_address::primary)
}

/// Starts the node. It is reached through `local_node` from now on.
pub(crate) async fn start(
    components: &mut Components,
    settings: &Settings,
    client: kube::Client,
    local_node: &LocalNode,
    api_port: u16,
) -> Result<(), CommandError> {
    let range = RangeConfig {
        cluster: settings.cluster_cidr,
        max_pods: settings.max_pods,
        node_address: settings.node_ip,
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
        &settings.node_name,
        settings.data_dir.join("kubelet"),
        client,
        Arc::new(runtime),
        images,
        network.clone(),
    );
    config.node_labels.clone_from(&settings.node_labels);
    config.node_taints.clone_from(&settings.node_taints);
    config.max_pods = max_pods;
    config.shutdown_grace = SHUTDOWN_GRACE;
    config.api_service = settings.service_cidr.hosts().next().map(|ip| (ip.to_string(), api_port));
    let kubelet = Kubelet::new(config).await.doing(|| "the node cannot start".to_owned())?;
    local_node.connect(&settings.node_name, kubelet.server());
    components.start("node", PATIENCE, |shutdown| async move {
        if let Err(error) = kubelet.run(shutdown).await {
            tracing::error!(error = %sampan_client::informer::chain(&error), "the node failed");
        }
        network.tear_down().await;
    });
    Ok(())
}

/// The runtime and the images, over the same engines.
fn containers(settings: &Settings) -> Result<(WasmRuntime, Arc<ImageStore>), CommandError> {
    let engines =
        Engines::new().doing(|| "WebAssembly cannot run here; 'sampan check' tells more".to_owned())?;
    let images =
        ImageStore::open(&settings.data_dir.join("images"), engines.clone(), Compiler::this_program())
            .doing(|| "the images cannot be used".to_owned())?;
    let images = Arc::new(images);
    let mut config = RuntimeConfig::new(settings.data_dir.join("runtime"));
    config.host_addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), address(settings)];
    let runtime = WasmRuntime::new(config, engines, images.clone())
        .doing(|| "the WebAssembly runtime cannot start".to_owned())?;
    Ok((runtime, images))
}
