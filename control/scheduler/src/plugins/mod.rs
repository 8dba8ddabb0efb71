//! The plugins, a file each, under their Kubernetes names.

mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod taint_toleration;

pub use node_affinity::NodeAffinity;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources_fit::{LeastAllocated, NodeResourcesFit};
pub use node_unschedulable::NodeUnschedulable;
pub use taint_toleration::TaintToleration;

use std::sync::Arc;

use crate::framework::Framework;

/// The plugins in force, in Kubernetes' default order.
pub fn default_framework() -> Framework {
    Framework {
        filters: vec![
            Arc::new(NodeUnschedulable),
            Arc::new(NodeName),
            Arc::new(TaintToleration),
            Arc::new(NodeAffinity),
            Arc::new(NodePorts),
            Arc::new(NodeResourcesFit),
        ],
        scores: vec![Arc::new(TaintToleration), Arc::new(NodeAffinity), Arc::new(LeastAllocated)],
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Pods and nodes for the plugins' tables.

    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use crate::cache::NodeInfo;

    pub(crate) fn pod(spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"containers": [{"name": "c"}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    pub(crate) fn node(node: Value) -> NodeInfo {
        NodeInfo::new(Arc::new(serde_json::from_value(node).unwrap()))
    }
}
