//! What may change in a pod: little, for its containers run as they were started.

use std::collections::BTreeMap;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::{annotations, diff, metadata_and_spec, scheduling};
use crate::validation::checks::Errors;
use crate::validation::view::{int, list, map, member, part, restore, same, set, text, walk};

const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What is wrong with a changed pod.
pub(crate) fn update(new: &Value, old: &Value) -> Errors {
    let mut out = Errors::new();
    metadata_and_spec(new, &mut out);
    let path = FieldPath::new("metadata").child("annotations");
    annotations::changes(member(new, "metadata"), member(old, "metadata"), &path, &mut out);
    spec_update(member(new, "spec"), member(old, "spec"), &FieldPath::new("spec"), &mut out);
    out
}

fn spec_update(new: &Value, old: &Value, path: &FieldPath, out: &mut Errors) {
    for name in ["containers", "initContainers"] {
        if !container_images(list(new, name), list(old, name), &path.child(name), out) {
            return;
        }
    }
    if !active_deadline(new, old, &path.child("activeDeadlineSeconds"), out) {
        return;
    }
    let (tolerations, before) = (list(new, "tolerations"), list(old, "tolerations"));
    added_tolerations(tolerations, before, &path.child("tolerations"), out);
    let (gates, before) = (list(new, "schedulingGates"), list(old, "schedulingGates"));
    deleted_gates(gates, before, &path.child("schedulingGates"), out);
    everything_else(new, old, path, out);
}

/// Whether the containers are the same ones; their images may differ.
fn container_images(new: &[Value], old: &[Value], path: &FieldPath, out: &mut Errors) -> bool {
    if new.len() != old.len() {
        out.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
        return false;
    }
    for (i, container) in new.iter().enumerate() {
        let path = path.index(i).child("image");
        let image = text(container, "image");
        if image.is_empty() {
            out.push(FieldError::required(&path, ""));
        }
        if image.trim().len() != image.len() {
            let text = "must not have leading or trailing whitespace";
            out.push(FieldError::invalid(&path, image, text));
        }
    }
    true
}

/// A deadline may be set, and moved nearer. Whether to look further.
fn active_deadline(new: &Value, old: &Value, path: &FieldPath, out: &mut Errors) -> bool {
    let before = int(old, "activeDeadlineSeconds");
    let Some(seconds) = int(new, "activeDeadlineSeconds") else {
        if before.is_some() {
            let text = "must not update from a positive integer to nil value";
            out.push(FieldError::invalid(path, "null", text));
        }
        return true;
    };
    let greatest = i64::from(i32::MAX);
    if !(0..=greatest).contains(&seconds) {
        out.push(FieldError::invalid(path, seconds, names::inclusive_range_error(0, greatest)));
        return false;
    }
    if before.is_some_and(|before| before < seconds) {
        out.push(FieldError::invalid(path, seconds, "must be less than or equal to previous value"));
        return false;
    }
    true
}

fn added_tolerations(new: &[Value], old: &[Value], path: &FieldPath, out: &mut Errors) {
    let kept = |before: &Value| {
        new.iter().any(|after| {
            let mut before = before.clone();
            restore(&mut before, after, "tolerationSeconds");
            same(&before, after)
        })
    };
    if !old.iter().all(kept) {
        let text = "existing toleration can not be modified except its tolerationSeconds";
        out.push(FieldError::forbidden(path, text));
        return;
    }
    scheduling::tolerations(new, path, out);
}

fn deleted_gates(new: &[Value], old: &[Value], path: &FieldPath, out: &mut Errors) {
    let mut added: BTreeMap<&str, usize> =
        new.iter().enumerate().map(|(i, g)| (text(g, "name"), i)).collect();
    for gate in old {
        added.remove(text(gate, "name"));
    }
    for (gate, i) in added {
        let text = format!("only deletion is allowed, but found new scheduling gate '{gate}'");
        out.push(FieldError::forbidden(&path.index(i).child("name"), text));
    }
}

/// Puts back what may change, and refuses what differs then.
fn everything_else(new: &Value, old: &Value, path: &FieldPath, out: &mut Errors) {
    let mut munged = new.clone();
    for name in ["containers", "initContainers"] {
        let images: Vec<Value> = list(old, name).iter().map(|c| member(c, "image").clone()).collect();
        let containers = munged.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, image) in containers.zip(images) {
            set(container, &["image"], image);
        }
    }
    for name in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        restore(&mut munged, old, name);
    }
    let grace = "terminationGracePeriodSeconds";
    if int(old, grace).is_some_and(|before| before < 0) && int(new, grace) == Some(1) {
        restore(&mut munged, old, grace);
    }
    if !list(old, "schedulingGates").is_empty() {
        gated(&mut munged, old, path, out);
    }
    if !same(&munged, old) {
        let text = format!(
            "pod updates may not change fields other than {CHANGEABLE}\n{}",
            diff::diff(old, &munged)
        );
        out.push(FieldError::forbidden(path, text));
    }
}

/// A pod that waits at a gate may be bound closer to some nodes.
fn gated(munged: &mut Value, old: &Value, path: &FieldPath, out: &mut Errors) {
    let selector = map(munged, "nodeSelector");
    if map(old, "nodeSelector").iter().any(|(key, value)| selector.get(key) != Some(value)) {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let value = member(munged, "nodeSelector").clone();
        out.push(FieldError::invalid(&path.child("nodeSelector"), value, text));
    }
    restore(munged, old, "nodeSelector");
    let before = walk(old, &["affinity", "nodeAffinity"]);
    let after = walk(munged, &["affinity", "nodeAffinity"]);
    if same(before, after) {
        return;
    }
    node_affinity(after, before, &path.child("affinity").child("nodeAffinity"), out);
    if before.is_null() && part(old, "affinity").is_none() {
        let affinity = member(munged, "affinity");
        if ["podAffinity", "podAntiAffinity"].iter().all(|name| part(affinity, name).is_none()) {
            restore(munged, old, "affinity");
            return;
        }
    }
    set(munged, &["affinity", "nodeAffinity"], before.clone());
}

fn node_affinity(new: &Value, old: &Value, path: &FieldPath, out: &mut Errors) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let (Some(before), after) = (part(old, REQUIRED), member(new, REQUIRED)) else { return };
    let (before, after) = (list(before, "nodeSelectorTerms"), list(after, "nodeSelectorTerms"));
    let path = path.child(REQUIRED).child("nodeSelectorTerms");
    if !before.is_empty() && before.len() != after.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        out.push(FieldError::invalid(&path, after.to_vec(), text));
        return;
    }
    for (i, (before, after)) in before.iter().zip(after).enumerate() {
        if !only_additions(after, before) {
            let text = "only additions are allowed (no mutations or deletions)";
            out.push(FieldError::invalid(&path.index(i), after.clone(), text));
        }
    }
}

fn only_additions(new: &Value, old: &Value) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    // A term without any expression matches nothing; one expression more would widen it.
    if lists.iter().all(|name| list(old, name).is_empty()) {
        return lists.iter().all(|name| list(new, name).is_empty());
    }
    lists.iter().all(|name| {
        let (new, old) = (list(new, name), list(old, name));
        new.len() >= old.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::pod::tests::pod;
    use crate::validation::testing::texts;

    fn found(change: impl Fn(&mut Value), before: impl Fn(&mut Value)) -> Vec<String> {
        let mut old = pod();
        before(&mut old);
        let mut new = old.clone();
        change(&mut new);
        texts(&update(&new, &old))
    }

    fn nothing(_: &mut Value) {}

    #[test]
    fn what_may_change() {
        let changes: [fn(&mut Value); 6] = [
            nothing,
            |pod| pod["spec"]["containers"][0]["image"] = json!("other"),
            |pod| pod["spec"]["activeDeadlineSeconds"] = json!(5),
            |pod| pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]),
            |pod| pod["metadata"]["labels"] = json!({"a": "b"}),
            |pod| pod["spec"]["volumes"] = json!(null),
        ];
        for change in changes {
            assert_eq!(found(change, nothing), [""; 0]);
        }
        let grace = found(
            |pod| pod["spec"]["terminationGracePeriodSeconds"] = json!(1),
            |pod| pod["spec"]["terminationGracePeriodSeconds"] = json!(-5),
        );
        assert_eq!(grace, [""; 0]);
    }

    #[test]
    fn what_may_not_change_is_named_with_the_difference() {
        assert_eq!(
            found(|pod| pod["spec"]["hostNetwork"] = json!(true), nothing),
            [
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n+ hostNetwork: true"
            ]
        );
        let command = found(|pod| pod["spec"]["containers"][0]["command"] = json!(["b"]), nothing);
        assert!(command[0].ends_with("\n+ containers[0].command: [\"b\"]"), "{command:?}");
    }

    #[test]
    fn deadlines_come_nearer() {
        for (before, after, expected) in [
            (json!(null), json!(10), ""),
            (json!(10), json!(5), ""),
            (
                json!(5),
                json!(10),
                "spec.activeDeadlineSeconds: Invalid value: 10: must be less than or equal to previous value",
            ),
            (
                json!(5),
                json!(null),
                "spec.activeDeadlineSeconds: Invalid value: \"null\": must not update from a positive integer to nil value",
            ),
        ] {
            let texts = found(
                |pod| pod["spec"]["activeDeadlineSeconds"] = after.clone(),
                |pod| pod["spec"]["activeDeadlineSeconds"] = before.clone(),
            );
            assert_eq!(texts.join("\n"), expected, "{before} {after}");
        }
    }

    #[test]
    fn containers_stay_and_tolerations_are_only_added() {
        assert_eq!(
            found(|pod| pod["spec"]["initContainers"] = pod["spec"]["containers"].clone(), nothing)
                .last()
                .unwrap(),
            "spec.initContainers: Forbidden: pod updates may not add or remove containers"
        );
        let tolerated = |pod: &mut Value| {
            pod["spec"]["tolerations"] =
                json!([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]);
        };
        assert_eq!(
            found(|pod| pod["spec"]["tolerations"] = json!([]), tolerated),
            [
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
            ]
        );
        assert_eq!(
            found(|pod| pod["spec"]["tolerations"][0]["tolerationSeconds"] = json!(9), tolerated),
            [""; 0]
        );
    }

    #[test]
    fn gates_are_only_taken_away_and_gated_pods_may_narrow_their_nodes() {
        let is_gated = |pod: &mut Value| {
            pod["spec"]["schedulingGates"] = json!([{"name": "a"}]);
            pod["spec"]["nodeSelector"] = json!({"k": "v"});
        };
        assert_eq!(
            found(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "a"}, {"name": "b"}]), is_gated),
            [
                "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'b'"
            ]
        );
        assert_eq!(found(|pod| pod["spec"]["schedulingGates"] = json!([]), is_gated), [""; 0]);
        assert_eq!(found(|pod| pod["spec"]["nodeSelector"]["l"] = json!("w"), is_gated), [""; 0]);
        assert_eq!(
            found(|pod| pod["spec"]["nodeSelector"] = json!({"k": "w"}), is_gated),
            [
                "spec.nodeSelector: Invalid value: {\"k\":\"w\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"
            ]
        );
        let terms = |keys: &[&str]| {
            let expressions: Vec<Value> =
                keys.iter().map(|k| json!({"key": k, "operator": "Exists"})).collect();
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}})
        };
        assert_eq!(found(|pod| pod["spec"]["affinity"] = terms(&["a"]), is_gated), [""; 0]);
        let with_affinity = |pod: &mut Value| {
            is_gated(pod);
            pod["spec"]["affinity"] = terms(&["a"]);
        };
        assert_eq!(found(|pod| pod["spec"]["affinity"] = terms(&["a", "b"]), with_affinity), [""; 0]);
        let replaced = found(|pod| pod["spec"]["affinity"] = terms(&["b"]), with_affinity);
        assert_eq!(replaced.len(), 1, "{replaced:?}");
        assert!(replaced[0].ends_with("only additions are allowed (no mutations or deletions)"));
    }
}
