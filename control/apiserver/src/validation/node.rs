//! Nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::checks::{Errors, cidr, is_dual_stack, parse_cidr, qualified_name};
use super::pod::scheduling::taint_effect;
use super::resources::quantity_value;
use super::view::{list, map, member, part, text, texts, walk};

const CIDR_IS_SET: &str = "node updates may not change podCIDR except from \"\" to valid";
const TAINTS_ANNOTATION: &str = "scheduler.alpha.kubernetes.io/taints";

/// A check of a name.
type Check = fn(&str) -> Vec<String>;

/// What is wrong with a new node.
pub fn validate(node: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    taints_and_resources(node, &mut out);
    pod_ranges(member(node, "spec"), &FieldPath::new("spec").child("podCIDRs"), &mut out);
    out
}

/// What is wrong with a changed node, be it its spec or its status that changed.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    taints_and_resources(new, &mut out);
    addresses(member(new, "status"), &FieldPath::new("status").child("addresses"), &mut out);
    let (spec, before) = (member(new, "spec"), member(old, "spec"));
    let path = FieldPath::new("spec");
    assigned_once(spec, before, &path, &mut out);
    if let Some(source) = part(spec, "configSource") {
        config_source(source, &path.child("configSource"), &mut out);
    }
    if text(spec, "externalID") != text(before, "externalID") {
        out.push(FieldError::forbidden(&path.child("externalID"), "may not be updated"));
    }
    out
}

fn taints_and_resources(node: &Value, out: &mut Errors) {
    // The path is not where taints are, but it is Kubernetes' path.
    let path = FieldPath::new("metadata");
    let annotation = text(walk(node, &["metadata", "annotations"]), TAINTS_ANNOTATION);
    if !annotation.is_empty() {
        let path = path.child("annotations");
        match serde_json::from_str::<Vec<Value>>(annotation) {
            Ok(found) => taints(&found, &path.child(TAINTS_ANNOTATION), out),
            Err(error) => out.push(FieldError::invalid(&path, TAINTS_ANNOTATION, error.to_string())),
        }
    }
    taints(list(member(node, "spec"), "taints"), &path.child("taints"), out);
    let status = member(node, "status");
    for field in ["capacity", "allocatable"] {
        let path = FieldPath::new("status").child(field);
        for (name, value) in map(status, field) {
            quantity_value(name, value, &path.child(name), out);
        }
    }
}

fn taints(taints: &[Value], path: &FieldPath, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        qualified_name(key, &path.child("key"), out);
        let complaints = names::is_label_value(value);
        if !complaints.is_empty() {
            out.push(FieldError::invalid(&path.child("value"), value, complaints.join(";")));
        }
        taint_effect(effect, &path.child("effect"), out);
        if !seen.insert((key, effect)) {
            let mut error = FieldError::duplicate(&path, taint.clone());
            "taints must be unique by key and effect pair".clone_into(&mut error.detail);
            out.push(error);
        }
    }
}

fn pod_ranges(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let ranges: Vec<&str> = texts(spec, "podCIDRs").collect();
    for (i, range) in ranges.iter().enumerate() {
        cidr(range, &path.index(i), out);
    }
    if ranges.len() < 2 {
        return;
    }
    let parsed: Vec<IpAddr> = ranges.iter().filter_map(|range| parse_cidr(range)).collect();
    if !is_dual_stack(&parsed) || ranges.len() > 2 {
        let text = "may specify no more than one CIDR for each IP family";
        out.push(FieldError::invalid(path, member(spec, "podCIDRs").clone(), text));
    }
    let mut seen = BTreeSet::new();
    for (i, range) in ranges.iter().enumerate() {
        if !seen.insert(range) {
            out.push(FieldError::duplicate(&path.index(i), *range));
        }
    }
}

fn addresses(status: &Value, path: &FieldPath, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, address) in list(status, "addresses").iter().enumerate() {
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            out.push(FieldError::duplicate(&path.index(i), address.clone()));
        }
    }
}

/// What somebody assigned to the node is assigned for good.
fn assigned_once(spec: &Value, before: &Value, path: &FieldPath, out: &mut Errors) {
    let (new, old) = (list(spec, "podCIDRs"), list(before, "podCIDRs"));
    let changed =
        if new.len() == old.len() { new.iter().zip(old).filter(|(new, old)| new != old).count() } else { 1 };
    if !old.is_empty() {
        let path = path.child("podCIDRs");
        out.extend((0..changed).map(|_| FieldError::forbidden(&path, CIDR_IS_SET)));
    }
    let provider = text(before, "providerID");
    if !provider.is_empty() && provider != text(spec, "providerID") {
        let text = "node updates may not change providerID except from \"\" to valid";
        out.push(FieldError::forbidden(&path.child("providerID"), text));
    }
}

/// A field of old, which nothing reads and everything checks.
fn config_source(source: &Value, path: &FieldPath, out: &mut Errors) {
    let Some(reference) = part(source, "configMap") else {
        let text = "exactly one reference subfield must be non-nil";
        out.push(FieldError::invalid(path, source.clone(), text));
        return;
    };
    let path = path.child("configMap");
    for name in ["uid", "resourceVersion"] {
        if !text(reference, name).is_empty() {
            out.push(FieldError::forbidden(&path.child(name), format!("{name} must not be set in spec")));
        }
    }
    let checks: [(&str, Check); 3] = [
        ("namespace", names::is_dns1123_label),
        ("name", names::is_dns1123_subdomain),
        ("kubeletConfigKey", names::is_config_map_key),
    ];
    for (name, check) in checks {
        let value = text(reference, name);
        if value.is_empty() {
            out.push(FieldError::required(&path.child(name), format!("{name} must be set")));
        } else {
            out.extend(FieldError::each_invalid(&path.child(name), value, check(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts as shown;

    #[test]
    fn new_nodes() {
        for (node, expected) in [
            (
                json!({"spec": {"podCIDRs": ["10.42.0.0/24"], "taints": [{"key": "a", "effect": "NoSchedule"}]},
                    "status": {"capacity": {"cpu": "2", "pods": "110"}}}),
                vec![],
            ),
            (
                json!({"spec": {"taints": [{"key": "a"}, {"key": "a", "effect": "x"}]}}),
                vec![
                    "metadata.taints[0].effect: Required value",
                    r#"metadata.taints[1].effect: Unsupported value: "x": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
                ],
            ),
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule", "value": "b"}]}}),
                vec![
                    r#"metadata.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"a","value":"b"}: taints must be unique by key and effect pair"#,
                ],
            ),
            (
                json!({"status": {"allocatable": {"pods": "1500m", "cpu": "-1"}}}),
                vec![
                    r#"status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0"#,
                    r#"status.allocatable.pods: Invalid value: "1500m": must be an integer"#,
                ],
            ),
            (
                json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.0.0/24", "x"]}}),
                vec![
                    r#"spec.podCIDRs[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
                    r#"spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.0.0/24","x"]: may specify no more than one CIDR for each IP family"#,
                    r#"spec.podCIDRs[1]: Duplicate value: "10.0.0.0/24""#,
                ],
            ),
        ] {
            assert_eq!(shown(&validate(&node)), expected, "{node}");
        }
    }

    #[test]
    fn changes_of_nodes() {
        let old = json!({"spec": {"podCIDRs": ["10.42.0.0/24"], "providerID": "p"}});
        for (new, expected) in [
            (
                json!({"spec": {"podCIDRs": ["10.42.0.0/24"], "providerID": "p", "unschedulable": true}}),
                vec![],
            ),
            (
                json!({"spec": {"podCIDRs": ["10.42.1.0/24"], "providerID": "q", "externalID": "e"}}),
                vec![
                    "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                    "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
                    "spec.externalID: Forbidden: may not be updated",
                ],
            ),
            (
                json!({"spec": {"podCIDRs": ["10.42.0.0/24"], "providerID": "p", "configSource": {}},
                    "status": {"addresses": [{"type": "InternalIP", "address": "1.1.1.1"}, {"type": "InternalIP", "address": "1.1.1.1"}]}}),
                vec![
                    r#"status.addresses[1]: Duplicate value: {"address":"1.1.1.1","type":"InternalIP"}"#,
                    "spec.configSource: Invalid value: {}: exactly one reference subfield must be non-nil",
                ],
            ),
        ] {
            assert_eq!(shown(&validate_update(&new, &old)), expected, "{new}");
        }
        assert!(validate_update(&old, &json!({})).is_empty());
    }
}
