//! Volumes made of files that the node or the API server has: empty directories, host paths,
//! ConfigMaps, Secrets, the pod's own metadata, images.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::quantity::Quantity;
use serde_json::Value;

use super::Volume;
use crate::validation::checks::{
    Errors, descending_path, file_mode, no_backsteps, non_reserved_path, one_of, required, required_one_of,
};
use crate::validation::pod::refs::{self, Use};
use crate::validation::resources::quantity_of;
use crate::validation::view::{list, opt_text, part, text};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub(super) fn empty_dir(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    if quantity_of(volume.source, "sizeLimit").is_some_and(|limit| limit < Quantity::default()) {
        let text = "SizeLimit field must be a valid resource quantity";
        out.push(FieldError::forbidden(&path.child("sizeLimit"), text));
    }
}

pub(super) fn host_path(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    let on_host = text(volume.source, "path");
    if on_host.is_empty() {
        out.push(FieldError::required(&path.child("path"), ""));
        return;
    }
    no_backsteps(on_host, &path.child("path"), out);
    if let Some(kind) = opt_text(volume.source, "type") {
        one_of(kind, HOST_PATH_TYPES, &path.child("type"), out);
    }
}

pub(super) fn git_repo(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "repository", path, out);
    descending_path(text(volume.source, "directory"), &path.child("directory"), out);
}

pub(super) fn secret(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "secretName", path, out);
    keyed_files(volume.source, path, out);
}

pub(super) fn config_map(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "name", path, out);
    keyed_files(volume.source, path, out);
}

fn keyed_files(source: &Value, path: &FieldPath, out: &mut Errors) {
    file_mode(source, "defaultMode", path, out);
    for (i, item) in list(source, "items").iter().enumerate() {
        key_to_path(item, &path.child("items").index(i), out);
    }
}

/// One key and the file that it becomes.
pub(super) fn key_to_path(item: &Value, path: &FieldPath, out: &mut Errors) {
    required(item, "key", path, out);
    required(item, "path", path, out);
    non_reserved_path(text(item, "path"), &path.child("path"), out);
    file_mode(item, "mode", path, out);
}

pub(super) fn downward_api(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    file_mode(volume.source, "defaultMode", path, out);
    for file in list(volume.source, "items") {
        downward_file(file, path, out);
    }
}

/// One file about the pod itself. Complaints name the volume, not the file: so does Kubernetes.
pub(super) fn downward_file(file: &Value, path: &FieldPath, out: &mut Errors) {
    required(file, "path", path, out);
    non_reserved_path(text(file, "path"), &path.child("path"), out);
    match (part(file, "fieldRef"), part(file, "resourceFieldRef")) {
        (Some(field), resource) => {
            refs::field(field, Use::Volume, &path.child("fieldRef"), out);
            if resource.is_some() {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                out.push(FieldError::invalid(path, "resource", text));
            }
        }
        (None, Some(resource)) => refs::resource(resource, Use::Volume, &path.child("resourceFieldRef"), out),
        (None, None) => {
            out.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    file_mode(file, "mode", path, out);
}

pub(super) fn image(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    if volume.pod.is_some() {
        required(volume.source, "reference", path, out);
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    required_one_of(text(volume.source, "pullPolicy"), &policies, &path.child("pullPolicy"), out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(check: super::super::Check, source: &Value) -> Vec<String> {
        let pod = json!({});
        let mut out = Errors::new();
        check(&Volume { source, pod: Some(&pod) }, &FieldPath::new("s"), &mut out);
        texts(&out)
    }

    #[test]
    fn directories_of_the_node() {
        assert!(found(empty_dir, &json!({"sizeLimit": "1Gi", "medium": "Memory"})).is_empty());
        assert_eq!(
            found(empty_dir, &json!({"sizeLimit": "-1"})),
            ["s.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"]
        );
        for (source, expected) in [
            (json!({"path": "/a", "type": ""}), vec![]),
            (json!({"path": "/a", "type": "Socket"}), vec![]),
            (json!({"path": ""}), vec!["s.path: Required value"]),
            (json!({"path": "/a/../b"}), vec![r#"s.path: Invalid value: "/a/../b": must not contain '..'"#]),
            (
                json!({"path": "/a", "type": "Pipe"}),
                vec![
                    r#"s.type: Unsupported value: "Pipe": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket""#,
                ],
            ),
        ] {
            assert_eq!(found(host_path, &source), expected, "{source}");
        }
    }

    #[test]
    fn files_from_keys() {
        for (source, expected) in [
            (json!({"secretName": "s", "items": [{"key": "k", "path": "a/b", "mode": 0o400}]}), vec![]),
            (json!({"items": []}), vec!["s.secretName: Required value"]),
            (
                json!({"secretName": "s", "defaultMode": -1, "items": [{"path": "../x", "mode": 4096}]}),
                vec![
                    "s.defaultMode: Invalid value: -1: must be a number between 0 and 0777 (octal), both inclusive",
                    "s.items[0].key: Required value",
                    r#"s.items[0].path: Invalid value: "../x": must not contain '..'"#,
                    "s.items[0].mode: Invalid value: 4096: must be a number between 0 and 0777 (octal), both inclusive",
                ],
            ),
        ] {
            assert_eq!(found(secret, &source), expected, "{source}");
        }
        assert_eq!(found(config_map, &json!({})), ["s.name: Required value"]);
    }

    #[test]
    fn files_about_the_pod() {
        let good = json!({"items": [
            {"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
        ]});
        assert!(found(downward_api, &good).is_empty(), "{:?}", found(downward_api, &good));
        assert_eq!(
            found(downward_api, &json!({"items": [{"path": "a"}]})),
            ["s: Required value: one of fieldRef and resourceFieldRef is required"]
        );
        let both = json!({"items": [{"path": "a",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"},
            "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]});
        assert_eq!(
            found(downward_api, &both),
            [
                r#"s: Invalid value: "resource": fieldRef and resourceFieldRef can not be specified simultaneously"#
            ]
        );
    }

    #[test]
    fn images() {
        assert!(found(image, &json!({"reference": "r", "pullPolicy": "Always"})).is_empty());
        assert_eq!(found(image, &json!({})), ["s.reference: Required value", "s.pullPolicy: Required value"]);
    }
}
