//! What metadata may be, with Kubernetes' messages; pure functions over the object.

use serde_json::{Map, Value};

use super::{FOREGROUND_DELETION, ORPHAN_DEPENDENTS, ObjectMeta};
use crate::field::{FieldError, FieldPath, go_quote, is_printable};
use crate::{names, scheme, time};

/// How much text all annotations together may hold, keys counted.
const ANNOTATIONS_MAX: usize = 256 * 1024;

const FIELD_MANAGER_MAX: usize = 128;
const SUBRESOURCE_MAX: usize = 256;
const IMMUTABLE: &str = "field is immutable";

/// Checks the metadata of an object of a built-in kind that is about to be created, its name being
/// generated already. `path` is that of the metadata.
pub fn validate_object_meta(
    object: &Value,
    path: &FieldPath,
    name_fn: impl Fn(&str) -> Vec<String>,
    namespaced: bool,
) -> Vec<FieldError> {
    let meta = ObjectMeta::of(object);
    let mut errors = Vec::new();
    let base = meta.generate_name();
    if !base.is_empty() {
        let complaints = name_fn(&mask_trailing_dash(base));
        errors.extend(FieldError::each_invalid(&path.child("generateName"), base, complaints));
    }
    let name = meta.name();
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        errors.extend(FieldError::each_invalid(&path.child("name"), name, name_fn(name)));
    }
    let namespace = meta.namespace();
    let at = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&at, "")),
        (true, false) => {
            errors.extend(FieldError::each_invalid(&at, namespace, names::is_dns1123_label(namespace)));
        }
        (false, false) => errors.push(FieldError::forbidden(&at, "not allowed on this type")),
        (false, true) => {}
    }
    if meta.generation() < 0 {
        errors.push(FieldError::invalid(
            &path.child("generation"),
            meta.generation(),
            "must be greater than or equal to 0",
        ));
    }
    errors.extend(common(&meta, path));
    errors.extend(finalizer_names(&meta, path));
    errors
}

/// Checks the metadata of an updated object against the stored one: what may not change, and what
/// may but must be well formed.
pub fn validate_object_meta_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = &FieldPath::new("metadata");
    let (meta, before) = (ObjectMeta::of(new), ObjectMeta::of(old));
    let mut errors = Vec::new();
    if before.is_deleting() {
        let known = before.finalizers();
        let mut added: Vec<&str> = meta.finalizers().into_iter().filter(|f| !known.contains(f)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let quoted: Vec<String> = added.into_iter().map(go_quote).collect();
            errors.push(FieldError::forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    quoted.join(", ")
                ),
            ));
        }
    }
    if meta.resource_version().is_empty() {
        let at = path.child("resourceVersion");
        errors.push(FieldError::invalid(&at, "", "must be specified for an update"));
    }
    if meta.generation() < before.generation() {
        let at = path.child("generation");
        errors.push(FieldError::invalid(&at, meta.generation(), "must not be decremented"));
    }
    for field in ["name", "namespace", "uid"] {
        let (now, then) = (text(&meta, field), text(&before, field));
        if now != then {
            errors.push(FieldError::invalid(&path.child(field), now, IMMUTABLE));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp"] {
        if moment(&meta, field) != moment(&before, field) {
            errors.push(FieldError::invalid(&path.child(field), shown(&meta, field), IMMUTABLE));
        }
    }
    let field = "deletionGracePeriodSeconds";
    if meta.get(field) != before.get(field) {
        errors.push(FieldError::invalid(&path.child(field), shown(&meta, field), IMMUTABLE));
    }
    errors.extend(common(&meta, path));
    errors.extend(finalizer_names(&meta, path));
    errors
}

/// Checks labels: their keys and their values.
pub fn validate_labels(labels: &Map<String, Value>, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        errors.extend(FieldError::each_invalid(path, key, names::is_qualified_name(key)));
        let value = value.as_str().unwrap_or_default();
        errors.extend(FieldError::each_invalid(path, value, names::is_label_value(value)));
    }
    errors
}

/// Checks annotations: their keys, whose case does not matter, and their size altogether.
pub fn validate_annotations(annotations: &Map<String, Value>, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations {
        errors.extend(FieldError::each_invalid(path, key, names::is_qualified_name(&key.to_lowercase())));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
    errors
}

/// Checks the name of a finalizer of a built-in kind: one of Kubernetes' own, or one with a domain.
pub fn validate_finalizer_name(name: &str, path: &FieldPath) -> Vec<FieldError> {
    let standard = ["kubernetes", ORPHAN_DEPENDENTS, FOREGROUND_DELETION].contains(&name);
    if name.contains('/') || standard {
        return Vec::new();
    }
    let text = "name is neither a standard finalizer name nor is it fully qualified";
    vec![FieldError::invalid(path, name, text)]
}

/// What holds on creation and on update alike.
fn common(meta: &ObjectMeta<'_>, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(labels) = meta.labels() {
        errors.extend(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = meta.annotations() {
        errors.extend(validate_annotations(annotations, &path.child("annotations")));
    }
    errors.extend(owner_references(meta.owner_references(), &path.child("ownerReferences")));
    errors.extend(finalizers(&meta.finalizers(), &path.child("finalizers")));
    errors.extend(managed_fields(meta.managed_fields(), &path.child("managedFields")));
    errors
}

fn owner_references(owners: &[Value], path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
        let api_version = text("apiVersion");
        let (_, version) = scheme::split_api_version(api_version);
        if version.is_empty() || version.contains('/') {
            let at = path.child("apiVersion");
            errors.push(FieldError::invalid(&at, api_version, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(&path.child(field), "", "must not be empty"));
            }
        }
        if api_version == "v1" && text("kind") == "Event" {
            let complaint = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, owner.clone(), complaint));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => errors.push(FieldError::invalid(
                    path,
                    owners.to_vec(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                )),
                None => controller = Some(this),
            }
        }
    }
    errors
}

fn finalizers(finalizers: &[&str], path: &FieldPath) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = finalizers
        .iter()
        .flat_map(|name| FieldError::each_invalid(path, name, names::is_qualified_name(name)))
        .collect();
    if finalizers.contains(&ORPHAN_DEPENDENTS) && finalizers.contains(&FOREGROUND_DELETION) {
        let complaint = format!("finalizer {ORPHAN_DEPENDENTS} and {FOREGROUND_DELETION} cannot be both set");
        let value: Vec<Value> = finalizers.iter().map(|f| Value::from(*f)).collect();
        errors.push(FieldError::invalid(path, value, complaint));
    }
    errors
}

fn finalizer_names(meta: &ObjectMeta<'_>, path: &FieldPath) -> Vec<FieldError> {
    let path = path.child("finalizers");
    let names = meta.finalizers().into_iter().enumerate();
    names.flat_map(|(i, name)| validate_finalizer_name(name, &path.index(i))).collect()
}

fn managed_fields(entries: &[Value], path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        let operation = text("operation");
        if !["Apply", "Update"].contains(&operation) {
            let at = path.child("operation");
            errors.push(FieldError::invalid(&at, operation, "must be `Apply` or `Update`"));
        }
        if !["", "FieldsV1"].contains(&text("fieldsType")) {
            let at = path.child("fieldsType");
            errors.push(FieldError::invalid(&at, text("fieldsType"), "must be `FieldsV1`"));
        }
        errors.extend(validate_field_manager(text("manager"), &path.child("manager")));
        if text("subresource").len() > SUBRESOURCE_MAX {
            errors.push(FieldError::too_long(&path.child("subresource"), SUBRESOURCE_MAX));
        }
    }
    errors
}

/// Checks the name of a field manager (the `fieldManager` of a request, the `manager` of an entry).
pub fn validate_field_manager(manager: &str, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if manager.len() > FIELD_MANAGER_MAX {
        errors.push(FieldError::too_long(path, FIELD_MANAGER_MAX));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let complaint = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid(path, manager, complaint));
    }
    errors
}

/// A base usually ends with a dash, which no name may; the random characters will follow it.
fn mask_trailing_dash(base: &str) -> String {
    match base.strip_suffix('-') {
        Some(rest) if rest.len() > 1 => {
            let mut end = rest.len() - 1;
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            format!("{}a", rest.get(..end).unwrap_or_default())
        }
        Some(rest) if !rest.is_empty() => "a".to_owned(),
        _ => base.to_owned(),
    }
}

fn text<'a>(meta: &ObjectMeta<'a>, field: &str) -> &'a str {
    meta.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn shown(meta: &ObjectMeta<'_>, field: &str) -> Value {
    meta.get(field).cloned().unwrap_or_default()
}

/// A time, comparable whatever its offset; what cannot be read compares as it is written.
fn moment(meta: &ObjectMeta<'_>, field: &str) -> Option<Result<jiff::Timestamp, String>> {
    let text = meta.get(field)?.as_str().unwrap_or_default();
    Some(time::parse(text).ok_or_else(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn create(metadata: Value, namespaced: bool) -> Vec<String> {
        let object = json!({"metadata": metadata});
        validate_object_meta(&object, &FieldPath::new("metadata"), names::is_dns1123_label, namespaced)
            .iter()
            .map(|e| e.to_string().chars().take(110).collect())
            .collect()
    }

    fn update(new: Value, old: Value) -> Vec<String> {
        validate_object_meta_update(&json!({"metadata": new}), &json!({"metadata": old}))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn good_metadata_passes() {
        let good = json!({
            "name": "a", "generateName": "a-", "namespace": "n", "generation": 1,
            "labels": {"app": "web", "example.com/a": ""}, "annotations": {"Example.com/A": "anything\n"},
            "finalizers": ["kubernetes", "example.com/f"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}],
            "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1"}],
        });
        assert_eq!(create(good, true), Vec::<String>::new());
        assert_eq!(create(json!({"name": "a", "generateName": "-"}), false).len(), 1);
        assert_eq!(create(json!({"name": "a", "generateName": "b-"}), false), Vec::<String>::new());
    }

    #[test]
    fn names_and_namespaces_are_required_or_forbidden() {
        assert_eq!(
            create(json!({}), true),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value",
            ]
        );
        assert_eq!(
            create(json!({"name": "a", "namespace": "b"}), false),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
        assert_eq!(
            create(json!({"name": "A", "namespace": "b.c"}), true),
            [
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characte",
                "metadata.namespace: Invalid value: \"b.c\": must not contain dots",
            ]
        );
    }

    #[test]
    fn bad_parts_are_reported_where_kubernetes_reports_them() {
        let bad = json!({
            "name": "a", "generation": -1,
            "labels": {"a b": "c d"}, "annotations": {"a b": ""},
            "finalizers": ["bare", "orphan", "foregroundDeletion"],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Event", "name": "", "uid": "u", "controller": true},
                {"kind": "B", "name": "b", "uid": "u", "controller": true},
            ],
            "managedFields": [{"operation": "Steal", "fieldsType": "FieldsV2", "manager": "a\tb"}],
        });
        let expected = [
            "metadata.generation: Invalid value: -1: must be greater than or equal to 0",
            "metadata.labels: Invalid value: \"a b\": name part must consist of",
            "metadata.labels: Invalid value: \"c d\": a valid label must be an",
            "metadata.annotations: Invalid value: \"a b\": name part must consist of",
            "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
            "metadata.ownerReferences: Invalid value: {\"apiVersion\":\"v1\"",
            "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
            "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\"",
            "metadata.finalizers: Invalid value: [\"bare\",\"orphan\",\"foregroundDeletion\"]: finalizer orphan and",
            "metadata.managedFields[0].operation: Invalid value: \"Steal\": must be `Apply` or `Update`",
            "metadata.managedFields[0].fieldsType: Invalid value: \"FieldsV2\": must be `FieldsV1`",
            "metadata.managedFields[0].manager: Invalid value: \"a\\tb\": invalid character U+0009 (at position 1)",
            "metadata.finalizers[0]: Invalid value: \"bare\": name is neither a standard finalizer name nor is it",
        ];
        let found = create(bad, false);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} / {expected}");
        }
    }

    #[test]
    fn annotations_have_a_limit_altogether() {
        let half = "x".repeat(ANNOTATIONS_MAX / 2);
        assert_eq!(create(json!({"name": "a", "annotations": {"a": half}}), false), Vec::<String>::new());
        assert_eq!(
            create(json!({"name": "a", "annotations": {"a": half, "b": half}}), false),
            ["metadata.annotations: Too long: may not be more than 262144 bytes"]
        );
    }

    #[test]
    fn updates_may_not_change_identity_or_times() {
        let old = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 2,
            "creationTimestamp": "2025-01-01T00:00:00Z"});
        assert_eq!(update(old.clone(), old.clone()), Vec::<String>::new());
        let mut same_moment = old.clone();
        same_moment["creationTimestamp"] = json!("2025-01-01T01:00:00+01:00");
        assert_eq!(update(same_moment, old.clone()), Vec::<String>::new());
        let new = json!({"name": "b", "namespace": "m", "generation": 1,
            "creationTimestamp": "2025-01-02T00:00:00Z", "deletionTimestamp": "2025-01-02T00:00:00Z",
            "deletionGracePeriodSeconds": 3});
        assert_eq!(
            update(new, old),
            [
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.namespace: Invalid value: \"m\": field is immutable",
                "metadata.uid: Invalid value: \"\": field is immutable",
                "metadata.creationTimestamp: Invalid value: \"2025-01-02T00:00:00Z\": field is immutable",
                "metadata.deletionTimestamp: Invalid value: \"2025-01-02T00:00:00Z\": field is immutable",
                "metadata.deletionGracePeriodSeconds: Invalid value: 3: field is immutable",
            ]
        );
    }

    #[test]
    fn a_deletion_that_has_begun_takes_no_new_finalizers() {
        let old = json!({"name": "a", "resourceVersion": "1", "deletionTimestamp": "2025-01-01T00:00:00Z",
            "finalizers": ["a/b", "c/d"]});
        let mut new = old.clone();
        new["finalizers"] = json!(["c/d"]);
        assert_eq!(update(new.clone(), old.clone()), Vec::<String>::new());
        new["finalizers"] = json!(["y/z", "e/f"]);
        assert_eq!(
            update(new, old),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"e/f\", \"y/z\"}"
            ]
        );
    }
}
