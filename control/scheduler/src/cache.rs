//! Nodes and what stands on them, pods included whose binding is still under way ("assumed").
//! Fed by informers' changes; read by the scheduling cycle. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::resources::{Amounts, pod_requests, pod_requests_for_scoring};

/// A port of a node that a pod takes: protocol, address, port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address bound; `0.0.0.0` is all.
    pub address: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether two pods cannot have both.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.is_any() || other.is_any())
    }

    fn is_any(&self) -> bool {
        self.address == "0.0.0.0" || self.address == "::"
    }
}

/// What one pod takes of its node.
#[derive(Clone, Debug)]
struct Share {
    requests: Amounts,
    scoring: Amounts,
    ports: Vec<HostPort>,
}

/// A node and what is taken of it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Node>,
    /// What it offers.
    pub allocatable: Amounts,
    /// The sum of its pods' requests.
    pub requested: Amounts,
    /// The same with defaults for containers without requests.
    pub requested_for_scoring: Amounts,
    /// Ports taken.
    pub ports: Vec<HostPort>,
    /// How many pods it has.
    pub pods: usize,
}

impl NodeInfo {
    /// A node with nothing on it.
    pub fn new(node: Arc<Node>) -> Self {
        let status = node.status.as_ref();
        let offered = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        Self {
            allocatable: Amounts::of(offered),
            node,
            requested: Amounts::default(),
            requested_for_scoring: Amounts::default(),
            ports: Vec::new(),
            pods: 0,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    fn take(&mut self, share: &Share) {
        self.requested.add(&share.requests);
        self.requested_for_scoring.add(&share.scoring);
        self.ports.extend(share.ports.iter().cloned());
        self.pods += 1;
    }

    fn give_back(&mut self, share: &Share) {
        self.requested.subtract(&share.requests);
        self.requested_for_scoring.subtract(&share.scoring);
        for port in &share.ports {
            if let Some(at) = self.ports.iter().position(|held| held == port) {
                self.ports.swap_remove(at);
            }
        }
        self.pods = self.pods.saturating_sub(1);
    }
}

/// Host ports that a pod asks for.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let host_port = port.host_port.filter(|p| *p > 0)?;
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                address: port
                    .host_ip
                    .clone()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".to_owned()),
                port: host_port,
            })
        })
        .collect()
}

/// The scheduler's view of the cluster.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    /// By pod UID: the node, and what it takes there.
    placed: HashMap<String, (String, Share)>,
    /// Pods placed here whose binding the API has not shown yet.
    assumed: BTreeSet<String>,
}

impl Cache {
    /// The nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// A node came or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let mut info = NodeInfo::new(node);
        let name = info.name().to_owned();
        match self.nodes.remove(&name) {
            Some(old) => {
                info.requested = old.requested;
                info.requested_for_scoring = old.requested_for_scoring;
                info.ports = old.ports;
                info.pods = old.pods;
            }
            None => {
                self.placed.values().filter(|(on, _)| *on == name).for_each(|(_, share)| info.take(share))
            }
        }
        self.nodes.insert(name, info);
    }

    /// A node went.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// A pod stands on a node, as the API shows it.
    pub fn set_pod(&mut self, pod: &Pod, node: &str) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.remove_pod(&uid);
        let share = Share {
            requests: pod_requests(pod),
            scoring: pod_requests_for_scoring(pod),
            ports: host_ports(pod),
        };
        if let Some(info) = self.nodes.get_mut(node) {
            info.take(&share);
        }
        self.placed.insert(uid, (node.to_owned(), share));
    }

    /// A pod is about to be bound to a node.
    pub fn assume(&mut self, pod: &Pod, node: &str) {
        self.set_pod(pod, node);
        self.assumed.insert(pod.metadata.uid.clone().unwrap_or_default());
    }

    /// A binding failed. Nothing happens if the API has shown the pod bound meanwhile.
    pub fn forget(&mut self, uid: &str) {
        if self.assumed.contains(uid) {
            self.remove_pod(uid);
        }
    }

    /// Whether a pod stands on a node or is about to.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// A pod is gone or has ended. Returns whether it stood on a node.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        self.assumed.remove(uid);
        let Some((node, share)) = self.placed.remove(uid) else { return false };
        if let Some(info) = self.nodes.get_mut(&node) {
            info.give_back(&share);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str) -> Arc<Node> {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "pods": "10"}}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"containers": [{
                "name": "c",
                "ports": [{"containerPort": 80, "hostPort": 8080}],
                "resources": {"requests": {"cpu": "500m"}},
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn what_a_pod_takes_comes_back_when_it_goes() {
        let mut cache = Cache::default();
        cache.set_node(node("n"));
        cache.set_pod(&pod("a"), "n");
        cache.set_pod(&pod("a"), "n");
        let info = cache.node("n").unwrap();
        assert_eq!((info.requested.get("cpu"), info.pods, info.ports.len()), (500, 1, 1));
        assert!(cache.remove_pod("a"));
        let info = cache.node("n").unwrap();
        assert_eq!((info.requested.get("cpu"), info.pods, info.ports.len()), (0, 0, 0));
    }

    #[test]
    fn pods_seen_before_their_node_count_once_it_comes() {
        let mut cache = Cache::default();
        cache.set_pod(&pod("a"), "n");
        cache.set_node(node("n"));
        assert_eq!(cache.node("n").unwrap().pods, 1);
        cache.set_node(node("n"));
        assert_eq!(cache.node("n").unwrap().pods, 1);
    }

    #[test]
    fn a_failed_binding_is_undone_unless_the_api_showed_it_bound() {
        let mut cache = Cache::default();
        cache.set_node(node("n"));
        cache.assume(&pod("a"), "n");
        cache.forget("a");
        assert!(!cache.is_placed("a"));
        cache.assume(&pod("a"), "n");
        cache.set_pod(&pod("a"), "n");
        cache.forget("a");
        assert!(cache.is_placed("a"));
    }

    #[test]
    fn host_ports_conflict_by_protocol_and_address() {
        let port = |protocol: &str, address: &str| HostPort {
            protocol: protocol.into(),
            address: address.into(),
            port: 80,
        };
        let cases = [
            (port("TCP", "0.0.0.0"), port("TCP", "127.0.0.1"), true),
            (port("TCP", "10.0.0.1"), port("TCP", "127.0.0.1"), false),
            (port("TCP", "0.0.0.0"), port("UDP", "0.0.0.0"), false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(a.conflicts(&b), expected, "{a:?} {b:?}");
        }
    }
}
