//! One scheduling decision, pure: which node a pod goes to, or why none will do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use crate::cache::{Cache, NodeInfo};
use crate::framework::Framework;

/// Why no node takes a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// Each reason, and how many nodes gave it.
    pub reasons: BTreeMap<String, usize>,
    /// The plugins that refused.
    pub plugins: BTreeSet<&'static str>,
}

impl std::error::Error for FitError {}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// Picks the node for a pod: all filters pass, the best score wins, and `tie` (any number,
/// a random one in life) chooses among equals.
///
/// # Errors
///
/// [`FitError`] counts the reasons of the nodes that refuse.
pub fn schedule<'a>(
    pod: &Pod,
    cache: &'a Cache,
    framework: &Framework,
    tie: usize,
) -> Result<&'a NodeInfo, FitError> {
    let mut failure = FitError::default();
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    for node in cache.nodes() {
        failure.nodes += 1;
        let rejections = framework.rejections(pod, node);
        if rejections.is_empty() {
            feasible.push(node);
        }
        for rejection in rejections {
            *failure.reasons.entry(rejection.reason).or_default() += 1;
            failure.plugins.insert(rejection.plugin);
        }
    }
    let scores = framework.scores(pod, &feasible);
    let best = scores.iter().copied().max().unwrap_or(0);
    let winners: Vec<&NodeInfo> =
        feasible.iter().zip(&scores).filter(|(_, score)| **score == best).map(|(node, _)| *node).collect();
    winners.get(tie % winners.len().max(1)).copied().ok_or(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::default_framework;
    use crate::plugins::testing::pod;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn cache(nodes: &[Value]) -> Cache {
        let mut cache = Cache::default();
        for node in nodes {
            cache.set_node(Arc::new(serde_json::from_value(node.clone()).unwrap()));
        }
        cache
    }

    fn node(name: &str, cpu: &str) -> Value {
        json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}})
    }

    #[test]
    fn the_emptiest_node_wins_and_ties_are_broken_by_the_caller() {
        let framework = default_framework();
        let cache = cache(&[node("a", "2"), node("b", "8"), node("c", "8")]);
        let pod = pod(json!({}));
        assert_eq!(schedule(&pod, &cache, &framework, 0).unwrap().name(), "b");
        assert_eq!(schedule(&pod, &cache, &framework, 1).unwrap().name(), "c");
    }

    #[test]
    fn a_refusal_counts_the_reasons_as_kubectl_users_know_them() {
        let framework = default_framework();
        let mut cordoned = node("b", "8");
        cordoned["spec"] = json!({"unschedulable": true});
        let cache = cache(&[node("a", "1"), cordoned, node("c", "1")]);
        let pod = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]}));
        let error = schedule(&pod, &cache, &framework, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(error.plugins.into_iter().collect::<Vec<_>>(), ["NodeResourcesFit", "NodeUnschedulable"]);
    }

    #[test]
    fn no_nodes_is_said_plainly() {
        let error = schedule(&pod(json!({})), &Cache::default(), &default_framework(), 0).unwrap_err();
        assert_eq!(error.to_string(), "no nodes available to schedule pods");
    }
}
