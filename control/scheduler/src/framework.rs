//! The framework: what a plugin is, and what it sees. Plugins are pure: they look at a pod and
//! a node as of a snapshot, and neither read clocks nor make calls.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cache::NodeInfo;

/// Why a node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rejection {
    /// In the words that `FailedScheduling` counts: `Insufficient cpu`.
    pub reason: String,
    /// Which plugin refused.
    pub plugin: &'static str,
}

/// What happened in the cluster that may let a waiting pod through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterEvent {
    /// A node came.
    NodeAdded,
    /// A node's allocatable resources changed.
    NodeAllocatableChanged,
    /// A node's labels changed.
    NodeLabelsChanged,
    /// A node's taints, or whether it is cordoned, changed.
    NodeTaintsChanged,
    /// A pod left its node (deleted or ended): resources and ports are free again.
    PodRemoved,
    /// The waiting pod itself changed.
    PodUpdated,
}

/// Decides whether a node can take a pod.
pub trait FilterPlugin: Send + Sync {
    /// The plugin's name in Kubernetes.
    fn name(&self) -> &'static str;

    /// All reasons against the node; none: it will do.
    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Vec<String>;

    /// Whether what happened may have removed a reason that this plugin gives.
    fn may_help(&self, event: ClusterEvent) -> bool;
}

/// Compares the nodes that can take a pod.
pub trait ScorePlugin: Send + Sync {
    /// The plugin's name in Kubernetes.
    fn name(&self) -> &'static str;

    /// How much this plugin counts beside the others.
    fn weight(&self) -> i64;

    /// A raw score; larger is better.
    fn score(&self, pod: &Pod, node: &NodeInfo) -> i64;

    /// Brings the raw scores of all nodes to 0..=100.
    fn normalise(&self, scores: &mut [i64]);
}

/// The largest normalised score.
pub const MAX_SCORE: i64 = 100;

/// Scales scores so that the largest becomes [`MAX_SCORE`]; `reverse` makes the smallest best.
pub fn scale_to_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

/// The plugins in force, in the order in which they are asked.
#[derive(Clone)]
pub struct Framework {
    /// Asked in this order; the first that refuses a node has the word.
    pub filters: Vec<Arc<dyn FilterPlugin>>,
    /// All are asked.
    pub scores: Vec<Arc<dyn ScorePlugin>>,
}

impl std::fmt::Debug for Framework {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filters: Vec<_> = self.filters.iter().map(|p| p.name()).collect();
        let scores: Vec<_> = self.scores.iter().map(|p| p.name()).collect();
        f.debug_struct("Framework").field("filters", &filters).field("scores", &scores).finish()
    }
}

impl Framework {
    /// Why a node does not take a pod: what the first plugin that refuses says. Empty: it takes it.
    pub fn rejections(&self, pod: &Pod, node: &NodeInfo) -> Vec<Rejection> {
        for plugin in &self.filters {
            let reasons = plugin.filter(pod, node);
            if !reasons.is_empty() {
                let plugin = plugin.name();
                return reasons.into_iter().map(|reason| Rejection { reason, plugin }).collect();
            }
        }
        Vec::new()
    }

    /// The weighted sum of all scores for each node.
    pub fn scores(&self, pod: &Pod, nodes: &[&NodeInfo]) -> Vec<i64> {
        let mut totals = vec![0; nodes.len()];
        for plugin in &self.scores {
            let mut scores: Vec<i64> = nodes.iter().map(|node| plugin.score(pod, node)).collect();
            plugin.normalise(&mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight();
            }
        }
        totals
    }

    /// Whether an event may help a pod that these plugins refused.
    pub fn may_help(&self, refused_by: &[&'static str], event: ClusterEvent) -> bool {
        // Refused by nobody: there was no node at all.
        if refused_by.is_empty() {
            return event == ClusterEvent::NodeAdded || event == ClusterEvent::PodUpdated;
        }
        self.filters.iter().any(|plugin| refused_by.contains(&plugin.name()) && plugin.may_help(event))
    }
}
