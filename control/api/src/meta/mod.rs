//! An object's metadata: reading it, setting it, making names up, and (in `validate`) checking it.
//!
//! Objects are `serde_json::Value`. Reading never fails: what is missing or of the wrong type reads
//! as empty, for decoding has checked types before. Called by the API server throughout.

mod validate;

use rand::Rng;
use serde_json::{Map, Value};

use crate::time;

pub use validate::{
    validate_annotations, validate_field_manager, validate_finalizer_name, validate_labels,
    validate_object_meta, validate_object_meta_update,
};

/// The finalizer that keeps an object until its dependents are gone.
pub const FOREGROUND_DELETION: &str = "foregroundDeletion";

/// The finalizer that keeps an object until its dependents are released.
pub const ORPHAN_DEPENDENTS: &str = "orphan";

/// What random parts of names are made of: no vowels and nothing that is easily misread.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many random characters end a generated name.
const RANDOM_LENGTH: usize = 5;

/// How much of the base a generated name keeps.
const BASE_LENGTH: usize = 63 - RANDOM_LENGTH;

/// An object's metadata, for reading.
#[derive(Clone, Copy, Debug)]
pub struct ObjectMeta<'a> {
    fields: Option<&'a Map<String, Value>>,
}

impl<'a> ObjectMeta<'a> {
    /// The metadata of an object.
    pub fn of(object: &'a Value) -> Self {
        Self { fields: object.get("metadata").and_then(Value::as_object) }
    }

    /// A field of the metadata, as it stands.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields?.get(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> &'a str {
        self.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn map(&self, field: &str) -> Option<&'a Map<String, Value>> {
        self.get(field).and_then(Value::as_object)
    }

    fn list(&self, field: &str) -> &'a [Value] {
        self.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// The name; empty if there is none yet.
    pub fn name(&self) -> &'a str {
        self.text("name")
    }

    /// What a name is to be generated from.
    pub fn generate_name(&self) -> &'a str {
        self.text("generateName")
    }

    /// The namespace; empty for cluster-wide objects.
    pub fn namespace(&self) -> &'a str {
        self.text("namespace")
    }

    /// The UID.
    pub fn uid(&self) -> &'a str {
        self.text("uid")
    }

    /// The resource version; empty if none was given.
    pub fn resource_version(&self) -> &'a str {
        self.text("resourceVersion")
    }

    /// The generation; 0 for kinds without.
    pub fn generation(&self) -> i64 {
        self.get("generation").and_then(Value::as_i64).unwrap_or_default()
    }

    /// When it was made.
    pub fn creation_timestamp(&self) -> Option<&'a str> {
        self.get("creationTimestamp").and_then(Value::as_str)
    }

    /// When it was (or will be) deleted; set while finalizers or a grace period hold it.
    pub fn deletion_timestamp(&self) -> Option<&'a str> {
        self.get("deletionTimestamp").and_then(Value::as_str)
    }

    /// Whether its deletion has begun.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp().is_some()
    }

    /// How long it may take to stop.
    pub fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.get("deletionGracePeriodSeconds").and_then(Value::as_i64)
    }

    /// Its labels.
    pub fn labels(&self) -> Option<&'a Map<String, Value>> {
        self.map("labels")
    }

    /// One of its labels.
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.labels()?.get(key)?.as_str()
    }

    /// Its annotations.
    pub fn annotations(&self) -> Option<&'a Map<String, Value>> {
        self.map("annotations")
    }

    /// One of its annotations.
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations()?.get(key)?.as_str()
    }

    /// Its finalizers.
    pub fn finalizers(&self) -> Vec<&'a str> {
        self.list("finalizers").iter().filter_map(Value::as_str).collect()
    }

    /// Its owners.
    pub fn owner_references(&self) -> &'a [Value] {
        self.list("ownerReferences")
    }

    /// The owner that manages it, if one does.
    pub fn controller(&self) -> Option<&'a Value> {
        self.owner_references().iter().find(|o| o.get("controller") == Some(&Value::Bool(true)))
    }

    /// Who set what.
    pub fn managed_fields(&self) -> &'a [Value] {
        self.list("managedFields")
    }
}

/// The metadata of an object, for writing; made if it is missing. An object that is not a JSON
/// object becomes an empty one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    object_mut(object_mut(object).entry("metadata").or_insert_with(empty))
}

/// Sets one field of the metadata: `set(&mut pod, "uid", uid)`.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// Removes one field of the metadata and returns it.
pub fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.get_mut("metadata").and_then(Value::as_object_mut)?.remove(field)
}

/// Sets a label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    object_mut(metadata_mut(object).entry("labels").or_insert_with(empty))
        .insert(key.to_owned(), value.into());
}

/// Sets an annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    object_mut(metadata_mut(object).entry("annotations").or_insert_with(empty))
        .insert(key.to_owned(), value.into());
}

/// Sets the resource version.
pub fn set_resource_version(object: &mut Value, revision: u64) {
    set(object, "resourceVersion", revision.to_string());
}

/// Sets the generation.
pub fn set_generation(object: &mut Value, generation: i64) {
    set(object, "generation", generation);
}

/// Sets the finalizers; none means that the field goes.
pub fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        remove(object, "finalizers");
    } else {
        set(object, "finalizers", finalizers);
    }
}

/// Copies from the stored object what an update may leave out and cannot change: UID, creation time,
/// and a deletion that has begun.
pub fn inherit_system_fields(new: &mut Value, old: &Value) {
    let before = ObjectMeta::of(old);
    if ObjectMeta::of(new).uid().is_empty() && !before.uid().is_empty() {
        set(new, "uid", before.uid());
    }
    match before.creation_timestamp() {
        Some(at) => set(new, "creationTimestamp", at),
        None => set(new, "creationTimestamp", time::now()),
    }
    if let Some(at) = before.deletion_timestamp() {
        set(new, "deletionTimestamp", at);
    }
    if let Some(grace) = before.deletion_grace_period_seconds()
        && ObjectMeta::of(new).deletion_grace_period_seconds().is_none()
    {
        set(new, "deletionGracePeriodSeconds", grace);
    }
}

/// A name that begins with (at most 58 bytes of) a base and ends with five random characters.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(BASE_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", base.get(..end).unwrap_or_default(), random_suffix(RANDOM_LENGTH))
}

/// Random characters as Kubernetes puts them into names.
pub fn random_suffix(length: usize) -> String {
    let mut rng = rand::rng();
    let pick = |_| NAME_ALPHABET.get(rng.random_range(..NAME_ALPHABET.len())).copied().map(char::from);
    (0..length).filter_map(pick).collect()
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// The members of a JSON object; anything else is replaced by an empty one.
pub(crate) fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = empty();
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_read_and_missing_fields_are_empty() {
        let pod = json!({"metadata": {
            "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "generation": 3,
            "labels": {"app": "web"}, "annotations": null, "finalizers": ["x/y"],
            "ownerReferences": [{"name": "o"}, {"name": "c", "controller": true}],
            "deletionTimestamp": "2025-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30,
        }});
        let meta = ObjectMeta::of(&pod);
        assert_eq!((meta.name(), meta.namespace(), meta.uid()), ("a", "b", "u"));
        assert_eq!((meta.resource_version(), meta.generation()), ("7", 3));
        assert_eq!(meta.label("app"), Some("web"));
        assert_eq!(meta.annotations(), None);
        assert_eq!(meta.finalizers(), ["x/y"]);
        assert_eq!(meta.controller().and_then(|o| o["name"].as_str()), Some("c"));
        assert!(meta.is_deleting());
        assert_eq!(meta.deletion_grace_period_seconds(), Some(30));
        let none = json!(null);
        let meta = ObjectMeta::of(&none);
        assert_eq!((meta.name(), meta.generation(), meta.is_deleting()), ("", 0, false));
    }

    #[test]
    fn fields_are_set_in_metadata_that_is_missing_or_null() {
        let mut object = json!({"metadata": null});
        set(&mut object, "name", "a");
        set_label(&mut object, "k", "v");
        set_annotation(&mut object, "n", "w");
        set_resource_version(&mut object, 12);
        set_finalizers(&mut object, vec!["x".into()]);
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "labels": {"k": "v"}, "annotations": {"n": "w"},
                "resourceVersion": "12", "finalizers": ["x"]}})
        );
        set_finalizers(&mut object, Vec::new());
        assert_eq!(remove(&mut object, "finalizers"), None);
        assert_eq!(remove(&mut object, "name"), Some(json!("a")));
    }

    #[test]
    fn an_update_keeps_what_the_system_has_set() {
        let old = json!({"metadata": {"uid": "u", "creationTimestamp": "2025-01-01T00:00:00Z",
            "deletionTimestamp": "2025-01-02T00:00:00Z", "deletionGracePeriodSeconds": 5}});
        let mut new = json!({"metadata": {"creationTimestamp": "1999-01-01T00:00:00Z"}});
        inherit_system_fields(&mut new, &old);
        assert_eq!(new, old);
        let mut new = json!({"metadata": {"uid": "other", "deletionGracePeriodSeconds": 1}});
        inherit_system_fields(&mut new, &old);
        assert_eq!(new["metadata"]["uid"], "other");
        assert_eq!(new["metadata"]["deletionGracePeriodSeconds"], 1);
    }

    #[test]
    fn generated_names_keep_58_bytes_of_the_base() {
        let name = generate_name("web-");
        assert_eq!(name.len(), 9);
        assert!(name.starts_with("web-"));
        assert!(name.bytes().skip(4).all(|b| NAME_ALPHABET.contains(&b)), "{name}");
        assert_eq!(generate_name(&"a".repeat(80)).len(), 63);
        assert!(generate_name(&"ä".repeat(40)).starts_with(&"ä".repeat(29)));
        assert_ne!(generate_name("a"), generate_name("a"));
    }
}
