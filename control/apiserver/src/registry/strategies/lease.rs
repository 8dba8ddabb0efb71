//! Leases. Writing one blindly would defeat its purpose, so the resource version must be named.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::Value;

use crate::registry::columns::cluster;
use crate::registry::strategy::{Column, Context, Strategy};
use crate::validation;

/// The strategy of leases.
pub(super) struct Leases(pub(super) &'static Resource);

impl Strategy for Leases {
    fn resource(&self) -> &'static Resource {
        self.0
    }

    fn prepare_for_create(&self, _cx: &Context, _object: &mut Value) {}

    fn validate(&self, _cx: &Context, object: &Value) -> Vec<FieldError> {
        validation::lease::validate(object)
    }

    fn prepare_for_update(&self, _cx: &Context, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _cx: &Context, object: &Value, _old: &Value) -> Vec<FieldError> {
        validation::lease::validate(object)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        cluster::LEASE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cluster::lease(object, now)
    }
}
