//! Where a pod may run: affinities, tolerations, spreading, gates.

use std::collections::BTreeSet;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use crate::validation::checks::{Errors, each, one_of, qualified_name};
use crate::validation::selectors::{Values, label_selector, node_selector, node_selector_term};
use crate::validation::view::{int, list, map, member, opt_text, part, text, texts};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const POSITIVE: &str = "must be greater than zero";
const IN_SELECTOR: &str = "exists in both matchLabelKeys and labelSelector";
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";

/// `spec.affinity`.
pub(super) fn affinity(affinity: &Value, path: &FieldPath, out: &mut Errors) {
    if let Some(node) = part(affinity, "nodeAffinity") {
        node_affinity(node, &path.child("nodeAffinity"), out);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(pod) = part(affinity, name) else { continue };
        let path = path.child(name);
        for (i, term) in list(pod, REQUIRED).iter().enumerate() {
            pod_term(term, &path.child(REQUIRED).index(i), out);
        }
        for (i, weighted) in list(pod, PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(i);
            weight(weighted, &path, out);
            pod_term(member(weighted, "podAffinityTerm"), &path.child("podAffinityTerm"), out);
        }
    }
}

fn node_affinity(affinity: &Value, path: &FieldPath, out: &mut Errors) {
    if let Some(selector) = part(affinity, REQUIRED) {
        node_selector(selector, &path.child(REQUIRED), out);
    }
    for (i, term) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(term, &path, out);
        node_selector_term(member(term, "preference"), Values::Unchecked, &path.child("preference"), out);
    }
}

fn weight(term: &Value, path: &FieldPath, out: &mut Errors) {
    let weight = int(term, "weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        out.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn pod_term(term: &Value, path: &FieldPath, out: &mut Errors) {
    for name in ["labelSelector", "namespaceSelector"] {
        label_selector(member(term, name), &path.child(name), out);
    }
    for namespace in texts(term, "namespaces") {
        each(&path.child("namespace"), namespace, names::is_dns1123_label(namespace), out);
    }
    label_keys(term, path, out);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        out.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
    }
    qualified_name(key, &path.child("topologyKey"), out);
}

/// `matchLabelKeys` and `mismatchLabelKeys`: label names, apart from each other and from the
/// selector's own.
fn label_keys(term: &Value, path: &FieldPath, out: &mut Errors) {
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = path.child(name);
        if !list(term, name).is_empty() && part(term, "labelSelector").is_none() {
            out.push(FieldError::forbidden(&path, NO_SELECTOR));
            continue;
        }
        for (i, key) in texts(term, name).enumerate() {
            qualified_name(key, &path.index(i), out);
        }
    }
    // The server itself adds an expression for each key, so only a second mention is a mistake.
    let selector = member(term, "labelSelector");
    let mut mentioned: BTreeSet<&str> = map(selector, "matchLabels").keys().map(String::as_str).collect();
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        let index = texts(term, "matchLabelKeys").position(|other| other == key);
        if let Some(index) = index.filter(|_| mentioned.contains(key)) {
            out.push(FieldError::invalid(&path.index(index), key, IN_SELECTOR));
        }
        mentioned.insert(key);
    }
    let excluded: BTreeSet<&str> = texts(term, "mismatchLabelKeys").collect();
    for (i, key) in texts(term, "matchLabelKeys").enumerate().filter(|(_, key)| excluded.contains(key)) {
        let text = "exists in both matchLabelKeys and mismatchLabelKeys";
        out.push(FieldError::invalid(&path.child("matchLabelKeys").index(i), key, text));
    }
}

/// `spec.tolerations`.
pub(crate) fn tolerations(tolerations: &[Value], path: &FieldPath, out: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            qualified_name(key, &path.child("key"), out);
        } else if operator != "Exists" {
            let text =
                r#"operator must be Exists when `key` is empty, which means "match all values and all keys""#;
            out.push(FieldError::invalid(&path.child("operator"), operator, text));
        }
        if int(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.push(FieldError::invalid(&path.child("effect"), effect, text));
        }
        toleration_value(operator, value, &path.child("operator"), out);
        if !effect.is_empty() {
            one_of(effect, EFFECTS, &path.child("effect"), out);
        }
    }
}

fn toleration_value(operator: &str, value: &str, path: &FieldPath, out: &mut Errors) {
    match operator {
        "Equal" | "" => {
            let complaints = names::is_label_value(value);
            if !complaints.is_empty() {
                out.push(FieldError::invalid(path, value, complaints.join(";")));
            }
        }
        "Exists" if value.is_empty() => {}
        "Exists" => {
            let text = "value must be empty when `operator` is 'Exists'";
            out.push(FieldError::invalid(path, value, text));
        }
        other => out.push(FieldError::not_supported(path, other, &["Equal", "Exists"])),
    }
}

/// The effect of a taint, which must be there.
pub(crate) fn taint_effect(effect: &str, path: &FieldPath, out: &mut Errors) {
    crate::validation::checks::required_one_of(effect, EFFECTS, path, out);
}

/// `spec.topologySpreadConstraints`.
pub(super) fn spread(constraints: &[Value], path: &FieldPath, out: &mut Errors) {
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let skew = int(constraint, "maxSkew").unwrap_or_default();
        if skew <= 0 {
            out.push(FieldError::invalid(&path.child("maxSkew"), skew, POSITIVE));
        }
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            out.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
        }
        one_of(action, &["DoNotSchedule", "ScheduleAnyway"], &path.child("whenUnsatisfiable"), out);
        let same =
            |other: &&Value| text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == action;
        if constraints.iter().skip(i + 1).any(|other| same(&other)) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            out.push(FieldError::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        min_domains(constraint, action, &path.child("minDomains"), out);
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = opt_text(constraint, name) {
                one_of(policy, &["Honor", "Ignore"], &path.child(name), out);
            }
        }
        spread_label_keys(constraint, &path.child("matchLabelKeys"), out);
        label_selector(member(constraint, "labelSelector"), &path.child("labelSelector"), out);
    }
}

fn min_domains(constraint: &Value, action: &str, path: &FieldPath, out: &mut Errors) {
    let Some(domains) = int(constraint, "minDomains") else { return };
    if domains <= 0 {
        out.push(FieldError::invalid(path, domains, POSITIVE));
    }
    if action != "DoNotSchedule" {
        let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        out.push(FieldError::invalid(path, domains, text));
    }
}

fn spread_label_keys(constraint: &Value, path: &FieldPath, out: &mut Errors) {
    if list(constraint, "matchLabelKeys").is_empty() {
        return;
    }
    let selector = member(constraint, "labelSelector");
    if selector.is_null() {
        out.push(FieldError::forbidden(path, NO_SELECTOR));
    }
    let labels = map(selector, "matchLabels");
    let expressions = list(selector, "matchExpressions");
    for (i, key) in texts(constraint, "matchLabelKeys").enumerate() {
        qualified_name(key, &path.index(i), out);
        if labels.contains_key(key) || expressions.iter().any(|expression| text(expression, "key") == key) {
            out.push(FieldError::invalid(&path.index(i), key, IN_SELECTOR));
        }
    }
}

/// `spec.schedulingGates`.
pub(super) fn gates(gates: &[Value], path: &FieldPath, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let (name, path) = (text(gate, "name"), path.index(i));
        qualified_name(name, &path, out);
        if !seen.insert(name) {
            out.push(FieldError::duplicate(&path, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn affinities() {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}});
        for (value, expected) in [
            (json!({"podAffinity": {(REQUIRED): [term]}}), vec![]),
            (
                json!({"podAntiAffinity": {(PREFERRED): [{"weight": 0, "podAffinityTerm": term}]}}),
                vec![
                    "a.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
                ],
            ),
            (
                json!({"nodeAffinity": {(PREFERRED): [{"weight": 101, "preference": {}}]}}),
                vec![
                    "a.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                ],
            ),
            (
                json!({"nodeAffinity": {(REQUIRED): {}}}),
                vec![
                    "a.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                json!({"podAffinity": {(REQUIRED): [{"topologyKey": "zone", "matchLabelKeys": ["a"]}]}}),
                vec![
                    "a.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
                ],
            ),
            (
                json!({"podAffinity": {(REQUIRED): [{"topologyKey": "zone", "labelSelector": {},
                    "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"], "namespaces": ["A"]}]}}),
                vec![
                    r#"a.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespace: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name', or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#,
                    r#"a.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and mismatchLabelKeys"#,
                ],
            ),
        ] {
            let mut out = Errors::new();
            affinity(&value, &FieldPath::new("a"), &mut out);
            assert_eq!(texts(&out), expected, "{value}");
        }
        let mut out = Errors::new();
        affinity(&json!({"podAffinity": {(REQUIRED): [{}]}}), &FieldPath::new("a"), &mut out);
        assert!(texts(&out)[0].ends_with("[0].topologyKey: Required value: can not be empty"));
    }

    #[test]
    fn tolerations_say_which_taints() {
        for (toleration, expected) in [
            (json!({"operator": "Exists"}), vec![]),
            (json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}), vec![]),
            (
                json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}),
                vec![],
            ),
            (
                json!({"operator": "Equal"}),
                vec![
                    r#"t[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
                ],
            ),
            (
                json!({"key": "a", "operator": "Exists", "value": "b", "tolerationSeconds": 1}),
                vec![
                    r#"t[0].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set"#,
                    r#"t[0].operator: Invalid value: "b": value must be empty when `operator` is 'Exists'"#,
                ],
            ),
            (
                json!({"key": "a", "operator": "Gt", "effect": "Now"}),
                vec![
                    r#"t[0].operator: Unsupported value: "Gt": supported values: "Equal", "Exists""#,
                    r#"t[0].effect: Unsupported value: "Now": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute""#,
                ],
            ),
        ] {
            let mut out = Errors::new();
            tolerations(std::slice::from_ref(&toleration), &FieldPath::new("t"), &mut out);
            assert_eq!(texts(&out), expected, "{toleration}");
        }
    }

    #[test]
    fn spreading() {
        let good = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}});
        for (constraints, expected) in [
            (json!([good]), vec![]),
            (
                json!([good, good]),
                vec![r#"c[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, DoNotSchedule}""#],
            ),
            (
                json!([{"maxSkew": 0, "whenUnsatisfiable": "x", "minDomains": 0}]),
                vec![
                    "c[0].maxSkew: Invalid value: 0: must be greater than zero",
                    "c[0].topologyKey: Required value: can not be empty",
                    r#"c[0].whenUnsatisfiable: Unsupported value: "x": supported values: "DoNotSchedule", "ScheduleAnyway""#,
                    "c[0].minDomains: Invalid value: 0: must be greater than zero",
                    "c[0].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not x",
                ],
            ),
            (
                json!([{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway",
                    "matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"a": "b"}}, "nodeTaintsPolicy": "x"}]),
                vec![
                    r#"c[0].nodeTaintsPolicy: Unsupported value: "x": supported values: "Honor", "Ignore""#,
                    r#"c[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector"#,
                ],
            ),
        ] {
            let mut out = Errors::new();
            spread(constraints.as_array().unwrap(), &FieldPath::new("c"), &mut out);
            assert_eq!(texts(&out), expected, "{constraints}");
        }
    }

    #[test]
    fn gates_have_names_of_their_own() {
        let mut out = Errors::new();
        gates(&[json!({"name": "a/b"}), json!({"name": "a/b"})], &FieldPath::new("g"), &mut out);
        assert_eq!(texts(&out), [r#"g[1]: Duplicate value: "a/b""#]);
    }
}
