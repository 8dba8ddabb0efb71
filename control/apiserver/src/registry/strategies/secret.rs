//! Secrets. `stringData` is a way to write only: it goes into `data`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::Value;

use crate::registry::columns::config;
use crate::registry::strategy::{Column, Context, Strategy};
use crate::validation;
use crate::validation::view::{remove, restore, set, text};

/// The strategy of Secrets.
pub(super) struct Secrets(pub(super) &'static Resource);

impl Strategy for Secrets {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn prepare_for_create(&self, _cx: &Context, object: &mut Value) {
        fold_texts(object);
    }

    fn validate(&self, _cx: &Context, object: &Value) -> Vec<FieldError> {
        validation::secret::validate(object)
    }

    fn prepare_for_update(&self, _cx: &Context, object: &mut Value, old: &Value) {
        fold_texts(object);
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

/// Writes the texts of `stringData` over the bytes of `data`.
fn fold_texts(object: &mut Value) {
    let Some(Value::Object(texts)) = remove(object, "stringData") else { return };
    for (key, value) in texts {
        set(object, &["data", &key], STANDARD.encode(value.as_str().unwrap_or_default()).into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_become_bytes_and_win_over_them() {
        let mut object = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "é", "c": ""}});
        fold_texts(&mut object);
        assert_eq!(object, json!({"data": {"a": "eA==", "b": "w6k=", "c": ""}}));
        let mut only_texts = json!({"stringData": {"a": "x"}});
        fold_texts(&mut only_texts);
        assert_eq!(only_texts, json!({"data": {"a": "eA=="}}));
    }
}
