//! NodeName: a pod that names its node goes there or nowhere.

use k8s_openapi::api::core::v1::Pod;

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, FilterPlugin};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct NodeName;

impl FilterPlugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Vec<String> {
        let wanted = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|name| !name.is_empty());
        match wanted {
            Some(name) if name != node.name() => {
                vec!["node(s) didn't match the requested node name".to_owned()]
            }
            _ => Vec::new(),
        }
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        event == ClusterEvent::NodeAdded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn only_the_named_node_takes_the_pod() {
        let node = node(json!({"metadata": {"name": "n"}}));
        for (spec, takes) in
            [(json!({}), true), (json!({"nodeName": "n"}), true), (json!({"nodeName": "other"}), false)]
        {
            assert_eq!(NodeName.filter(&pod(spec.clone()), &node).is_empty(), takes, "{spec}");
        }
    }
}
