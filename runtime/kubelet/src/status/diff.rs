//! What to send so that the API holds a wished status: a strategic merge patch. Pure.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// The fields of a status that the node owns. Others are left alone.
const OWNED: [&str; 13] = [
    "conditions",
    "containerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
];

/// A status as JSON.
pub fn to_json(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The patch that brings `held` to `wanted`; `None`: nothing differs.
pub fn patch(held: &Map<String, Value>, wanted: &Map<String, Value>, uid: &str) -> Option<Value> {
    let mut changes = Map::new();
    for field in OWNED {
        let (before, after) = (held.get(field), wanted.get(field));
        let change = match field {
            "conditions" => conditions(before, after),
            "podIPs" | "hostIPs" => addresses(before, after),
            _ if before == after => None,
            _ => Some(after.cloned().unwrap_or(Value::Null)),
        };
        if let Some(change) = change {
            changes.insert(field.to_owned(), change);
        }
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": changes }))
}

/// The conditions that differ: the server merges them by type, so that those of others stay.
fn conditions(before: Option<&Value>, after: Option<&Value>) -> Option<Value> {
    let known = before.and_then(Value::as_array);
    let find = |type_: &Value| known.into_iter().flatten().find(|known| known.get("type") == Some(type_));
    let changed: Vec<Value> = after
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|condition| condition.get("type").and_then(find) != Some(condition))
        .map(|condition| {
            let before = condition.get("type").and_then(find);
            without_leftovers(condition, before)
        })
        .collect();
    (!changed.is_empty()).then_some(Value::Array(changed))
}

/// A condition that also takes back fields that it no longer has.
fn without_leftovers(condition: &Value, before: Option<&Value>) -> Value {
    let mut condition = condition.clone();
    if let (Some(now), Some(before)) = (condition.as_object_mut(), before.and_then(Value::as_object)) {
        for field in before.keys() {
            if !now.contains_key(field) {
                now.insert(field.clone(), Value::Null);
            }
        }
    }
    condition
}

/// Lists of addresses are merged by address: one that is not ours any more must be replaced.
fn addresses(before: Option<&Value>, after: Option<&Value>) -> Option<Value> {
    if before == after {
        return None;
    }
    let Some(Value::Array(after)) = after else { return Some(Value::Null) };
    let mut list = after.clone();
    if before.and_then(Value::as_array).is_some_and(|before| !before.is_empty()) {
        list.insert(0, json!({ "$patch": "replace" }));
    }
    Some(Value::Array(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn changes(held: Value, wanted: Value) -> Option<Value> {
        patch(&object(held), &object(wanted), "u").map(|patch| patch["status"].clone())
    }

    #[test]
    fn nothing_is_sent_when_nothing_differs() {
        let status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        assert_eq!(changes(status.clone(), status), None);
        let theirs =
            json!({ "phase": "Running", "conditions": [{ "type": "x/y", "status": "True" }], "resize": "z" });
        assert_eq!(
            changes(theirs, json!({ "phase": "Running" })),
            None,
            "fields and conditions of others stay"
        );
    }

    #[test]
    fn only_what_differs_is_sent() {
        let held = json!({ "phase": "Pending", "qosClass": "BestEffort", "reason": "X", "conditions": [
            { "type": "Ready", "status": "False", "reason": "R" }, { "type": "PodScheduled", "status": "True" }
        ] });
        let wanted = json!({ "phase": "Running", "qosClass": "BestEffort", "conditions": [
            { "type": "Ready", "status": "True" }, { "type": "PodScheduled", "status": "True" }
        ] });
        assert_eq!(
            changes(held, wanted),
            Some(json!({
                "phase": "Running", "reason": null,
                "conditions": [{ "type": "Ready", "status": "True", "reason": null }]
            }))
        );
    }

    #[test]
    fn a_changed_address_replaces_the_old_one() {
        let ips = |ip: &str| json!({ "podIPs": [{ "ip": ip }] });
        assert_eq!(changes(json!({}), ips("a")), Some(json!({ "podIPs": [{ "ip": "a" }] })));
        assert_eq!(
            changes(ips("a"), ips("b")),
            Some(json!({ "podIPs": [{ "$patch": "replace" }, { "ip": "b" }] }))
        );
    }

    #[test]
    fn the_patch_names_the_pod_that_it_is_meant_for() {
        let patch = patch(&object(json!({})), &object(json!({ "phase": "Running" })), "u").unwrap();
        assert_eq!(patch["metadata"]["uid"], "u");
    }
}
