//! Pods and pod templates: what is wrong with a new one, with a change, with a reported status.
//!
//! [`create`], [`update`] and [`status_update`] serve the pod's strategy; [`template`] serves every
//! kind that makes pods. Metadata beyond what is particular to pods is checked by the registry.

mod annotations;
mod containers;
mod diff;
mod dns;
mod env;
mod ephemeral;
mod handlers;
pub(crate) mod hints;
mod mounts;
pub(crate) mod refs;
pub(crate) mod scheduling;
mod security;
mod status;
mod update;
mod windows;

use std::collections::BTreeMap;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

pub(crate) use status::status_update;
pub(crate) use update::update;

use super::checks::{Errors, each, in_range, one_of, required_one_of};
use super::resources::{self, Level, resource_list};
use super::view::{flag, int, is_set, list, map, member, opt_text, part, text};
use super::volumes;
use crate::validation::checks::{dns_label, labels, qualified_name};

/// What the checks of containers want to know about their pod.
struct Scope<'a> {
    /// The volumes that are sound, by name.
    volumes: BTreeMap<&'a str, &'a Value>,
    /// The pod's resource claims.
    claims: Vec<&'a str>,
    /// How long the pod may take to stop, if it says so.
    grace: Option<i64>,
    /// The pod's restart policy.
    restart_policy: &'a str,
    /// Whether the pod has the host's users.
    host_users: bool,
    /// The operating system that the pod names, if it does.
    os: &'a str,
}

/// Calls back for each container of any sort, with its path.
pub(crate) fn each_container<'a>(
    spec: &'a Value,
    path: &FieldPath,
    mut visit: impl FnMut(&'a Value, &FieldPath),
) {
    for name in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in list(spec, name).iter().enumerate() {
            visit(container, &path.child(name).index(i));
        }
    }
}

/// What is wrong with a new pod.
pub(crate) fn create(pod: &Value) -> Errors {
    let mut out = Errors::new();
    let path = FieldPath::new("spec");
    let spec = member(pod, "spec");
    metadata_and_spec(pod, &mut out);
    if !list(spec, "ephemeralContainers").is_empty() {
        out.push(FieldError::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        let text = "cannot be set until all schedulingGates have been cleared";
        out.push(FieldError::forbidden(&path.child("nodeName"), text));
    }
    security::annotations_agree(member(pod, "metadata"), spec, &path, &mut out);
    out
}

/// What holds for a pod at any time.
fn metadata_and_spec(pod: &Value, out: &mut Errors) {
    let metadata = member(pod, "metadata");
    let spec = member(pod, "spec");
    let path = FieldPath::new("spec");
    annotations::of_pod(metadata, spec, &FieldPath::new("metadata").child("annotations"), out);
    pod_spec(spec, Some(pod), &path, out);
    if text(spec, "serviceAccountName").is_empty() {
        tokens_without_account(spec, &path, out);
    }
    for name in ["containers", "initContainers"] {
        for (i, container) in list(spec, name).iter().enumerate() {
            containers::image_has_no_padding(container, &path.child(name).index(i), out);
        }
    }
}

fn tokens_without_account(spec: &Value, path: &FieldPath, out: &mut Errors) {
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let sources = list(member(volume, "projected"), "sources");
        for (j, _) in sources.iter().enumerate().filter(|(_, s)| part(s, "serviceAccountToken").is_some()) {
            let path = path.child("volumes").index(i).child("projected").child("sources").index(j);
            let text = "must not be specified when serviceAccountName is not set";
            out.push(FieldError::forbidden(&path.child("serviceAccountToken"), text));
        }
    }
}

/// What is wrong with the template of a kind that makes pods: `spec.template` of a Deployment.
pub fn template(template: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut out = Errors::new();
    let metadata = member(template, "metadata");
    let spec = member(template, "spec");
    labels(map(metadata, "labels"), &path.child("labels"), &mut out);
    super::checks::annotations(map(metadata, "annotations"), &path.child("annotations"), &mut out);
    annotations::of_pod(metadata, spec, &path.child("annotations"), &mut out);
    pod_spec(spec, None, &path.child("spec"), &mut out);
    security::annotations_agree(metadata, spec, &path.child("spec"), &mut out);
    if !list(spec, "ephemeralContainers").is_empty() {
        let text = "ephemeral containers not allowed in pod template";
        out.push(FieldError::forbidden(&path.child("spec").child("ephemeralContainers"), text));
    }
    out
}

/// The spec of a pod, or of a template (then there is no pod yet).
fn pod_spec(spec: &Value, pod: Option<&Value>, path: &FieldPath, out: &mut Errors) {
    let grace = int(spec, "terminationGracePeriodSeconds");
    if grace.is_none() {
        out.push(FieldError::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let claims = list(spec, "resourceClaims");
    let scope = Scope {
        volumes: volumes::volumes(list(spec, "volumes"), pod, &path.child("volumes"), out),
        claims: claims.iter().map(|claim| text(claim, "name")).filter(|name| !name.is_empty()).collect(),
        grace,
        restart_policy: text(spec, "restartPolicy"),
        host_users: flag(spec, "hostUsers") != Some(false),
        os: text(member(spec, "os"), "name"),
    };
    resource_claims(claims, &path.child("resourceClaims"), out);
    containers::containers(spec, &scope, path, out);
    containers::init_containers(spec, &scope, path, out);
    ephemeral::containers(spec, &scope, &path.child("ephemeralContainers"), out);
    resources::of_pod(spec, &scope.claims, &path.child("resources"), out);
    host_ports(spec, pod.is_some(), path, out);
    policies(spec, path, out);
    placement(spec, path, out);
    identity(spec, path, out);
    remainder(spec, path, out);
}

fn policies(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let policy = |name: &str, known: &[&str], out: &mut Errors| {
        required_one_of(text(spec, name), known, &path.child(name), out);
    };
    policy("restartPolicy", &["Always", "OnFailure", "Never"], out);
    policy("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], out);
    labels(map(spec, "nodeSelector"), &path.child("nodeSelector"), out);
    security::of_pod(spec, path, out);
}

fn placement(spec: &Value, path: &FieldPath, out: &mut Errors) {
    scheduling::affinity(member(spec, "affinity"), &path.child("affinity"), out);
    dns::config(spec, &path.child("dnsConfig"), out);
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        qualified_name(text(gate, "conditionType"), &path, out);
    }
    scheduling::gates(list(spec, "schedulingGates"), &path.child("schedulingGates"), out);
    let path_of_spread = path.child("topologySpreadConstraints");
    scheduling::spread(list(spec, "topologySpreadConstraints"), &path_of_spread, out);
    windows::host_process(spec, path, out);
    security::host_users(spec, path, out);
}

/// Names in the spec, each in the form of what it names.
fn identity(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let subdomains = |names: &[&str], out: &mut Errors| {
        for name in names {
            let value = text(spec, name);
            if !value.is_empty() {
                each(&path.child(name), value, names::is_dns1123_subdomain(value), out);
            }
        }
    };
    subdomains(&["serviceAccountName", "nodeName"], out);
    if let Some(seconds) = int(spec, "activeDeadlineSeconds") {
        in_range(seconds, 1, i64::from(i32::MAX), &path.child("activeDeadlineSeconds"), out);
    }
    for name in ["hostname", "subdomain"] {
        let value = text(spec, name);
        if !value.is_empty() {
            dns_label(value, &path.child(name), out);
        }
    }
    hostname_override(spec, path, out);
    scheduling::tolerations(list(spec, "tolerations"), &path.child("tolerations"), out);
    dns::host_aliases(list(spec, "hostAliases"), &path.child("hostAliases"), out);
    subdomains(&["priorityClassName"], out);
    if let Some(class) = opt_text(spec, "runtimeClassName") {
        each(&path.child("runtimeClassName"), class, names::is_dns1123_subdomain(class), out);
    }
}

fn hostname_override(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let Some(name) = opt_text(spec, "hostnameOverride") else { return };
    let path = path.child("hostnameOverride");
    if is_set(spec, "hostNetwork") {
        out.push(FieldError::forbidden(&path, "may not be specified when hostNetwork is true"));
    }
    if is_set(spec, "setHostnameAsFQDN") {
        out.push(FieldError::forbidden(&path, "may not be specified when setHostnameAsFQDN is true"));
    }
    each(&path, name, names::is_dns1123_subdomain(name), out);
    if name.len() > 64 {
        out.push(FieldError::too_long(&path, 64));
    }
}

fn remainder(spec: &Value, path: &FieldPath, out: &mut Errors) {
    if let Some(policy) = opt_text(spec, "preemptionPolicy") {
        let path = path.child("preemptionPolicy");
        required_one_of(policy, &["PreemptLowerPriority", "Never"], &path, out);
    }
    resource_list(map(spec, "overhead"), Level::Container, &path.child("overhead").child("limits"), out);
    windows::os(spec, path, out);
}

fn resource_claims(claims: &[Value], path: &FieldPath, out: &mut Errors) {
    let mut seen = Vec::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            out.push(FieldError::required(&path.child("name"), ""));
        } else if seen.contains(&name) {
            out.push(FieldError::duplicate(&path.child("name"), name));
        } else {
            dns_label(name, &path.child("name"), out);
            seen.push(name);
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|source| opt_text(claim, source).is_some()).count() {
            0 => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                out.push(FieldError::invalid(&path, claim.clone(), text));
            }
            1 => {}
            _ => {
                let text =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                out.push(FieldError::invalid(&path, claim.clone(), text));
            }
        }
        for source in sources {
            if let Some(named) = opt_text(claim, source) {
                each(&path.child(source), named, names::is_dns1123_subdomain(named), out);
            }
        }
    }
}

/// On the host's network a port of the pod is a port of the host. A template may leave it open.
fn host_ports(spec: &Value, of_pod: bool, path: &FieldPath, out: &mut Errors) {
    if !is_set(spec, "hostNetwork") {
        return;
    }
    for (i, container) in list(spec, "containers").iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let host = int(port, "hostPort").unwrap_or_default();
            if (of_pod || host != 0) && host != int(port, "containerPort").unwrap_or_default() {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                let text = "must match `containerPort` when `hostNetwork` is true";
                out.push(FieldError::invalid(&path, host, text));
            }
        }
    }
}

/// What is wrong with the body of `pods/NAME/binding`.
pub fn binding(binding: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    let target = member(binding, "target");
    let path = FieldPath::new("target");
    let kind = text(target, "kind");
    if !kind.is_empty() && kind != "Node" {
        one_of(kind, &["Node", "<empty>"], &path.child("kind"), &mut out);
    }
    if text(target, "name").is_empty() {
        out.push(FieldError::required(&path.child("name"), ""));
    }
    out
}

#[cfg(test)]
mod tests;
