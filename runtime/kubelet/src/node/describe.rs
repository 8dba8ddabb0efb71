//! What a node says of itself: capacity, addresses, system facts, images, labels.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeDaemonEndpoints, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sampan_cri::ImageInfo;

use super::machine;
use crate::config::Config;
use crate::pod::resources::amount;

/// At most this many images are listed, the largest first.
const MAX_IMAGES: usize = 50;
/// At most this many names of an image are listed.
const MAX_NAMES: usize = 5;

/// What the node has, by resource.
pub fn capacity(config: &Config) -> BTreeMap<String, Quantity> {
    let own = &config.capacity;
    let millis = own.cpu_millis.unwrap_or_else(machine::cpu_millis);
    let cpu = if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") };
    let memory = own.memory_bytes.unwrap_or_else(|| machine::memory().total);
    let disk = own.ephemeral_storage_bytes.unwrap_or_else(|| machine::disk(&config.data_dir).capacity_bytes);
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpu)),
        ("ephemeral-storage".to_owned(), Quantity(kibibytes(disk))),
        ("memory".to_owned(), Quantity(kibibytes(memory))),
        ("pods".to_owned(), Quantity(config.max_pods.to_string())),
    ])
}

fn kibibytes(bytes: u64) -> String {
    format!("{}Ki", bytes / 1024)
}

/// Of that, what it gives to pods: memory and disk less what keeps the node out of pressure.
pub fn allocatable(config: &Config, capacity: &BTreeMap<String, Quantity>) -> BTreeMap<String, Quantity> {
    let mut given = capacity.clone();
    let bytes = |name: &str| capacity.get(name).map_or(0, |quantity| amount(quantity).value());
    let reserved = i64::try_from(config.pressure.memory_available_bytes).unwrap_or(0);
    let memory = u64::try_from(bytes("memory").saturating_sub(reserved)).unwrap_or(0);
    given.insert("memory".into(), Quantity(kibibytes(memory)));
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a share of bytes")]
    let disk = (bytes("ephemeral-storage") as f64 * (1.0 - config.pressure.disk_available)) as i64;
    given.insert("ephemeral-storage".into(), Quantity(disk.max(0).to_string()));
    given
}

/// The node's addresses.
pub fn addresses(config: &Config) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    vec![
        address("InternalIP", config.network.node_address().to_string()),
        address("Hostname", config.node_name.clone()),
    ]
}

/// Where the agent's own server listens, if it has a socket.
pub fn endpoints(config: &Config) -> Option<NodeDaemonEndpoints> {
    let port = i32::from(config.server_port?);
    Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) })
}

/// Go's name of this machine's architecture, which is what labels hold.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Labels that every node has, and those that were asked for.
pub fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/arch"), architecture().to_owned());
        labels.insert(format!("{prefix}/os"), "linux".to_owned());
    }
    labels.insert("kubernetes.io/hostname".into(), config.node_name.clone());
    labels.extend(config.node_labels.clone());
    labels
}

/// Facts of the system.
pub fn system_info(config: &Config) -> NodeSystemInfo {
    let line = |path: &str| machine::read(path).trim().to_owned();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let machine_id = [line("/etc/machine-id"), line("/var/lib/dbus/machine-id")]
        .into_iter()
        .find(|id| !id.is_empty())
        .unwrap_or_default();
    let uuid = line("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: config.runtime.version(),
        kernel_version: kernel,
        kube_proxy_version: String::new(),
        kubelet_version: config.version.clone(),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        operating_system: "linux".into(),
        os_image: os_name(&machine::read("/etc/os-release")),
        swap: None,
    }
}

/// The system's own name for itself.
fn os_name(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("Linux", |name| name.trim_matches('"'))
        .to_owned()
}

/// Images for the node's status: the largest, with a few names each.
pub fn images(mut images: Vec<ImageInfo>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    images
        .into_iter()
        .take(MAX_IMAGES)
        .map(|image| ContainerImage {
            names: Some(image.digests.into_iter().chain(image.names).take(MAX_NAMES).collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_name_is_read() {
        assert_eq!(
            os_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
            "Debian GNU/Linux 13 (trixie)"
        );
        assert_eq!(os_name(""), "Linux");
    }

    #[test]
    fn only_the_largest_images_are_listed() {
        let image = |n: u64| ImageInfo {
            id: n.to_string(),
            names: (0..9).map(|name| format!("i{n}:{name}")).collect(),
            digests: vec![format!("i{n}@sha256:0")],
            size_bytes: n,
            handler: "wasm".into(),
        };
        let listed = images((0..80).map(image).collect());
        assert_eq!(listed.len(), MAX_IMAGES);
        let first = listed.first().unwrap();
        assert_eq!(first.size_bytes, Some(79));
        assert_eq!(first.names.as_ref().unwrap().len(), MAX_NAMES);
        assert_eq!(first.names.as_ref().unwrap()[0], "i79@sha256:0");
    }
}
