//! Namespaces. One that is deleted is emptied first: `spec.finalizers` hold it, and its phase says so.

use jiff::Timestamp;
use sampan_api::defaults;
use sampan_api::field::FieldError;
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::names;
use sampan_api::scheme::Resource;
use serde_json::{Value, json};

use super::keep_all_but_status;
use crate::registry::columns::cluster;
use crate::registry::strategy::{Column, Context, Part, Strategy};
use crate::validation;
use crate::validation::view::{list, member, remove, restore, set, walk};

/// The label that every namespace has, so that selectors can name it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The strategy of namespaces.
pub(super) struct Namespaces(pub(super) &'static Resource);

impl Strategy for Namespaces {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::is_dns1123_label(name)
    }

    fn prepare_for_create(&self, _cx: &Context, object: &mut Value) {
        set(object, &["status"], json!({"phase": "Active"}));
        defaults::new_namespace(object);
        label(object);
    }

    fn validate(&self, _cx: &Context, object: &Value) -> Vec<FieldError> {
        validation::namespace::validate(object)
    }

    fn prepare_for_update(&self, cx: &Context, object: &mut Value, old: &Value) {
        match cx.part {
            Part::Main => {
                restore(object, old, "status");
                match walk(old, &["spec", "finalizers"]) {
                    Value::Null => {
                        if let Some(spec) = object.get_mut("spec") {
                            remove(spec, "finalizers");
                        }
                    }
                    finalizers => set(object, &["spec", "finalizers"], finalizers.clone()),
                }
            }
            Part::Status => keep_all_but_status(object, old),
            Part::Finalize => restore(object, old, "status"),
        }
        label(object);
    }

    fn validate_update(&self, cx: &Context, object: &Value, _old: &Value) -> Vec<FieldError> {
        match cx.part {
            Part::Main => Vec::new(),
            Part::Status => validation::namespace::validate_status(object),
            Part::Finalize => validation::namespace::validate_finalize(object),
        }
    }

    fn prepare_for_deletion(&self, object: &mut Value) {
        set(object, &["status", "phase"], "Terminating".into());
    }

    fn may_be_removed(&self, object: &Value) -> bool {
        list(member(object, "spec"), "finalizers").is_empty()
    }

    fn field_labels(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn columns(&self) -> &'static [Column] {
        cluster::NAMESPACE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cluster::namespace(object, now)
    }
}

fn label(object: &mut Value) {
    let name = ObjectMeta::of(object).name().to_owned();
    if !name.is_empty() {
        meta::set_label(object, NAME_LABEL, &name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::strategies::testing::{context, strategy};

    #[test]
    fn new_namespaces_are_active_held_and_labelled() {
        let mut object =
            json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["a/b"]}, "status": {"phase": "x"}});
        strategy("namespaces").prepare_for_create(&context("namespaces", Part::Main), &mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
                "spec": {"finalizers": ["a/b", "kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
    }

    #[test]
    fn each_part_changes_only_itself() {
        let old = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let client = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}, "status": {"phase": "Terminating"}});
        for (part, finalizers, phase) in [
            (Part::Main, json!(["kubernetes"]), "Active"),
            (Part::Status, json!(["kubernetes"]), "Terminating"),
            (Part::Finalize, json!([]), "Active"),
        ] {
            let mut object = client.clone();
            strategy("namespaces").prepare_for_update(&context("namespaces", part), &mut object, &old);
            assert_eq!(object["spec"]["finalizers"], finalizers, "{part:?}");
            assert_eq!(object["status"]["phase"], phase, "{part:?}");
        }
    }

    #[test]
    fn a_deleted_namespace_terminates_and_stays_while_it_is_held() {
        let strategy = strategy("namespaces");
        let mut object = json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        strategy.prepare_for_deletion(&mut object);
        assert_eq!(object["status"]["phase"], "Terminating");
        assert!(!strategy.may_be_removed(&object));
        assert!(strategy.may_be_removed(&json!({"spec": {}})));
    }
}
