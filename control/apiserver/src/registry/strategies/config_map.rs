//! ConfigMaps.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::Value;

use crate::registry::columns::config;
use crate::registry::strategy::{Column, Context, Strategy};
use crate::validation;

/// The strategy of ConfigMaps.
pub(super) struct ConfigMaps(pub(super) &'static Resource);

impl Strategy for ConfigMaps {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn prepare_for_create(&self, _cx: &Context, _object: &mut Value) {}

    fn validate(&self, _cx: &Context, object: &Value) -> Vec<FieldError> {
        validation::config::validate(object)
    }

    fn prepare_for_update(&self, _cx: &Context, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _cx: &Context, object: &Value, old: &Value) -> Vec<FieldError> {
        validation::config::validate_update(object, old)
    }

    fn columns(&self) -> &'static [Column] {
        config::CONFIG_MAP
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        config::config_map(object, now)
    }
}
