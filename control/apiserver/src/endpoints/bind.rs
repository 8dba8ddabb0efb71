//! `pods/binding`: a pod is given to a node. The only way in which a pod's node is ever set later
//! than at its creation.

use http::Response;
use sampan_api::field::go_quote;
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::status::{Status, StatusDetails};
use sampan_api::time;
use serde_json::{Value, json};

use super::options::WriteOptions;
use super::{Call, Target, decode, respond};
use crate::body::Body;
use crate::registry::strategy::Part;
use crate::validation;

const BINDING: (&str, &str, &str) = ("v1", "Binding", "io.k8s.api.core.v1.Binding");

/// Binds the pod that the path (or, for `bindings`, the body) names.
pub(super) async fn create(call: &Call, target: Target<'_>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let decoded = decode::body(call.content_type(), &call.body, ("Binding", "v1"))?;
    let mut binding = decode::plain(BINDING, decoded, options.field_validation, &call.warnings)?;
    decode::ensure_namespace(&mut binding, &call.info.namespace)?;
    let name = call.info.name.clone();
    if !ObjectMeta::of(&binding).name().is_empty() {
        decode::ensure_name(&binding, &name)?;
    }
    check(&binding, &name)?;
    let write = call.write(target, Part::Main, options.dry_run);
    let change = |pod: &Value| bind(pod, &binding, &name, call.now);
    target.registry.modify(&write, &name, &change).await?;
    let mut done = Status::success(StatusDetails::default());
    done.code = 201;
    done.details = None;
    Ok(respond::status(&done))
}

fn check(binding: &Value, name: &str) -> Result<(), Status> {
    let errors = validation::pod::binding(binding);
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let texts = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
    Err(Status::failure(422, "Invalid", format!("Binding {} is invalid: {texts}", go_quote(name))))
}

/// The pod, bound.
fn bind(pod: &Value, binding: &Value, name: &str, now: jiff::Timestamp) -> Result<Value, Status> {
    let conflict = |why: &str| {
        Status::failure(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on pods/binding {}: {why}", go_quote(name)),
        )
        .with_details(StatusDetails {
            name: name.into(),
            kind: "pods/binding".into(),
            ..StatusDetails::default()
        })
    };
    let (is, wanted) = (ObjectMeta::of(pod), ObjectMeta::of(binding));
    if !wanted.uid().is_empty() && wanted.uid() != is.uid() {
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            wanted.uid(),
            is.uid()
        )));
    }
    if !wanted.resource_version().is_empty() && wanted.resource_version() != is.resource_version() {
        return Err(conflict(
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    if is.is_deleting() {
        return Err(conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if !node.is_empty() {
        return Err(conflict(&format!("pod {name} is already assigned to node {}", go_quote(node))));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut bound = pod.clone();
    if let Some(spec) = bound.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("nodeName".into(), binding.pointer("/target/name").cloned().unwrap_or_default());
    }
    for (key, value) in wanted.annotations().into_iter().flatten() {
        meta::set_annotation(&mut bound, key, value.as_str().unwrap_or_default());
    }
    for (key, value) in wanted.labels().into_iter().flatten() {
        meta::set_label(&mut bound, key, value.as_str().unwrap_or_default());
    }
    set_scheduled(&mut bound, now);
    Ok(bound)
}

fn set_scheduled(pod: &mut Value, now: jiff::Timestamp) {
    let Some(members) = pod.as_object_mut() else { return };
    let status = members.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    conditions.retain(|c| c.get("type").and_then(Value::as_str) != Some("PodScheduled"));
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastTransitionTime": time::format_seconds(now),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once_and_only_while_it_is_wanted() {
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n1"}});
        let free = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let bound = bind(&free, &binding, "p", jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["metadata"]["annotations"]["a"], "b");
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        assert_eq!(bound["status"]["conditions"].as_array().unwrap().len(), 1);

        let again = bind(&bound, &binding, "p", jiff::Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(again.code, 409);
        assert!(again.message.ends_with("pod p is already assigned to node \"n1\""), "{}", again.message);

        let mut other = binding.clone();
        meta::set(&mut other, "uid", "else");
        assert_eq!(bind(&free, &other, "p", jiff::Timestamp::UNIX_EPOCH).unwrap_err().code, 409);
        let mut deleting = free.clone();
        meta::set(&mut deleting, "deletionTimestamp", "2026-01-01T00:00:00Z");
        assert!(bind(&deleting, &binding, "p", jiff::Timestamp::UNIX_EPOCH).is_err());
    }
}
