//! Events. They live in memory for an hour; the store forgets them by itself.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::names;
use sampan_api::scheme::Resource;
use serde_json::Value;

use crate::registry::columns::event;
use crate::registry::strategy::{Column, Context, Strategy, value_at};
use crate::validation::event::{Api, validate, validate_update};

/// The strategy of events.
pub(super) struct Events(pub(super) &'static Resource);

/// Through which API a request came.
fn api(cx: &Context) -> Api {
    if cx.requested.group.is_empty() { Api::Core } else { Api::Events }
}

impl Strategy for Events {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    /// Names of events are made by programs and were never checked.
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::is_path_segment(name)
    }

    fn prepare_for_create(&self, _cx: &Context, _object: &mut Value) {}

    fn validate(&self, cx: &Context, object: &Value) -> Vec<FieldError> {
        validate(object, api(cx))
    }

    fn prepare_for_update(&self, _cx: &Context, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, cx: &Context, object: &Value, old: &Value) -> Vec<FieldError> {
        validate_update(object, old, api(cx))
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn field_labels(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn field_value(&self, object: &Value, label: &str) -> String {
        if label != "source" {
            return value_at(object, label);
        }
        let component = value_at(object, "source.component");
        if component.is_empty() { value_at(object, "reportingComponent") } else { component }
    }

    fn columns(&self) -> &'static [Column] {
        event::EVENT
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        event::cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::registry::strategies::testing::strategy;

    #[test]
    fn events_are_selected_by_object_and_source() {
        let strategy = strategy("events");
        let old = json!({"involvedObject": {"uid": "u"}, "source": {"component": "kubelet"}});
        let new = json!({"reportingComponent": "scheduler"});
        assert_eq!(strategy.field_value(&old, "involvedObject.uid"), "u");
        assert_eq!(strategy.field_value(&old, "source"), "kubelet");
        assert_eq!(strategy.field_value(&new, "source"), "scheduler");
        assert_eq!(strategy.field_value(&new, "reason"), "");
    }
}
