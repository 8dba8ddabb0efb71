//! The operating system that a pod names, and what Windows excludes.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::each_container;
use crate::validation::checks::{Errors, each};
use crate::validation::view::{flag, is_set, list, member, opt_text, part, text};

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";

/// Fields of a pod's security context that Windows does not have.
const POD_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsUser",
    "runAsGroup",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];

/// Fields of a container's security context that Windows does not have.
const CONTAINER_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// `spec.os`, and the fields that the system named there excludes.
pub(super) fn os(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let Some(os) = part(spec, "os") else { return };
    match text(os, "name") {
        "" => out.push(FieldError::required(&path.child("os").child("name"), "cannot be empty")),
        "linux" => linux(spec, path, out),
        "windows" => windows(spec, path, out),
        other => out.push(FieldError::not_supported(&path.child("os"), other, &["linux", "windows"])),
    }
}

fn linux(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let mut refuse = |context: &Value, path: &FieldPath| {
        if part(context, "windowsOptions").is_some() {
            let path = path.child("securityContext").child("windowsOptions");
            out.push(FieldError::forbidden(&path, NOT_ON_LINUX));
        }
    };
    refuse(member(spec, "securityContext"), path);
    each_container(spec, path, |container, path| refuse(member(container, "securityContext"), path));
}

fn windows(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let mut refuse = |path: &FieldPath, name: &str| {
        out.push(FieldError::forbidden(&path.child(name), NOT_ON_WINDOWS));
    };
    let context = member(spec, "securityContext");
    let context_path = path.child("securityContext");
    for name in POD_CONTEXT.iter().filter(|name| part(context, name).is_some()) {
        refuse(&context_path, name);
    }
    for name in ["sysctls", "supplementalGroups"] {
        if !list(context, name).is_empty() {
            refuse(&context_path, name);
        }
    }
    for name in ["hostUsers", "shareProcessNamespace"] {
        if flag(spec, name).is_some() {
            refuse(path, name);
        }
    }
    for name in ["hostPID", "hostIPC"] {
        if is_set(spec, name) {
            refuse(path, name);
        }
    }
    each_container(spec, path, |container, path| {
        let context = member(container, "securityContext");
        for name in CONTAINER_CONTEXT.iter().filter(|name| part(context, name).is_some()) {
            refuse(&path.child("securityContext"), name);
        }
    });
}

/// `windowsOptions` of a pod or a container.
pub(super) fn options(options: &Value, path: &FieldPath, out: &mut Errors) {
    if let Some(name) = opt_text(options, "gmsaCredentialSpecName") {
        each(&path.child("gmsaCredentialSpecName"), name, names::is_dns1123_subdomain(name), out);
    }
    if let Some(spec) = opt_text(options, "gmsaCredentialSpec") {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            out.push(FieldError::invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > 64 * 1024 {
            out.push(FieldError::invalid(&path, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some(name) = opt_text(options, "runAsUserName") {
        for text in user_name(name) {
            out.push(FieldError::invalid(&path.child("runAsUserName"), name, text));
        }
    }
}

/// What is wrong with `DOMAIN\user`.
fn user_name(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match name.split_once('\\') {
        None => (None, name),
        Some((_, user)) if user.contains('\\') => {
            return vec!["runAsUserName cannot contain more than one backslash"];
        }
        Some((domain, user)) => (Some(domain), user),
    };
    let mut found = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            found.push("runAsUserName's Domain length must be under 256 characters");
        }
        if !is_net_bios(domain) && !is_dns_domain(domain) {
            found.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        found.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        found.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        found.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c: char| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        found.push(r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#);
    }
    found
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length)
        && !domain.starts_with('.')
        && !domain.contains(|c: char| r#"\/:*?"<>|"#.contains(c))
}

fn is_dns_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        label.len() <= 63
            && label.starts_with(edge)
            && label.ends_with(edge)
            && label.chars().all(|c| edge(c) || c == '-')
    })
}

/// Host process containers: all or none, and on the host's network.
pub(super) fn host_process(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let asked = |at: &Value| flag(member(member(at, "securityContext"), "windowsOptions"), "hostProcess");
    let of_pod = asked(spec);
    let (mut all, mut on_host) = (0, 0);
    each_container(spec, path, |container, path| {
        all += 1;
        let own = asked(container);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let path = path.child("securityContext").child("windowsOptions").child("hostProcess");
            let text = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            out.push(FieldError::invalid(&path, own, text));
        }
        if own.or(of_pod) == Some(true) {
            on_host += 1;
        }
    });
    if on_host == 0 {
        return;
    }
    if on_host != all {
        let text =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        out.push(FieldError::invalid(path, "", text));
    }
    if !is_set(spec, "hostNetwork") {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        out.push(FieldError::invalid(&path.child("hostNetwork"), false, text));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn a_named_system_excludes_what_it_does_not_have() {
        for (spec, expected) in [
            (json!({"os": {"name": "linux"}, "hostPID": true}), vec![]),
            (json!({"os": {}}), vec!["spec.os.name: Required value: cannot be empty"]),
            (
                json!({"os": {"name": "plan9"}}),
                vec![r#"spec.os: Unsupported value: "plan9": supported values: "linux", "windows""#],
            ),
            (
                json!({"os": {"name": "linux"}, "containers": [{"securityContext": {"windowsOptions": {}}}]}),
                vec![
                    "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                ],
            ),
            (
                json!({"os": {"name": "windows"}, "hostPID": true, "securityContext": {"fsGroup": 1},
                    "initContainers": [{"securityContext": {"privileged": false}}]}),
                vec![
                    "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
                    "spec.hostPID: Forbidden: cannot be set for a windows pod",
                    "spec.initContainers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
                ],
            ),
        ] {
            let mut out = Errors::new();
            os(&spec, &FieldPath::new("spec"), &mut out);
            assert_eq!(texts(&out), expected, "{spec}");
        }
    }

    #[test]
    fn user_names_of_windows() {
        for (name, expected) in [
            ("Container User", vec![]),
            ("EXAMPLE\\joe", vec![]),
            ("example.co-m\\joe", vec![]),
            ("", vec!["runAsUserName cannot be an empty string"]),
            ("a\tb", vec!["runAsUserName cannot contain control characters"]),
            ("a\\b\\c", vec!["runAsUserName cannot contain more than one backslash"]),
            ("a:b\\c", vec!["runAsUserName's Domain doesn't match the NetBios nor the DNS format"]),
            ("a\\", vec!["runAsUserName's User cannot be empty"]),
            ("..", vec!["runAsUserName's User cannot contain only periods or spaces"]),
            (
                "a@b",
                vec![r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#],
            ),
        ] {
            assert_eq!(user_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn all_containers_are_host_processes_or_none() {
        let host = |on: bool| json!({"securityContext": {"windowsOptions": {"hostProcess": on}}});
        let mut out = Errors::new();
        let spec = json!({"containers": [host(true), {}]});
        host_process(&spec, &FieldPath::new("spec"), &mut out);
        let mut spec = host(true);
        spec["hostNetwork"] = json!(true);
        spec["containers"] = json!([host(false)]);
        host_process(&spec, &FieldPath::new("spec"), &mut out);
        assert_eq!(
            texts(&out),
            [
                "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers",
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
                "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true",
            ]
        );
    }
}
