//! Defaults of resource requests: from limits, and for the pod as a whole from its containers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fill::{Object, child, each, made};
use crate::quantity::Quantity;

type Amounts = BTreeMap<String, Quantity>;

/// What a container may use at most it also requests, unless it requests something else.
pub(super) fn requests_from_limits(spec: &mut Object) {
    for list in ["initContainers", "containers"] {
        for resources in each(spec, list).filter_map(|container| child(container, "resources")) {
            let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { continue };
            if let Some(requests) = made(resources, "requests") {
                for (name, amount) in limits {
                    requests.entry(name).or_insert(amount);
                }
            }
        }
    }
}

/// A pod that has resources of its own, but only some, gets the rest from its containers.
pub(super) fn pod_level(spec: &mut Object) {
    let limits = amounts(spec.get("resources"), "limits");
    let requests = amounts(spec.get("resources"), "requests");
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let huge: Amounts = aggregate(spec, "limits")
        .into_iter()
        .filter(|(name, _)| is_huge_page(name) && !requests.contains_key(name))
        .collect();
    let from_containers: Amounts = aggregate(spec, "requests")
        .into_iter()
        .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
        .collect();
    let Some(resources) = child(spec, "resources") else { return };
    if !huge.is_empty() {
        add_missing(resources, "limits", huge);
    }
    let limits = amounts(Some(&Value::Object(resources.clone())), "limits");
    if limits.is_empty() {
        return;
    }
    add_missing(resources, "requests", from_containers);
    let supported = limits
        .into_iter()
        .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory") || is_huge_page(name))
        .collect();
    add_missing(resources, "requests", supported);
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn add_missing(resources: &mut Object, list: &str, amounts: Amounts) {
    if amounts.is_empty() {
        return;
    }
    if let Some(list) = made(resources, list) {
        for (name, amount) in amounts {
            list.entry(name).or_insert_with(|| amount.to_string().into());
        }
    }
}

/// What the containers of a pod need together. Init containers run one after the other, beside the
/// restartable ones that were started before them; all others run at the same time.
fn aggregate(spec: &Object, list: &str) -> Amounts {
    let containers = |field: &str| spec.get(field).and_then(Value::as_array).into_iter().flatten();
    let mut running = Amounts::new();
    let mut starting = Amounts::new();
    for container in containers("initContainers") {
        let own = amounts(container.get("resources"), list);
        let restarts = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        if restarts {
            add(&mut running, own);
            most(&mut starting, running.clone());
        } else {
            let mut together = running.clone();
            add(&mut together, own);
            most(&mut starting, together);
        }
    }
    for container in containers("containers") {
        add(&mut running, amounts(container.get("resources"), list));
    }
    most(&mut running, starting);
    running
}

fn add(sum: &mut Amounts, more: Amounts) {
    for (name, amount) in more {
        *sum.entry(name).or_insert(Quantity::ZERO) += amount;
    }
}

fn most(greatest: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        greatest.entry(name).and_modify(|known| *known = (*known).max(amount)).or_insert(amount);
    }
}

fn amounts(resources: Option<&Value>, list: &str) -> Amounts {
    let list = resources.and_then(|r| r.get(list)).and_then(Value::as_object);
    list.into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::from_json(amount).ok()?)))
        .collect()
}
