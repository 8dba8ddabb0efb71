//! Whether the node takes a pod that was bound to it. The scheduler asked before, but it may
//! have been too slow, or somebody wrote `nodeName` by hand. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};
use sampan_api::quantity::Quantity;

use super::ledger::{Ledger, host_ports};
use super::memory::Verdict;
use super::resources::{self, Amounts};
use super::spec;

/// The node as admission sees it.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What it gives to pods; `pods` counts pods.
    pub allocatable: Amounts,
}

/// Takes the pod or says why not.
pub fn admit(pod: &Pod, node: &NodeView, ledger: &Ledger) -> Result<(), Verdict> {
    if let Some(os) = spec::spec(pod).and_then(|spec| spec.os.as_ref())
        && os.name != "linux"
    {
        return Err(reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"));
    }
    if !matches_node(pod, node) {
        return Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    if host_ports(pod).iter().any(|port| ledger.is_taken(port)) {
        return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    let blocking = node.taints.iter().filter(|taint| taint.effect == "NoExecute");
    for taint in blocking {
        if !tolerates(pod, taint) {
            return Err(predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
        }
    }
    fits(pod, node, ledger)
}

fn fits(pod: &Pod, node: &NodeView, ledger: &Ledger) -> Result<(), Verdict> {
    let capacity = |name: &str| node.allocatable.get(name).copied().unwrap_or_default();
    let pods = i64::try_from(ledger.pods()).unwrap_or(i64::MAX);
    if pods.saturating_add(1) > capacity("pods").value() {
        return Err(out_of("pods", 1, pods, capacity("pods").value()));
    }
    for (name, wanted) in resources::requests(pod) {
        let (used, capacity) = (ledger.used(&name), capacity(&name));
        if !wanted.is_zero() && used + wanted > capacity {
            let show = |amount: Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
            return Err(out_of(&name, show(wanted), show(used), show(capacity)));
        }
    }
    Ok(())
}

fn out_of(resource: &str, wanted: i64, used: i64, capacity: i64) -> Verdict {
    reject(
        &format!("OutOf{resource}"),
        &format!(
            "Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {capacity}"
        ),
    )
}

fn predicate(name: &str, why: &str) -> Verdict {
    reject(name, &format!("Predicate {name} failed: {why}"))
}

fn reject(reason: &str, why: &str) -> Verdict {
    Verdict { reason: reason.into(), message: format!("Pod was rejected: {why}"), rejected: true }
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    spec::spec(pod)
        .and_then(|spec| spec.tolerations.as_ref())
        .into_iter()
        .flatten()
        .any(|toleration| tolerated_by(toleration, taint))
}

fn tolerated_by(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || (key.is_empty() && exists))
        && (exists
            || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

fn matches_node(pod: &Pod, node: &NodeView) -> bool {
    let Some(spec) = spec::spec(pod) else { return true };
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| node.labels.get(key).is_some_and(|have| have == value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required
            .is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let empty = |list: &Option<Vec<NodeSelectorRequirement>>| list.as_ref().is_none_or(Vec::is_empty);
    // A term that says nothing matches nothing.
    if empty(&term.match_expressions) && empty(&term.match_fields) {
        return false;
    }
    let labels =
        term.match_expressions.iter().flatten().all(|r| requirement_holds(r, node.labels.get(&r.key)));
    let fields = term
        .match_fields
        .iter()
        .flatten()
        .all(|r| requirement_holds(r, (r.key == "metadata.name").then_some(&node.name)));
    labels && fields
}

fn requirement_holds(requirement: &NodeSelectorRequirement, have: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
    match requirement.operator.as_str() {
        "In" => have.is_some_and(|have| values.contains(have)),
        "NotIn" => have.is_none_or(|have| !values.contains(have)),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => number(have).zip(number(values.first())).is_some_and(|(have, bound)| have > bound),
        "Lt" => number(have).zip(number(values.first())).is_some_and(|(have, bound)| have < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(uid: &str, spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": uid, "uid": uid }, "spec": spec })).unwrap()
    }

    fn node() -> NodeView {
        NodeView {
            name: "n1".into(),
            labels: BTreeMap::from([("disk".into(), "ssd".into()), ("gen".into(), "4".into())]),
            taints: vec![Taint { key: "gone".into(), effect: "NoExecute".into(), ..Default::default() }],
            allocatable: Amounts::from([
                ("cpu".into(), Quantity::from_units(2)),
                ("memory".into(), Quantity::from_bytes(1 << 30)),
                ("pods".into(), Quantity::from_units(2)),
            ]),
        }
    }

    fn tolerant(mut spec: Value) -> Value {
        spec["tolerations"] = json!([{ "operator": "Exists" }]);
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{ "name": "a" }]);
        }
        spec
    }

    fn message(spec: Value, ledger: &Ledger) -> String {
        admit(&pod("p", tolerant(spec)), &node(), ledger)
            .map_or_else(|v| format!("{}: {}", v.reason, v.message), |()| "ok".into())
    }

    #[test]
    fn a_pod_that_does_not_fit_is_told_what_is_missing() {
        let mut ledger = Ledger::default();
        ledger.add(&pod(
            "x",
            json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": "500m" } } }] }),
        ));
        let wants = |cpu: &str| json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": cpu } } }] });
        assert_eq!(message(wants("1500m"), &ledger), "ok");
        assert_eq!(
            message(wants("1600m"), &ledger),
            "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 1600, used: 500, capacity: 2000"
        );
        ledger.add(&pod("y", json!({ "containers": [{ "name": "a" }] })));
        assert_eq!(
            message(json!({}), &ledger),
            "OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
        );
        ledger.remove("x");
        ledger.remove("x");
        assert_eq!(message(wants("2"), &ledger), "ok", "what a pod held comes back when it goes");
    }

    #[test]
    fn selectors_affinity_and_taints_are_checked_again() {
        let ledger = Ledger::default();
        let affinity = |operator: &str, values: Value| {
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "gen", "operator": operator, "values": values }] }]
            } } } })
        };
        let mismatch = "NodeAffinity: Pod was rejected: Predicate NodeAffinity failed: \
                        node(s) didn't match Pod's node affinity/selector";
        assert_eq!(message(json!({ "nodeSelector": { "disk": "ssd" } }), &ledger), "ok");
        assert_eq!(message(json!({ "nodeSelector": { "disk": "hdd" } }), &ledger), mismatch);
        assert_eq!(message(affinity("Gt", json!(["3"])), &ledger), "ok");
        assert_eq!(message(affinity("Gt", json!(["4"])), &ledger), mismatch);
        assert_eq!(message(affinity("NotIn", json!(["4"])), &ledger), mismatch);
        let intolerant = pod("p", json!({ "containers": [{ "name": "a" }] }));
        assert_eq!(admit(&intolerant, &node(), &ledger).unwrap_err().reason, "TaintToleration");
        assert_eq!(
            message(json!({ "os": { "name": "windows" } }), &ledger).split(':').next(),
            Some("PodOSNotSupported")
        );
    }

    #[test]
    fn one_host_port_is_given_once() {
        let mut ledger = Ledger::default();
        let with = |ip: &str, port: i32| json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "hostPort": port, "hostIP": ip }] }] });
        ledger.add(&pod("x", with("127.0.0.1", 8080)));
        assert_eq!(message(with("127.0.0.2", 8080), &ledger), "ok");
        assert_eq!(message(with("127.0.0.1", 8081), &ledger), "ok");
        for ip in ["127.0.0.1", ""] {
            assert!(message(with(ip, 8080), &ledger).starts_with("NodePorts: "), "{ip}");
        }
    }
}
