//! Defaults: what Kubernetes writes into an object that leaves it out, and the forms into which it
//! brings what can be said in several ways (quantities, `stringData`, `podIP` and `podIPs`).
//!
//! Called by the API server after decoding, on creation and on update, before admission; applying
//! them again changes nothing, so that it may be done again after admission. What a kind sets only
//! once, when it is created, is not here but in its strategy (but see [`new_namespace`]).
//!
//! A file a topic: `pod` (the spec is shared by all pod templates), `container`, `volumes`,
//! `resources`, `image`, `kinds` for the smaller ones, `quantities`, and `fill` with the tools.

mod container;
mod fill;
mod image;
mod kinds;
mod pod;
mod quantities;
mod resources;
#[cfg(test)]
mod tests;
mod volumes;

use serde_json::Value;

use crate::scheme::Resource;

pub use image::{ImageReference, always_pulled};
pub use kinds::{new_namespace, token_request};
pub use pod::{pod_template, service_account_alias};

/// Fills in an object's defaults and brings it into canonical form.
pub fn apply(resource: &Resource, object: &mut Value) {
    if let ("" | "core", Value::Object(object)) = (resource.group, &mut *object) {
        match resource.kind {
            "Namespace" => kinds::namespace(object),
            "Node" => kinds::node(object),
            "Pod" => pod::pod(object),
            "Secret" => kinds::secret(object),
            _ => {}
        }
    }
    if let Some(message) = crate::schema::message(resource.schema) {
        quantities::canonicalise(message, object);
    }
}
