//! Nodes.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::Value;

use super::keep_all_but_status;
use crate::registry::columns::node;
use crate::registry::strategy::{Column, Context, Part, Strategy};
use crate::validation;
use crate::validation::view::{is_set, member, part, restore, text};

/// The strategy of nodes.
pub(super) struct Nodes(pub(super) &'static Resource);

impl Strategy for Nodes {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    /// A node registers itself with its status.
    fn prepare_for_create(&self, _cx: &Context, _object: &mut Value) {}

    fn validate(&self, _cx: &Context, object: &Value) -> Vec<FieldError> {
        validation::node::validate(object)
    }

    fn warnings(&self, _cx: &Context, object: &Value) -> Vec<String> {
        old_fields(object)
    }

    fn prepare_for_update(&self, cx: &Context, object: &mut Value, old: &Value) {
        match cx.part {
            Part::Status => keep_all_but_status(object, old),
            Part::Main | Part::Finalize => restore(object, old, "status"),
        }
    }

    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value) -> Vec<FieldError> {
        validation::node::validate_update(object, old)
    }

    fn warnings_on_update(&self, _cx: &Context, object: &Value, _old: &Value) -> Vec<String> {
        old_fields(object)
    }

    fn field_labels(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field_value(&self, object: &Value, _label: &str) -> String {
        is_set(member(object, "spec"), "unschedulable").to_string()
    }

    fn columns(&self) -> &'static [Column] {
        node::NODE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        node::cells(object, now)
    }
}

fn old_fields(object: &Value) -> Vec<String> {
    let spec = member(object, "spec");
    let mut out = Vec::new();
    if part(spec, "configSource").is_some() {
        out.push("spec.configSource: the feature is no longer available".to_owned());
    }
    if !text(spec, "externalID").is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::strategies::testing::{context, strategy};

    #[test]
    fn spec_and_status_are_written_apart() {
        let old = json!({"spec": {"unschedulable": false}, "status": {"x": 1}});
        let client = json!({"spec": {"unschedulable": true}, "status": {"x": 2}});
        for (part, spec, status) in [(Part::Main, true, 1), (Part::Status, false, 2)] {
            let mut object = client.clone();
            strategy("nodes").prepare_for_update(&context("nodes", part), &mut object, &old);
            assert_eq!(object, json!({"spec": {"unschedulable": spec}, "status": {"x": status}}), "{part:?}");
        }
    }

    #[test]
    fn nodes_are_selected_by_whether_they_take_pods() {
        let strategy = strategy("nodes");
        assert_eq!(strategy.field_value(&json!({}), "spec.unschedulable"), "false");
        assert_eq!(
            strategy.field_value(&json!({"spec": {"unschedulable": true}}), "spec.unschedulable"),
            "true"
        );
    }
}
