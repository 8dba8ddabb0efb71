//! Containers and init containers.

use std::collections::BTreeSet;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::{Scope, env, handlers, mounts, security};
use crate::validation::checks::{Errors, dns_label, each, one_of, required, required_one_of};
use crate::validation::resources::{self, Level};
use crate::validation::view::{int, list, member, opt_text, part, text};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// `spec.containers`.
pub(super) fn containers(spec: &Value, scope: &Scope<'_>, path: &FieldPath, out: &mut Errors) {
    let path = path.child("containers");
    let containers = list(spec, "containers");
    if containers.is_empty() {
        out.push(FieldError::required(&path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(container, scope, &path, out);
        unique_name(container, &mut seen, &path, out);
        handlers::handlers(container, scope.grace, &path, out);
        restart_policy(container, &path, out);
    }
    let mut ports = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        host_port_conflicts(container, &mut ports, &path.index(i), out);
    }
}

/// `spec.initContainers`.
pub(super) fn init_containers(spec: &Value, scope: &Scope<'_>, path: &FieldPath, out: &mut Errors) {
    let path = path.child("initContainers");
    let mut seen: BTreeSet<&str> = list(spec, "containers").iter().map(|c| text(c, "name")).collect();
    for (i, container) in list(spec, "initContainers").iter().enumerate() {
        let at = path.index(i);
        common(container, scope, &at, out);
        restart_policy(container, &at, out);
        unique_name(container, &mut seen, &at, out);
        // They run one by one, so each has the ports of the host to itself. Complaints name the
        // first one whichever it is: so does Kubernetes.
        host_port_conflicts(container, &mut BTreeSet::new(), &path.index(0), out);
        if opt_text(container, "restartPolicy") == Some("Always") {
            handlers::handlers(container, scope.grace, &at, out);
            if !list(container, "restartPolicyRules").is_empty() {
                let text =
                    "restartPolicyRules are not allowed for init containers with restart policy Always";
                out.push(FieldError::forbidden(&at.child("restartPolicyRules"), text));
            }
            continue;
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if part(container, name).is_some() {
                let text = "may not be set for init containers without restartPolicy=Always";
                out.push(FieldError::forbidden(&at.child(name), text));
            }
        }
    }
}

fn unique_name<'a>(container: &'a Value, seen: &mut BTreeSet<&'a str>, path: &FieldPath, out: &mut Errors) {
    let name = text(container, "name");
    if !seen.insert(name) {
        out.push(FieldError::duplicate(&path.child("name"), name));
    }
}

/// What holds for containers of every sort.
pub(super) fn common(container: &Value, scope: &Scope<'_>, path: &FieldPath, out: &mut Errors) {
    let name = text(container, "name");
    if name.is_empty() {
        out.push(FieldError::required(&path.child("name"), ""));
    } else {
        dns_label(name, &path.child("name"), out);
    }
    required(container, "image", path, out);
    let messages = text(container, "terminationMessagePolicy");
    required_one_of(messages, MESSAGE_POLICIES, &path.child("terminationMessagePolicy"), out);
    ports(list(container, "ports"), &path.child("ports"), out);
    env::environment(container, path, out);
    mounts::mounts(container, &scope.volumes, path, out);
    required_one_of(text(container, "imagePullPolicy"), PULL_POLICIES, &path.child("imagePullPolicy"), out);
    let requirements = member(container, "resources");
    resources::requirements(requirements, Level::Container, &scope.claims, &path.child("resources"), out);
    resize_policy(container, scope.restart_policy, &path.child("resizePolicy"), out);
    security::of_container(container, scope.host_users, path, out);
    handlers::stop_signal(container, scope.os, path, out);
}

/// The image's name without blanks around it; templates may have them, as placeholders.
pub(super) fn image_has_no_padding(container: &Value, path: &FieldPath, out: &mut Errors) {
    let image = text(container, "image");
    if image.trim().len() != image.len() {
        let text = "must not have leading or trailing whitespace";
        out.push(FieldError::invalid(&path.child("image"), image, text));
    }
}

fn ports(ports: &[Value], path: &FieldPath, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let complaints = names::is_port_name(name);
            if !complaints.is_empty() {
                each(&path.child("name"), name, complaints, out);
            } else if !seen.insert(name) {
                out.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        if int(port, "containerPort").unwrap_or_default() == 0 {
            out.push(FieldError::required(&path.child("containerPort"), ""));
        }
        for field in ["containerPort", "hostPort"] {
            let number = int(port, field).unwrap_or_default();
            if number != 0 {
                for text in names::is_port_number(number) {
                    out.push(FieldError::invalid(&path.child(field), number, text));
                }
            }
        }
        required_one_of(text(port, "protocol"), PROTOCOLS, &path.child("protocol"), out);
    }
}

fn host_port_conflicts(container: &Value, taken: &mut BTreeSet<String>, path: &FieldPath, out: &mut Errors) {
    for (i, port) in list(container, "ports").iter().enumerate() {
        let number = int(port, "hostPort").unwrap_or_default();
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
        if taken.contains(&key) {
            let path = path.child("ports").index(i).child("hostPort");
            out.push(FieldError::duplicate(&path, key));
        } else {
            taken.insert(key);
        }
    }
}

fn restart_policy(container: &Value, path: &FieldPath, out: &mut Errors) {
    let policy = opt_text(container, "restartPolicy");
    let rules = list(container, "restartPolicyRules");
    match policy {
        Some(policy) => one_of(policy, RESTART_POLICIES, &path.child("restartPolicy"), out),
        None if !rules.is_empty() => {
            let text = "must specify restartPolicy when restart rules are used";
            out.push(FieldError::required(&path.child("restartPolicy"), text));
        }
        None => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > RULES_MAX {
        out.push(FieldError::too_many(&path, rules.len(), RULES_MAX));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        one_of(text(rule, "action"), &["Restart"], &path.child("action"), out);
        let path = path.child("exitCodes");
        let Some(codes) = part(rule, "exitCodes") else {
            out.push(FieldError::required(&path, "must be specified"));
            continue;
        };
        one_of(text(codes, "operator"), &["In", "NotIn"], &path.child("operator"), out);
        let values = list(codes, "values").len();
        if values > EXIT_CODES_MAX {
            out.push(FieldError::too_many(&path.child("values"), values, EXIT_CODES_MAX));
        }
    }
}

fn resize_policy(container: &Value, pod_restarts: &str, path: &FieldPath, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, policy) in list(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if !seen.insert(resource) {
            out.push(FieldError::duplicate(&path.index(i), resource));
        }
        required_one_of(resource, &["cpu", "memory"], path, out);
        required_one_of(restart, &["NotRequired", "RestartContainer"], path, out);
        if pod_restarts == "Never" && restart != "NotRequired" {
            let text = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            out.push(FieldError::invalid(path, restart, text));
        }
    }
}
