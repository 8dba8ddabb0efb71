//! Defaults of containers of all three sorts.

use super::fill::{self, Object, child, each, text};
use super::image;

/// Defaults of one container.
pub(super) fn container(container: &mut Object) {
    let policy = if image::always_pulled(text(container, "image")) { "Always" } else { "IfNotPresent" };
    fill::zero(container, "imagePullPolicy", policy);
    fill::zero(container, "terminationMessagePath", "/dev/termination-log");
    fill::zero(container, "terminationMessagePolicy", "File");
    fill::absent(container, "resources", Object::new());
    for port in each(container, "ports") {
        fill::zero(port, "protocol", "TCP");
    }
    for source in each(container, "env").filter_map(|variable| child(variable, "valueFrom")) {
        selectors(source);
        if let Some(file) = child(source, "fileKeyRef") {
            fill::absent(file, "optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(check) = child(container, name) {
            probe(check);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = child(lifecycle, hook) {
                http_get(handler);
            }
        }
    }
}

/// Selectors of a pod's own fields and resources, in variables and in downward API volumes.
pub(super) fn selectors(source: &mut Object) {
    if let Some(field) = child(source, "fieldRef") {
        fill::zero(field, "apiVersion", "v1");
    }
    if let Some(resource) = child(source, "resourceFieldRef") {
        fill::zero(resource, "divisor", "0");
    }
}

fn probe(probe: &mut Object) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        fill::zero(probe, field, value);
    }
    http_get(probe);
    if let Some(grpc) = child(probe, "grpc") {
        fill::absent(grpc, "service", "");
    }
}

fn http_get(handler: &mut Object) {
    if let Some(get) = child(handler, "httpGet") {
        fill::zero(get, "path", "/");
        fill::zero(get, "scheme", "HTTP");
    }
}
