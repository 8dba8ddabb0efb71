//! NodeResourcesFit: a node must have left what a pod asks for. LeastAllocated: the emptier
//! node is the better one.

use k8s_openapi::api::core::v1::Pod;

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, FilterPlugin, MAX_SCORE, ScorePlugin};
use crate::resources::{pod_requests, pod_requests_for_scoring};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct NodeResourcesFit;

impl FilterPlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Vec<String> {
        let mut reasons = Vec::new();
        let pods = i64::try_from(node.pods).unwrap_or(i64::MAX);
        if pods >= node.allocatable.get("pods") {
            reasons.push("Too many pods".to_owned());
        }
        for (name, wanted) in pod_requests(pod).iter() {
            let left = node.allocatable.get(name).saturating_sub(node.requested.get(name));
            if wanted > 0 && wanted > left {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        reasons
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        matches!(
            event,
            ClusterEvent::NodeAdded
                | ClusterEvent::NodeAllocatableChanged
                | ClusterEvent::PodRemoved
                | ClusterEvent::PodUpdated
        )
    }
}

/// The mean share of CPU and memory that stays free with the pod on the node.
#[derive(Clone, Copy, Debug)]
pub struct LeastAllocated;

impl ScorePlugin for LeastAllocated {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &Pod, node: &NodeInfo) -> i64 {
        let wanted = pod_requests_for_scoring(pod);
        let free = |name: &str| {
            let capacity = node.allocatable.get(name);
            let used = node.requested_for_scoring.get(name).saturating_add(wanted.get(name));
            if capacity <= 0 || used > capacity {
                return 0;
            }
            i64::try_from(i128::from(capacity - used) * i128::from(MAX_SCORE) / i128::from(capacity))
                .unwrap_or(0)
        };
        i64::midpoint(free("cpu"), free("memory"))
    }

    fn normalise(&self, _scores: &mut [i64]) {
        // The score is a percentage already.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;
    use std::sync::Arc;

    fn asks(cpu: &str, memory: &str) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
    }

    #[test]
    fn every_resource_that_is_short_is_named() {
        let node = node(json!({
            "metadata": {"name": "n"},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "1"}},
        }));
        let cases: [(&str, &str, &[&str]); 4] = [
            ("1", "1Gi", &[]),
            ("1001m", "1Gi", &["Insufficient cpu"]),
            ("2", "2Gi", &["Insufficient cpu", "Insufficient memory"]),
            ("0", "0", &[]),
        ];
        for (cpu, memory, reasons) in cases {
            assert_eq!(NodeResourcesFit.filter(&asks(cpu, memory), &node), reasons, "{cpu} {memory}");
        }
    }

    #[test]
    fn a_full_node_takes_no_more_pods() {
        let mut cache = Cache::default();
        let node = node(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"pods": "1"}}}));
        cache.set_node(Arc::clone(&node.node));
        cache.set_pod(&pod(json!({})), "n");
        let reasons = NodeResourcesFit.filter(&pod(json!({})), cache.node("n").unwrap());
        assert_eq!(reasons, ["Too many pods"]);
    }

    #[test]
    fn the_emptier_node_scores_higher() {
        let node = |cpu: &str| {
            node(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": cpu, "memory": "4Gi"}}}))
        };
        let pod = asks("1", "1Gi");
        assert_eq!(LeastAllocated.score(&pod, &node("4")), 75);
        assert!(LeastAllocated.score(&pod, &node("2")) < LeastAllocated.score(&pod, &node("4")));
        assert_eq!(LeastAllocated.score(&asks("8", "8Gi"), &node("4")), 0);
    }
}
