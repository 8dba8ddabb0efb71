//! Service accounts.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::{Value, json};

use crate::registry::columns::cluster;
use crate::registry::strategy::{Column, Context, Strategy};
use crate::validation::view::{map, member, text};

const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// The strategy of service accounts.
pub(super) struct ServiceAccounts(pub(super) &'static Resource);

impl Strategy for ServiceAccounts {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn prepare_for_create(&self, _cx: &Context, object: &mut Value) {
        names_only(object);
    }

    fn validate(&self, _cx: &Context, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn warnings(&self, _cx: &Context, object: &Value) -> Vec<String> {
        if !enforces(object) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }

    fn prepare_for_update(&self, _cx: &Context, object: &mut Value, _old: &Value) {
        names_only(object);
    }

    fn validate_update(&self, _cx: &Context, _object: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn warnings_on_update(&self, cx: &Context, object: &Value, old: &Value) -> Vec<String> {
        if enforces(old) { Vec::new() } else { self.warnings(cx, object) }
    }

    fn columns(&self) -> &'static [Column] {
        cluster::SERVICE_ACCOUNT
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cluster::service_account(object, now)
    }
}

fn enforces(object: &Value) -> bool {
    map(member(object, "metadata"), "annotations").contains_key(ENFORCE_MOUNTABLE)
}

/// Of references to secrets only the name counts.
fn names_only(object: &mut Value) {
    for reference in object.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        *reference = json!({"name": text(reference, "name")});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name() {
        let mut object = json!({"secrets": [{"name": "a", "namespace": "x", "kind": "Secret"}]});
        names_only(&mut object);
        assert_eq!(object, json!({"secrets": [{"name": "a"}]}));
    }
}
