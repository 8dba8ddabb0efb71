//! Ephemeral volumes: a claim that is made for the pod.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use sampan_api::quantity::Quantity;
use serde_json::Value;

use super::Volume;
use crate::validation::checks::{Errors, annotations, each, labels, one_of, required};
use crate::validation::resources::{quantity, quantity_value};
use crate::validation::selectors::label_selector;
use crate::validation::view::{list, map, member, non_zero, opt_text, part, text, texts, walk};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Fields of metadata that a template may not set: all but labels and annotations.
const NOT_IN_TEMPLATES: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

pub(super) fn ephemeral(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    let path = path.child("volumeClaimTemplate");
    match part(volume.source, "volumeClaimTemplate") {
        None => out.push(FieldError::required(&path, "")),
        Some(template) => {
            template_metadata(member(template, "metadata"), &path.child("metadata"), out);
            claim_spec(member(template, "spec"), &path.child("spec"), out);
        }
    }
}

fn template_metadata(metadata: &Value, path: &FieldPath, out: &mut Errors) {
    annotations(map(metadata, "annotations"), &path.child("annotations"), out);
    labels(map(metadata, "labels"), &path.child("labels"), out);
    for name in NOT_IN_TEMPLATES {
        if non_zero(metadata, name).is_some() {
            out.push(FieldError::forbidden(&path.child(name), "cannot be set"));
        }
    }
}

/// The spec of a `PersistentVolumeClaim`.
pub(crate) fn claim_spec(spec: &Value, path: &FieldPath, out: &mut Errors) {
    access_modes(spec, &path.child("accessModes"), out);
    label_selector(member(spec, "selector"), &path.child("selector"), out);
    storage_request(spec, &path.child("resources").key("storage"), out);
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, field);
        if !class.is_empty() {
            each(&path.child(field), class, names::is_dns1123_subdomain(class), out);
        }
    }
    if let Some(mode) = opt_text(spec, "volumeMode") {
        one_of(mode, VOLUME_MODES, &path.child("volumeMode"), out);
    }
    for field in ["dataSource", "dataSourceRef"] {
        if let Some(source) = part(spec, field) {
            data_source(source, &path.child(field), out);
        }
    }
    data_sources_agree(spec, path, out);
}

fn access_modes(spec: &Value, path: &FieldPath, out: &mut Errors) {
    if list(spec, "accessModes").is_empty() {
        out.push(FieldError::required(path, "at least 1 access mode is required"));
    }
    for mode in texts(spec, "accessModes") {
        one_of(mode, ACCESS_MODES, path, out);
    }
    let alone = texts(spec, "accessModes").any(|mode| mode == "ReadWriteOncePod");
    let shared =
        texts(spec, "accessModes").any(|mode| mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode));
    if alone && shared {
        out.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn storage_request(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let Some(value) = part(walk(spec, &["resources", "requests"]), "storage") else {
        out.push(FieldError::required(path, ""));
        return;
    };
    match quantity(value) {
        Some(amount) if amount <= Quantity::default() => {
            out.push(FieldError::invalid(path, amount.to_string(), "must be greater than zero"));
        }
        _ => quantity_value("storage", value, path, out),
    }
}

fn data_source(source: &Value, path: &FieldPath, out: &mut Errors) {
    required(source, "name", path, out);
    required(source, "kind", path, out);
    let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
    if !group.is_empty() {
        each(&path.child("apiGroup"), group, names::is_dns1123_subdomain(group), out);
    } else if kind != "PersistentVolumeClaim" {
        let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        out.push(FieldError::invalid(path, kind, text));
    }
    let namespace = text(source, "namespace");
    if !namespace.is_empty() {
        each(&path.child("namespace"), namespace, names::is_dns1123_label(namespace), out);
    }
}

fn data_sources_agree(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let (Some(source), Some(reference)) = (part(spec, "dataSource"), part(spec, "dataSourceRef")) else {
        return;
    };
    let shown = path.child("dataSource").to_string();
    if !text(reference, "namespace").is_empty() {
        let text = "may not be specified when dataSourceRef.namespace is specified";
        out.push(FieldError::invalid(path, shown, text));
    } else if ["apiGroup", "kind", "name"].iter().any(|name| text(source, name) != text(reference, name)) {
        out.push(FieldError::invalid(path, shown, "must match dataSourceRef"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn claims_say_how_much_and_who_may_use_it() {
        for (spec, expected) in [
            (
                json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}),
                vec![],
            ),
            (
                json!({}),
                vec![
                    "c.accessModes: Required value: at least 1 access mode is required",
                    "c.resources[storage]: Required value",
                ],
            ),
            (
                json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce", "X"], "volumeMode": "File",
                    "resources": {"requests": {"storage": "0"}}}),
                vec![
                    r#"c.accessModes: Unsupported value: "X": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#,
                    "c.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                    r#"c.resources[storage]: Invalid value: "0": must be greater than zero"#,
                    r#"c.volumeMode: Unsupported value: "File": supported values: "Block", "Filesystem""#,
                ],
            ),
            (
                json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}},
                    "dataSource": {"kind": "X", "name": "a"}, "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a"}}),
                vec![
                    r#"c.dataSource: Invalid value: "X": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#,
                    r#"c: Invalid value: "c.dataSource": must match dataSourceRef"#,
                ],
            ),
        ] {
            let mut out = Errors::new();
            claim_spec(&spec, &FieldPath::new("c"), &mut out);
            assert_eq!(texts(&out), expected, "{spec}");
        }
    }

    #[test]
    fn templates_of_claims_have_no_name() {
        let source = json!({"volumeClaimTemplate": {
            "metadata": {"name": "x", "labels": {"a": "b"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}});
        let mut out = Errors::new();
        ephemeral(&Volume { source: &source, pod: None }, &FieldPath::new("e"), &mut out);
        assert_eq!(texts(&out), ["e.volumeClaimTemplate.metadata.name: Forbidden: cannot be set"]);
    }
}
