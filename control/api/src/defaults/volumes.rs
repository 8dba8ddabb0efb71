//! Defaults of volumes.

use serde_json::Value;

use super::fill::{self, Object, child, each, text};
use super::{container, image};

/// Files of volumes can be read by all and written by their owner: 0644.
const FILE_MODE: i64 = 0o644;

/// Defaults of one volume.
pub(super) fn volume(volume: &mut Object) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir".to_owned(), Value::Object(Object::new()));
    }
    files(volume);
    if let Some(path) = child(volume, "hostPath") {
        fill::absent(path, "type", "");
    }
    if let Some(source) = child(volume, "image") {
        let policy = if image::always_pulled(text(source, "reference")) { "Always" } else { "IfNotPresent" };
        fill::zero(source, "pullPolicy", policy);
    }
    if let Some(claim) = child(volume, "ephemeral")
        .and_then(|ephemeral| child(ephemeral, "volumeClaimTemplate"))
        .and_then(|template| child(template, "spec"))
    {
        fill::absent(claim, "volumeMode", "Filesystem");
    }
    devices(volume);
}

/// Volumes that are files made by the kubelet.
fn files(volume: &mut Object) {
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source) {
            fill::absent(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(downward) = child(volume, "downwardAPI") {
        each(downward, "items").for_each(container::selectors);
    }
    if let Some(projected) = child(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(downward) = child(source, "downwardAPI") {
                each(downward, "items").for_each(container::selectors);
            }
            if let Some(token) = child(source, "serviceAccountToken") {
                fill::absent(token, "expirationSeconds", 3600);
            }
        }
    }
}

/// Volumes of drivers that Kubernetes once had built in; their fields are still defaulted.
fn devices(volume: &mut Object) {
    if let Some(iscsi) = child(volume, "iscsi") {
        fill::zero(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child(volume, "rbd") {
        fill::zero(rbd, "pool", "rbd");
        fill::zero(rbd, "user", "admin");
        fill::zero(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = child(volume, "azureDisk") {
        fill::absent(disk, "cachingMode", "ReadWrite");
        fill::absent(disk, "kind", "Shared");
        fill::absent(disk, "fsType", "ext4");
        fill::absent(disk, "readOnly", false);
    }
    if let Some(scale) = child(volume, "scaleIO") {
        fill::zero(scale, "storageMode", "ThinProvisioned");
        fill::zero(scale, "fsType", "xfs");
    }
}
