//! NodePorts: two pods cannot have the same port of a node.

use k8s_openapi::api::core::v1::Pod;

use crate::cache::{NodeInfo, host_ports};
use crate::framework::{ClusterEvent, FilterPlugin};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct NodePorts;

impl FilterPlugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Vec<String> {
        let taken = host_ports(pod).iter().any(|wanted| node.ports.iter().any(|held| held.conflicts(wanted)));
        if taken {
            return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
        }
        Vec::new()
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::PodRemoved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::HostPort;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn a_taken_port_keeps_a_pod_away() {
        let mut node = node(json!({"metadata": {"name": "n"}}));
        node.ports.push(HostPort { protocol: "TCP".into(), address: "0.0.0.0".into(), port: 8080 });
        for (port, takes) in [(8080, false), (8081, true)] {
            let spec =
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": port}]}]});
            assert_eq!(NodePorts.filter(&pod(spec), &node).is_empty(), takes, "{port}");
        }
    }
}
