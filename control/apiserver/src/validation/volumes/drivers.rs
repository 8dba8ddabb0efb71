//! Volumes of one product each, from the time before CSI. Most of them no Kubernetes mounts any
//! more; their API stands.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::Volume;
use crate::validation::checks::{Errors, dns_label, one_of, required};
use crate::validation::view::{int, list, map, opt_text, part, text};

fn all_required(fields: &[&str], source: &Value, path: &FieldPath, out: &mut Errors) {
    for field in fields {
        required(source, field, path, out);
    }
}

fn partition(source: &Value, path: &FieldPath, out: &mut Errors) {
    let number = int(source, "partition").unwrap_or_default();
    if !(0..=255).contains(&number) {
        // Nought is taken although the text says otherwise: so does Kubernetes.
        let text = names::inclusive_range_error(1, 255);
        out.push(FieldError::invalid(&path.child("partition"), number, text));
    }
}

fn named_secret(source: &Value, path: &FieldPath, out: &mut Errors) {
    if let Some(reference) = part(source, "secretRef") {
        required(reference, "name", &path.child("secretRef"), out);
    }
}

pub(super) fn gce_persistent_disk(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "pdName", path, out);
    partition(volume.source, path, out);
}

pub(super) fn aws_block_store(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "volumeID", path, out);
    partition(volume.source, path, out);
}

pub(super) fn glusterfs(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    all_required(&["endpoints", "path"], volume.source, path, out);
}

pub(super) fn flocker(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    let (name, uuid) = (text(volume.source, "datasetName"), text(volume.source, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        out.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let text = "datasetName and datasetUUID can not be specified simultaneously";
        out.push(FieldError::invalid(path, "resource", text));
    }
    if name.contains('/') {
        out.push(FieldError::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

fn monitors(source: &Value, path: &FieldPath, out: &mut Errors) {
    if list(source, "monitors").is_empty() {
        out.push(FieldError::required(&path.child("monitors"), ""));
    }
}

pub(super) fn rbd(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    monitors(volume.source, path, out);
    required(volume.source, "image", path, out);
}

pub(super) fn cephfs(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    monitors(volume.source, path, out);
}

pub(super) fn cinder(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "volumeID", path, out);
    named_secret(volume.source, path, out);
}

pub(super) fn quobyte(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(volume.source, "registry");
    if registry.is_empty() {
        out.push(FieldError::required(&path.child("registry"), PAIRS));
    } else if text(volume.source, "tenant").len() >= 65 {
        let text = "must be a UUID and may not exceed a length of 64 characters";
        out.push(FieldError::required(&path.child("tenant"), text));
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            out.push(FieldError::invalid(&path.child("registry"), registry, PAIRS));
        }
    }
    required(volume.source, "volume", path, out);
}

/// `host:port`, `[v6]:port`; either side may be empty.
fn is_host_and_port(pair: &str) -> bool {
    match pair.rsplit_once(':') {
        None => false,
        Some((host, _)) => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => !inner.contains(['[', ']']),
            None => !host.contains([':', '[', ']']),
        },
    }
}

pub(super) fn flex(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "driver", path, out);
    for key in map(volume.source, "options").keys() {
        let domain = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let text = "kubernetes.io and k8s.io namespaces are reserved";
            out.push(FieldError::invalid(&path.child("options").key(key), key.as_str(), text));
        }
    }
}

pub(super) fn azure_file(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    all_required(&["secretName", "shareName"], volume.source, path, out);
}

pub(super) fn azure_disk(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let source = volume.source;
    all_required(&["diskName", "diskURI"], source, path, out);
    if let Some(mode) = opt_text(source, "cachingMode") {
        one_of(mode, &["None", "ReadOnly", "ReadWrite"], &path.child("cachingMode"), out);
    }
    let Some(kind) = opt_text(source, "kind") else { return };
    one_of(kind, &["Dedicated", "Managed", "Shared"], &path.child("kind"), out);
    let uri = text(source, "diskURI");
    let (prefix, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !uri.starts_with(prefix) {
        out.push(FieldError::not_supported(&path.child("diskURI"), uri, &[form]));
    }
}

pub(super) fn vsphere(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "volumePath", path, out);
}

pub(super) fn photon(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "pdID", path, out);
}

pub(super) fn portworx(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "volumeID", path, out);
}

pub(super) fn storage_os(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "volumeName", path, out);
    for field in ["volumeName", "volumeNamespace"] {
        let name = text(volume.source, field);
        if !name.is_empty() {
            dns_label(name, &path.child(field), out);
        }
    }
    named_secret(volume.source, path, out);
}

pub(super) fn scale_io(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    all_required(&["gateway", "system", "volumeName"], volume.source, path, out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn drivers_say_what_they_miss() {
        let cases: &[(super::super::Check, Value, &[&str])] = &[
            (gce_persistent_disk, json!({"pdName": "p", "partition": 0}), &[]),
            (
                gce_persistent_disk,
                json!({"partition": 256}),
                &[
                    "s.pdName: Required value",
                    "s.partition: Invalid value: 256: must be between 1 and 255, inclusive",
                ],
            ),
            (flocker, json!({}), &["s: Required value: one of datasetName and datasetUUID is required"]),
            (
                flocker,
                json!({"datasetName": "a/b"}),
                &[r#"s.datasetName: Invalid value: "a/b": must not contain '/'"#],
            ),
            (quobyte, json!({"registry": "h:1,[::1]:2", "volume": "v"}), &[]),
            (
                quobyte,
                json!({"registry": "h", "volume": "v"}),
                &[
                    r#"s.registry: Invalid value: "h": must be a host:port pair or multiple pairs separated by commas"#,
                ],
            ),
            (
                flex,
                json!({"driver": "d", "options": {"A.Kubernetes.io/b": "", "ok": ""}}),
                &[
                    r#"s.options[A.Kubernetes.io/b]: Invalid value: "A.Kubernetes.io/b": kubernetes.io and k8s.io namespaces are reserved"#,
                ],
            ),
            (
                azure_disk,
                json!({"diskName": "n", "diskURI": "x", "kind": "Managed"}),
                &[
                    r#"s.diskURI: Unsupported value: "x": supported values: "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}""#,
                ],
            ),
            (rbd, json!({}), &["s.monitors: Required value", "s.image: Required value"]),
            (cinder, json!({"volumeID": "v", "secretRef": {}}), &["s.secretRef.name: Required value"]),
            (
                scale_io,
                json!({"gateway": "g"}),
                &["s.system: Required value", "s.volumeName: Required value"],
            ),
        ];
        for (check, source, expected) in cases {
            let mut out = Errors::new();
            check(&Volume { source, pod: None }, &FieldPath::new("s"), &mut out);
            assert_eq!(texts(&out), *expected, "{source}");
        }
    }
}
