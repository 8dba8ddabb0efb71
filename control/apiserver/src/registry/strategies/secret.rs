//! Secrets. `stringData` is a way to write only: defaulting has put it into `data`.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::Value;

use crate::registry::columns::config;
use crate::registry::strategy::{Column, Context, Strategy};
use crate::validation;
use crate::validation::view::{restore, text};

/// The strategy of Secrets.
pub(super) struct Secrets(pub(super) &'static Resource);

impl Strategy for Secrets {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn prepare_for_create(&self, _cx: &Context, _object: &mut Value) {}

    fn validate(&self, _cx: &Context, object: &Value) -> Vec<FieldError> {
        validation::secret::validate(object)
    }

    fn prepare_for_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        if text(object, "type").is_empty() {
            restore(object, old, "type");
        }
    }

    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value) -> Vec<FieldError> {
        validation::secret::validate_update(object, old)
    }

    fn field_labels(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn columns(&self) -> &'static [Column] {
        config::SECRET
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        config::secret(object, now)
    }
}
