//! Defaults of pods and of the templates from which pods are made.

use serde_json::Value;

use super::fill::{self, Object, child, each, made};
use super::{container, kinds, resources, volumes};

/// Lists of containers in a pod's spec.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a pod: those of its spec, and those that templates do not get.
pub(super) fn pod(object: &mut Object) {
    if let Some(spec) = made(object, "spec") {
        resources::requests_from_limits(spec);
        resources::pod_level(spec);
        fill::absent(spec, "enableServiceLinks", true);
        if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
            host_ports(spec);
        }
        pod_spec(spec);
    }
    if let Some(status) = child(object, "status") {
        kinds::pod_addresses(status);
    }
}

/// Defaults of a pod template (of a Deployment, a Job, …).
pub fn pod_template(template: &mut Value) {
    if let Some(spec) = template.as_object_mut().and_then(|template| made(template, "spec")) {
        pod_spec(spec);
    }
}

/// What the specs of pods and of templates have in common.
fn pod_spec(spec: &mut Object) {
    fill::zero(spec, "dnsPolicy", "ClusterFirst");
    fill::zero(spec, "restartPolicy", "Always");
    fill::absent(spec, "securityContext", Object::new());
    fill::absent(spec, "terminationGracePeriodSeconds", 30);
    fill::zero(spec, "schedulerName", "default-scheduler");
    alias(spec);
    for volume in each(spec, "volumes") {
        volumes::volume(volume);
    }
    for list in CONTAINERS {
        for container in each(spec, list) {
            container::container(container);
        }
    }
}

/// A pod's service account stands in its spec under two names; the older one follows. To be called
/// again by whoever sets `serviceAccountName` later (admission does).
pub fn service_account_alias(pod: &mut Value) {
    if let Some(spec) = pod.as_object_mut().and_then(|pod| child(pod, "spec")) {
        alias(spec);
    }
}

fn alias(spec: &mut Object) {
    let (name, old) = ("serviceAccountName", "serviceAccount");
    let account = match fill::text(spec, name) {
        "" => fill::text(spec, old).to_owned(),
        account => account.to_owned(),
    };
    if account.is_empty() {
        spec.remove(old);
    } else {
        spec.insert(name.to_owned(), account.clone().into());
        spec.insert(old.to_owned(), account.into());
    }
}

/// In the node's network a container's port is the node's port.
fn host_ports(spec: &mut Object) {
    for list in ["initContainers", "containers"] {
        for port in each(spec, list).flat_map(|container| each(container, "ports")) {
            if let Some(number) = port.get("containerPort").cloned() {
                fill::zero(port, "hostPort", number);
            }
        }
    }
}
