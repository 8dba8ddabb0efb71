//! Defaults of the smaller kinds of the core group.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::fill::{self, Object, child, made, text};

/// A namespace has a label with its own name, and is active unless it says otherwise.
pub(super) fn namespace(object: &mut Object) {
    let name = object.get("metadata").and_then(|m| m.get("name")).and_then(Value::as_str).unwrap_or_default();
    let name = name.to_owned();
    if !name.is_empty()
        && let Some(labels) = child(object, "metadata").and_then(|metadata| made(metadata, "labels"))
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
    if let Some(status) = made(object, "status") {
        fill::zero(status, "phase", "Active");
    }
}

/// What a namespace has from its creation on, until it is finalized: the finalizer under which its
/// contents are deleted. Not part of [`super::apply`], which also sees the update that takes the
/// finalizer away.
pub fn new_namespace(namespace: &mut Value) {
    let Some(spec) = namespace.as_object_mut().and_then(|object| made(object, "spec")) else { return };
    fill::absent(spec, "finalizers", Value::Array(Vec::new()));
    if let Some(Value::Array(finalizers)) = spec.get_mut("finalizers")
        && !finalizers.iter().any(|f| f == "kubernetes")
    {
        finalizers.push("kubernetes".into());
    }
}

/// A node can give away all that it has, unless it says otherwise.
pub(super) fn node(object: &mut Object) {
    if let Some(status) = child(object, "status")
        && let Some(capacity) = status.get("capacity").filter(|c| !c.is_null()).cloned()
    {
        fill::absent(status, "allocatable", capacity);
    }
    if let Some(spec) = child(object, "spec") {
        fill::first_of(spec, "podCIDR", "podCIDRs", |cidr| cidr.into());
    }
}

/// A secret is opaque unless it says otherwise; plain text given in `stringData` goes to `data`.
pub(super) fn secret(object: &mut Object) {
    fill::zero(object, "type", "Opaque");
    let Some(Value::Object(plain)) = object.remove("stringData") else { return };
    if plain.is_empty() {
        return;
    }
    if let Some(data) = made(object, "data") {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}

/// A token lasts an hour unless the request (a `TokenRequest`, which is no resource of its own) says
/// otherwise.
pub fn token_request(request: &mut Value) {
    if let Some(spec) = request.as_object_mut().and_then(|object| made(object, "spec")) {
        fill::absent(spec, "expirationSeconds", 3600);
    }
}

/// A pod has the first of its addresses twice, as `podIP` and in `podIPs`.
pub(super) fn pod_addresses(status: &mut Object) {
    if !text(status, "podIP").is_empty() || status.contains_key("podIPs") {
        fill::first_of(status, "podIP", "podIPs", |ip| json!({ "ip": ip }));
    }
}
