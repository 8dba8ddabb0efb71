//! NodeAffinity: `nodeSelector` and required node affinity must match the node; preferred
//! affinity makes it more liked.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, FilterPlugin, ScorePlugin, scale_to_max};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct NodeAffinity;

/// Whether a node has what a pod requires of it.
fn required_matches(pod: &Pod, node: &NodeInfo) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    if spec.node_selector.iter().flatten().any(|(key, value)| label(key) != Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    match required {
        Some(selector) => selector.node_selector_terms.iter().any(|term| term_matches(term, node)),
        None => true,
    }
}

/// Terms are alternatives, requirements within one term all hold; an empty term matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let none = BTreeMap::new();
    let labels = node.node.metadata.labels.as_ref().unwrap_or(&none);
    expressions.iter().all(|r| requirement_matches(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, (r.key == "metadata.name").then(|| node.name())))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|v| v == value);
    let compare = |holds: fn(i64, i64) -> bool| {
        let limit = values.first().and_then(|v| v.parse::<i64>().ok());
        let actual = value.and_then(|v| v.parse::<i64>().ok());
        matches!((actual, limit), (Some(actual), Some(limit)) if holds(actual, limit))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|a, b| a > b),
        "Lt" => compare(|a, b| a < b),
        _ => false,
    }
}

impl FilterPlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Vec<String> {
        if required_matches(pod, node) {
            return Vec::new();
        }
        vec!["node(s) didn't match Pod's node affinity/selector".to_owned()]
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeLabelsChanged | ClusterEvent::PodUpdated)
    }
}

impl ScorePlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &Pod, node: &NodeInfo) -> i64 {
        let preferred = pod
            .spec
            .as_ref()
            .and_then(|s| s.affinity.as_ref())
            .and_then(|a| a.node_affinity.as_ref())
            .and_then(|n| n.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        preferred
            .iter()
            .filter(|term| term_matches(&term.preference, node))
            .map(|term| i64::from(term.weight))
            .sum()
    }

    fn normalise(&self, scores: &mut [i64]) {
        scale_to_max(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn selectors_and_required_affinity_pick_nodes() {
        let node = node(json!({"metadata": {"name": "n", "labels": {"zone": "a", "size": "5"}}}));
        let affinity = |terms| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": terms}}}})
        };
        let expression = |operator: &str, values: &[&str]| {
            affinity(json!([{"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}]))
        };
        let cases = [
            (json!({"nodeSelector": {"zone": "a"}}), true),
            (json!({"nodeSelector": {"zone": "b"}}), false),
            (json!({"nodeSelector": {"zone": "a", "missing": ""}}), false),
            (expression("In", &["5", "6"]), true),
            (expression("NotIn", &["5"]), false),
            (expression("Exists", &[]), true),
            (expression("DoesNotExist", &[]), false),
            (expression("Gt", &["4"]), true),
            (expression("Gt", &["5"]), false),
            (expression("Lt", &["6"]), true),
            (affinity(json!([{}])), false),
            (affinity(json!([{}, {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}])), true),
            (
                affinity(
                    json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]),
                ),
                true,
            ),
            (
                affinity(
                    json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}]),
                ),
                false,
            ),
        ];
        for (spec, takes) in cases {
            assert_eq!(NodeAffinity.filter(&pod(spec.clone()), &node).is_empty(), takes, "{spec}");
        }
    }

    #[test]
    fn preferred_terms_add_their_weights() {
        let near = node(json!({"metadata": {"name": "n", "labels": {"zone": "a"}}}));
        let far = node(json!({"metadata": {"name": "m"}}));
        let term = json!({"weight": 30, "preference":
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}});
        let pod = pod(json!({"affinity": {"nodeAffinity":
            {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}}));
        let mut scores = [NodeAffinity.score(&pod, &near), NodeAffinity.score(&pod, &far)];
        assert_eq!(scores, [30, 0]);
        NodeAffinity.normalise(&mut scores);
        assert_eq!(scores, [100, 0]);
    }
}
