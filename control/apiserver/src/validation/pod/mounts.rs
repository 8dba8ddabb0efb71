//! Where containers mount the pod's volumes.

use std::collections::{BTreeMap, BTreeSet};

use sampan_api::field::{FieldError, FieldPath};
use serde_json::Value;

use crate::validation::checks::{Errors, descending_path, one_of, required};
use crate::validation::view::{is_set, list, opt_text, part, text};

const PROPAGATION: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const RECURSIVE_READ_ONLY: &[&str] = &["Disabled", "Enabled", "IfPossible"];

/// A container's `volumeMounts` and `volumeDevices`, against the volumes that are sound.
pub(super) fn mounts(
    container: &Value,
    volumes: &BTreeMap<&str, &Value>,
    path: &FieldPath,
    out: &mut Errors,
) {
    let privileged = part(container, "securityContext").is_some_and(|context| is_set(context, "privileged"));
    let devices = list(container, "volumeDevices");
    let mut seen = BTreeSet::new();
    let all = path.child("volumeMounts");
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = all.index(i);
        named(mount, volumes, &path, out);
        let on = text(mount, "mountPath");
        required(mount, "mountPath", &path, out);
        if !seen.insert(on) {
            out.push(FieldError::invalid(&path.child("mountPath"), on, "must be unique"));
        }
        beside_devices(mount, devices, &path, out);
        sub_paths(mount, &all, &path, out);
        propagation(mount, privileged, &all, out);
        recursive_read_only(mount, &all.child("recursiveReadOnly"), out);
    }
    block_devices(container, volumes, &path.child("volumeDevices"), out);
}

fn named(mount: &Value, volumes: &BTreeMap<&str, &Value>, path: &FieldPath, out: &mut Errors) {
    let name = text(mount, "name");
    required(mount, "name", path, out);
    if !volumes.contains_key(name) {
        out.push(FieldError::not_found(&path.child("name"), name));
    }
}

fn beside_devices(mount: &Value, devices: &[Value], path: &FieldPath, out: &mut Errors) {
    let (name, on) = (text(mount, "name"), text(mount, "mountPath"));
    if devices.iter().any(|device| text(device, "name") == name) {
        let text = "must not already exist in volumeDevices";
        out.push(FieldError::invalid(&path.child("name"), name, text));
    }
    if devices.iter().any(|device| text(device, "devicePath") == on) {
        let text = "must not already exist as a path in volumeDevices";
        out.push(FieldError::invalid(&path.child("mountPath"), on, text));
    }
}

/// Complaints about the form of a path name the list of mounts: so does Kubernetes.
fn sub_paths(mount: &Value, all: &FieldPath, path: &FieldPath, out: &mut Errors) {
    let (plain, expanded) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !plain.is_empty() {
        descending_path(plain, &all.child("subPath"), out);
    }
    if !expanded.is_empty() {
        if !plain.is_empty() {
            let text = "subPathExpr and subPath are mutually exclusive";
            out.push(FieldError::invalid(&path.child("subPathExpr"), expanded, text));
        }
        descending_path(expanded, &all.child("subPathExpr"), out);
    }
}

fn propagation(mount: &Value, privileged: bool, all: &FieldPath, out: &mut Errors) {
    let Some(mode) = opt_text(mount, "mountPropagation") else { return };
    let path = all.child("mountPropagation");
    one_of(mode, PROPAGATION, &path, out);
    if mode == "Bidirectional" && !privileged {
        let text = "Bidirectional mount propagation is available only to privileged containers";
        out.push(FieldError::forbidden(&path, text));
    }
}

fn recursive_read_only(mount: &Value, path: &FieldPath, out: &mut Errors) {
    let Some(mode) = opt_text(mount, "recursiveReadOnly") else { return };
    one_of(mode, RECURSIVE_READ_ONLY, path, out);
    if !matches!(mode, "Enabled" | "IfPossible") {
        return;
    }
    if !is_set(mount, "readOnly") {
        out.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
    }
    if opt_text(mount, "mountPropagation").is_some_and(|mode| mode != "None") {
        let text = "may only be specified when mountPropagation is None or not specified";
        out.push(FieldError::forbidden(path, text));
    }
}

fn block_devices(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &FieldPath, out: &mut Errors) {
    let mounts = list(container, "volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in list(container, "volumeDevices").iter().enumerate() {
        let path = path.index(i);
        let (name, at) = (text(device, "name"), text(device, "devicePath"));
        let (name_path, at_path) = (path.child("name"), path.child("devicePath"));
        required(device, "name", &path, out);
        if names.contains(name) {
            out.push(FieldError::invalid(&name_path, name, "must be unique"));
        }
        match volumes.get(name) {
            None => out.push(FieldError::not_found(&name_path, name)),
            Some(volume)
                if part(volume, "persistentVolumeClaim").is_none() && part(volume, "ephemeral").is_none() =>
            {
                let text =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                out.push(FieldError::invalid(&name_path, name, text));
            }
            Some(_) => {}
        }
        required(device, "devicePath", &path, out);
        if paths.contains(at) {
            out.push(FieldError::invalid(&at_path, at, "must be unique"));
        }
        if at.split('/').any(|element| element == "..") {
            out.push(FieldError::invalid(&at_path, at, "can not contain backsteps ('..')"));
        } else {
            paths.insert(at);
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            out.push(FieldError::invalid(&name_path, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == at) {
            let text = "must not already exist as a path in volumeMounts";
            out.push(FieldError::invalid(&at_path, at, text));
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(container: &Value) -> Vec<String> {
        let (plain, claim) = (json!({"emptyDir": {}}), json!({"persistentVolumeClaim": {}}));
        let volumes = BTreeMap::from([("v", &plain), ("pvc", &claim)]);
        let mut out = Errors::new();
        mounts(container, &volumes, &FieldPath::new("c"), &mut out);
        texts(&out)
    }

    #[test]
    fn mounts_name_a_volume_and_a_place_of_their_own() {
        for (mounts, expected) in [
            (json!([{"name": "v", "mountPath": "/a", "subPath": "b/c"}]), vec![]),
            (json!([{"name": "x", "mountPath": "/a"}]), vec![r#"c.volumeMounts[0].name: Not found: "x""#]),
            (json!([{"name": "v"}]), vec!["c.volumeMounts[0].mountPath: Required value"]),
            (
                json!([{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]),
                vec![r#"c.volumeMounts[1].mountPath: Invalid value: "/a": must be unique"#],
            ),
            (
                json!([{"name": "v", "mountPath": "/a", "subPath": "/b", "subPathExpr": "../c"}]),
                vec![
                    r#"c.volumeMounts.subPath: Invalid value: "/b": must be a relative path"#,
                    r#"c.volumeMounts[0].subPathExpr: Invalid value: "../c": subPathExpr and subPath are mutually exclusive"#,
                    r#"c.volumeMounts.subPathExpr: Invalid value: "../c": must not contain '..'"#,
                ],
            ),
            (
                json!([{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]),
                vec![
                    "c.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
            (
                json!([{"name": "v", "mountPath": "/a", "mountPropagation": "Up"}]),
                vec![
                    r#"c.volumeMounts.mountPropagation: Unsupported value: "Up": supported values: "Bidirectional", "HostToContainer", "None""#,
                ],
            ),
            (
                json!([{"name": "v", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]),
                vec![
                    "c.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
                ],
            ),
        ] {
            assert_eq!(found(&json!({"volumeMounts": mounts})), expected, "{mounts}");
        }
        assert!(
            found(&json!({"securityContext": {"privileged": true},
                "volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]}))
            .is_empty()
        );
    }

    #[test]
    fn devices_are_claims_and_apart_from_mounts() {
        for (container, expected) in [
            (json!({"volumeDevices": [{"name": "pvc", "devicePath": "/dev/a"}]}), vec![]),
            (
                json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/../a"}]}),
                vec![
                    r#"c.volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"#,
                    r#"c.volumeDevices[0].devicePath: Invalid value: "/dev/../a": can not contain backsteps ('..')"#,
                ],
            ),
            (
                json!({"volumeDevices": [{"name": "pvc", "devicePath": "/a"}], "volumeMounts": [{"name": "pvc", "mountPath": "/a"}]}),
                vec![
                    r#"c.volumeMounts[0].name: Invalid value: "pvc": must not already exist in volumeDevices"#,
                    r#"c.volumeMounts[0].mountPath: Invalid value: "/a": must not already exist as a path in volumeDevices"#,
                    r#"c.volumeDevices[0].name: Invalid value: "pvc": must not already exist in volumeMounts"#,
                    r#"c.volumeDevices[0].devicePath: Invalid value: "/a": must not already exist as a path in volumeMounts"#,
                ],
            ),
        ] {
            assert_eq!(found(&container), expected, "{container}");
        }
    }
}
