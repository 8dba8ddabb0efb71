//! NodeUnschedulable: a cordoned node takes only pods that tolerate it.

use k8s_openapi::api::core::v1::{Pod, Taint};

use super::taint_toleration::tolerates;
use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, FilterPlugin};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct NodeUnschedulable;

impl FilterPlugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Vec<String> {
        let cordoned = node.node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        };
        if cordoned && !tolerates(pod, &taint) {
            return vec!["node(s) were unschedulable".to_owned()];
        }
        Vec::new()
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeTaintsChanged | ClusterEvent::PodUpdated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn a_cordoned_node_takes_only_pods_that_tolerate_it() {
        let cordoned = node(json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}}));
        let open = node(json!({"metadata": {"name": "n"}}));
        let tolerant =
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]});
        assert!(NodeUnschedulable.filter(&pod(json!({})), &open).is_empty());
        assert_eq!(NodeUnschedulable.filter(&pod(json!({})), &cordoned), ["node(s) were unschedulable"]);
        assert!(NodeUnschedulable.filter(&pod(tolerant), &cordoned).is_empty());
    }
}
