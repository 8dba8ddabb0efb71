//! How objects lie in the store, for those who keep copies of them: a node's agent does.

use bytes::Bytes;
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::scheme::Resource;
use serde_json::Value;

use crate::cacher::ROOT;

/// An object as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: Bytes,
    /// Its JSON, without the resourceVersion.
    pub value: Bytes,
    /// The revision of its last change: its resourceVersion.
    pub revision: u64,
}

/// The key of an object; `None` where the resource is not stored. `namespace` is empty for
/// cluster-scoped ones.
pub fn key(resource: &Resource, namespace: &str, name: &str) -> Option<Bytes> {
    let prefix = prefix(resource, namespace)?;
    Some(format!("{prefix}{name}").into())
}

/// What the keys of all objects of a resource (in a namespace, unless that is empty) begin with.
pub fn prefix(resource: &Resource, namespace: &str) -> Option<String> {
    let (group, plural) = resource.storage?;
    let within = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    Some(format!("{ROOT}{group}/{plural}/{within}"))
}

/// An object as the store would hold it; `None` where it has no name, no valid resourceVersion,
/// or is of a resource that is not stored.
pub fn encode(resource: &Resource, mut object: Value) -> Option<Stored> {
    let about = ObjectMeta::of(&object);
    let key = key(resource, about.namespace(), Some(about.name()).filter(|name| !name.is_empty())?)?;
    let revision = about.resource_version().parse().ok()?;
    meta::remove(&mut object, "resourceVersion");
    let members = object.as_object_mut()?;
    members.insert("apiVersion".into(), resource.api_version().into());
    members.insert("kind".into(), resource.kind.into());
    Some(Stored { key, value: serde_json::to_vec(&object).ok()?.into(), revision })
}

/// The object that a stored value is; `None` where it is not JSON.
pub fn decode(value: &[u8], revision: u64) -> Option<Value> {
    let mut object: Value = serde_json::from_slice(value).ok()?;
    meta::set_resource_version(&mut object, revision);
    Some(object)
}

#[cfg(test)]
mod tests {
    use sampan_api::scheme;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_again() {
        let pods = scheme::by_gvr("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7"}});
        let stored = encode(pods, pod).unwrap();
        assert_eq!(stored.key, "/registry/core/pods/ns/p");
        assert_eq!(stored.revision, 7);
        assert!(!String::from_utf8_lossy(&stored.value).contains("resourceVersion"));
        let back = decode(&stored.value, stored.revision).unwrap();
        assert_eq!(back["metadata"]["resourceVersion"], "7");
        assert_eq!(back["kind"], "Pod");
    }

    #[test]
    fn what_cannot_be_stored_is_not_encoded() {
        let pods = scheme::by_gvr("", "v1", "pods").unwrap();
        assert_eq!(encode(pods, json!({"metadata": {"name": "p", "namespace": "ns"}})), None, "no version");
        assert_eq!(encode(pods, json!({"metadata": {"resourceVersion": "1"}})), None, "no name");
        assert_eq!(encode(pods, json!([])), None);
    }
}
