//! Pods.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::{Value, json};

use super::{keep_all_but_status, qos};
use crate::registry::columns::pod;
use crate::registry::strategy::{Column, Context, Part, Strategy, value_at};
use crate::validation;
use crate::validation::view::{int, is_set, list, member, part, restore, set, text, texts, walk};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The strategy of pods.
pub(super) struct Pods(pub(super) &'static Resource);

impl Strategy for Pods {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn prepare_for_create(&self, _cx: &Context, object: &mut Value) {
        let class = qos::class(member(object, "spec"));
        set(object, &["status"], json!({"phase": "Pending", "qosClass": class}));
        if !list(member(object, "spec"), "schedulingGates").is_empty() {
            let condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": null,
                "lastProbeTime": null,
            });
            set(object, &["status", "conditions"], json!([condition]));
        }
        resolve_label_keys(object);
    }

    fn validate(&self, _cx: &Context, object: &Value) -> Vec<FieldError> {
        validation::pod::create(object)
    }

    fn warnings(&self, _cx: &Context, object: &Value) -> Vec<String> {
        let mut out = validation::pod::hints::of_pod(object);
        out.extend(validation::warnings::of_pod(object));
        out
    }

    fn prepare_for_update(&self, cx: &Context, object: &mut Value, old: &Value) {
        if cx.part != Part::Status {
            restore(object, old, "status");
            return;
        }
        keep_all_but_status(object, old);
        if let Some(metadata) = object.get_mut("metadata") {
            restore(metadata, member(old, "metadata"), "ownerReferences");
        }
        if text(member(object, "status"), "qosClass").is_empty() {
            set(object, &["status", "qosClass"], walk(old, &["status", "qosClass"]).clone());
        }
    }

    fn validate_update(&self, cx: &Context, object: &Value, old: &Value) -> Vec<FieldError> {
        if cx.part == Part::Status {
            validation::pod::status_update(object, old)
        } else {
            validation::pod::update(object, old)
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        Some(grace_period(object, requested))
    }

    fn field_labels(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn field_value(&self, object: &Value, label: &str) -> String {
        match label {
            "spec.hostNetwork" => is_set(member(object, "spec"), "hostNetwork").to_string(),
            // The primary address, by either name.
            "status.podIP" | "status.podIPs" => {
                let first = list(member(object, "status"), "podIPs").first();
                let first = first.map(|address| text(address, "ip")).unwrap_or_default();
                if first.is_empty() { value_at(object, "status.podIP") } else { first.to_owned() }
            }
            _ => value_at(object, label),
        }
    }

    fn columns(&self) -> &'static [Column] {
        pod::POD
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        pod::cells(object, now)
    }
}

/// How long a pod may take to stop: as long as asked for, else as long as it says itself; no time
/// at all where nothing runs.
fn grace_period(pod: &Value, requested: Option<i64>) -> i64 {
    let spec = member(pod, "spec");
    let ended = matches!(text(member(pod, "status"), "phase"), "Failed" | "Succeeded");
    if text(spec, "nodeName").is_empty() || ended {
        return 0;
    }
    let seconds = requested.or_else(|| int(spec, "terminationGracePeriodSeconds")).unwrap_or_default();
    if seconds < 0 { 1 } else { seconds }
}

/// `matchLabelKeys` and `mismatchLabelKeys` stand for the pod's own labels: they become part of the
/// selectors when the pod is made.
fn resolve_label_keys(pod: &mut Value) {
    let labels = walk(pod, &["metadata", "labels"]).clone();
    let Some(spec) = pod.get_mut("spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.get_mut("affinity").and_then(|affinity| affinity.get_mut(kind)) else {
            continue;
        };
        for term in affinity.get_mut(REQUIRED).and_then(Value::as_array_mut).into_iter().flatten() {
            resolve_in(term, &labels);
        }
        for weighted in affinity.get_mut(PREFERRED).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                resolve_in(term, &labels);
            }
        }
    }
    for constraint in
        spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut).into_iter().flatten()
    {
        resolve_in(constraint, &labels);
    }
}

fn resolve_in(term: &mut Value, labels: &Value) {
    if part(term, "labelSelector").is_none() {
        return;
    }
    let own = |key: &str| labels.get(key).and_then(Value::as_str);
    let mut expressions = list(member(term, "labelSelector"), "matchExpressions").to_vec();
    let before = expressions.len();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in texts(term, field) {
            if let Some(value) = own(key) {
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if expressions.len() > before {
        set(term, &["labelSelector", "matchExpressions"], expressions.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::strategies::testing::{context, strategy};

    #[test]
    fn new_pods_are_pending_and_classed() {
        let mut pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "podIP": "1.1.1.1"}});
        strategy("pods").prepare_for_create(&context("pods", Part::Main), &mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Burstable"}));
        let mut gated = json!({"spec": {"schedulingGates": [{"name": "g"}]}});
        strategy("pods").prepare_for_create(&context("pods", Part::Main), &mut gated);
        assert_eq!(gated["status"]["conditions"][0]["reason"], "SchedulingGated");
    }

    #[test]
    fn label_keys_become_part_of_selectors() {
        let mut pod = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {
                "affinity": {"podAntiAffinity": {(REQUIRED): [
                    {"labelSelector": {}, "matchLabelKeys": ["a", "absent"], "mismatchLabelKeys": ["b"]}]}},
                "topologySpreadConstraints": [{"matchLabelKeys": ["a"]}, {"labelSelector": {}, "matchLabelKeys": ["a"]}],
            },
        });
        resolve_label_keys(&mut pod);
        assert_eq!(
            pod["spec"]["affinity"]["podAntiAffinity"][REQUIRED][0]["labelSelector"]["matchExpressions"],
            json!([{"key": "a", "operator": "In", "values": ["1"]}, {"key": "b", "operator": "NotIn", "values": ["2"]}])
        );
        let constraints = &pod["spec"]["topologySpreadConstraints"];
        assert!(constraints[0].get("labelSelector").is_none());
        assert_eq!(constraints[1]["labelSelector"]["matchExpressions"][0]["values"], json!(["1"]));
    }

    #[test]
    fn each_part_changes_only_itself() {
        let old = json!({"metadata": {"ownerReferences": [1]}, "spec": {"a": 1}, "status": {"phase": "Pending", "qosClass": "Burstable"}});
        let client = json!({"metadata": {"labels": {}}, "spec": {"a": 2}, "status": {"phase": "Running"}});
        let mut main = client.clone();
        strategy("pods").prepare_for_update(&context("pods", Part::Main), &mut main, &old);
        assert_eq!(main["status"], old["status"]);
        assert_eq!(main["spec"], client["spec"]);
        let mut status = client.clone();
        strategy("pods").prepare_for_update(&context("pods", Part::Status), &mut status, &old);
        assert_eq!(status["spec"], old["spec"]);
        assert_eq!(status["status"], json!({"phase": "Running", "qosClass": "Burstable"}));
        assert_eq!(status["metadata"]["ownerReferences"], json!([1]));
    }

    #[test]
    fn deletion_waits_only_for_what_runs() {
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        for (pod, requested, expected) in [
            (running.clone(), None, 30),
            (running.clone(), Some(5), 5),
            (running.clone(), Some(0), 0),
            (running.clone(), Some(-1), 1),
            (json!({"spec": {"terminationGracePeriodSeconds": 30}}), None, 0),
            (
                json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Succeeded"}}),
                Some(9),
                0,
            ),
            (json!({"spec": {"nodeName": "n"}}), None, 0),
        ] {
            assert_eq!(grace_period(&pod, requested), expected, "{pod} {requested:?}");
        }
    }

    #[test]
    fn pods_are_selected_by_node_phase_and_address() {
        let strategy = strategy("pods");
        let pod = json!({"spec": {"nodeName": "n", "hostNetwork": true}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        for (label, expected) in [
            ("spec.nodeName", "n"),
            ("spec.hostNetwork", "true"),
            ("status.phase", "Running"),
            ("status.podIP", "10.0.0.1"),
            ("status.podIPs", "10.0.0.1"),
            ("spec.schedulerName", ""),
        ] {
            assert_eq!(strategy.field_value(&pod, label), expected, "{label}");
        }
        assert_eq!(strategy.field_value(&json!({}), "spec.hostNetwork"), "false");
        assert_eq!(strategy.field_value(&json!({"status": {"podIP": "1.1.1.1"}}), "status.podIP"), "1.1.1.1");
    }
}
