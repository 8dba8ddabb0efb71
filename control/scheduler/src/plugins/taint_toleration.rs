//! TaintToleration: taints keep pods away unless they tolerate them; `PreferNoSchedule` only
//! makes a node less liked.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, FilterPlugin, ScorePlugin, scale_to_max};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct TaintToleration;

/// Whether a pod tolerates a taint.
pub(super) fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    tolerations(pod).iter().any(|toleration| matches(toleration, taint))
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

/// Whether a toleration is for a taint: an empty effect is every effect, an empty key with
/// `Exists` is every key.
fn matches(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key) = (set(&toleration.effect), set(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let operator = toleration.operator.as_deref().unwrap_or_default();
    let (ours, theirs) = (set(&toleration.value), set(&taint.value));
    match operator {
        "" | "Equal" => ours == theirs && !key.is_empty(),
        "Exists" => true,
        "Lt" => numbers(&theirs, &ours).is_some_and(|(taint, limit)| taint < limit),
        "Gt" => numbers(&theirs, &ours).is_some_and(|(taint, limit)| taint > limit),
        _ => false,
    }
}

fn numbers(taint: &str, toleration: &str) -> Option<(i64, i64)> {
    Some((taint.parse().ok()?, toleration.parse().ok()?))
}

impl FilterPlugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Vec<String> {
        let hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
        match taints(node).iter().filter(hard).find(|taint| !tolerates(pod, taint)) {
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)]
            }
            None => Vec::new(),
        }
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeTaintsChanged | ClusterEvent::PodUpdated)
    }
}

impl ScorePlugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &Pod, node: &NodeInfo) -> i64 {
        let soft: Vec<&Toleration> = tolerations(pod)
            .iter()
            .filter(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")))
            .collect();
        let disliked = taints(node)
            .iter()
            .filter(|taint| taint.effect == "PreferNoSchedule")
            .filter(|taint| !soft.iter().any(|toleration| matches(toleration, taint)))
            .count();
        i64::try_from(disliked).unwrap_or(i64::MAX)
    }

    fn normalise(&self, scores: &mut [i64]) {
        scale_to_max(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn tolerations_match_taints_as_kubernetes_says() {
        let tainted = node(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
        }));
        let cases = [
            (json!([]), false),
            (json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]), true),
            (json!([{"key": "k", "value": "v"}]), true),
            (json!([{"key": "k", "value": "other"}]), false),
            (json!([{"key": "k", "operator": "Exists"}]), true),
            (json!([{"operator": "Exists"}]), true),
            (json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}]), false),
            (json!([{"key": "x", "operator": "Exists"}]), false),
        ];
        for (tolerations, takes) in cases {
            let pod = pod(json!({"tolerations": tolerations}));
            let reasons = TaintToleration.filter(&pod, &tainted);
            let expected: &[&str] = if takes { &[] } else { &["node(s) had untolerated taint {k: v}"] };
            assert_eq!(reasons, expected, "{tolerations}");
        }
    }

    #[test]
    fn a_soft_taint_only_makes_a_node_less_liked() {
        let soft = node(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]},
        }));
        let pod = pod(json!({}));
        assert!(TaintToleration.filter(&pod, &soft).is_empty());
        let mut scores = [TaintToleration.score(&pod, &soft), 0];
        TaintToleration.normalise(&mut scores);
        assert_eq!(scores, [0, 100]);
    }
}
