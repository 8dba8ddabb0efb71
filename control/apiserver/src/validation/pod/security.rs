//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use sampan_api::field::{FieldError, FieldPath};
use serde_json::Value;

use super::windows;
use crate::validation::checks::{Errors, descending_path, in_range, one_of};
use crate::validation::view::{flag, int, is_set, list, map, member, opt_text, part, text, texts};

const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const GREATEST_ID: i64 = i32::MAX as i64;

/// The greatest length of a path that a profile's name may have.
const PROFILE_MAX: usize = 4095;

const SYSCTL_MAX: usize = 253;
const SYSCTL_PATTERN: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn id(at: &Value, name: &str, path: &FieldPath, out: &mut Errors) {
    if let Some(id) = int(at, name) {
        in_range(id, 0, GREATEST_ID, &path.child(name), out);
    }
}

/// The security context of a pod; some of what it must agree with stands beside it in the spec.
pub(super) fn of_pod(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let context = member(spec, "securityContext");
    let path = path.child("securityContext");
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context, name, &path, out);
    }
    for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
        let path = path.child("supplementalGroups").index(i);
        in_range(group.as_i64().unwrap_or_default(), 0, GREATEST_ID, &path, out);
    }
    if is_set(spec, "shareProcessNamespace") && is_set(spec, "hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, text));
    }
    sysctls(spec, context, &path.child("sysctls"), out);
    let enumerated = |name: &str, known: &[&str], out: &mut Errors| {
        if let Some(value) = opt_text(context, name) {
            one_of(value, known, &path.child(name), out);
        }
    };
    enumerated("fsGroupChangePolicy", &["Always", "OnRootMismatch"], out);
    profiles(context, &path, out);
    enumerated("supplementalGroupsPolicy", &["Merge", "Strict"], out);
    enumerated("seLinuxChangePolicy", &["MountOption", "Recursive"], out);
}

fn profiles(context: &Value, path: &FieldPath, out: &mut Errors) {
    if let Some(profile) = part(context, "seccompProfile") {
        seccomp(profile, &path.child("seccompProfile"), out);
    }
    if let Some(options) = part(context, "windowsOptions") {
        windows::options(options, &path.child("windowsOptions"), out);
    }
    if let Some(profile) = part(context, "appArmorProfile") {
        app_armor(profile, &path.child("appArmorProfile"), out);
    }
}

fn seccomp(profile: &Value, path: &FieldPath, out: &mut Errors) {
    let kind = text(profile, "type");
    if kind.is_empty() {
        out.push(FieldError::required(&path.child("type"), "type is required when seccompProfile is set"));
    } else {
        one_of(kind, PROFILES, &path.child("type"), out);
    }
    let path = path.child("localhostProfile");
    match opt_text(profile, "localhostProfile") {
        None if kind == "Localhost" => {
            out.push(FieldError::required(&path, "must be set when seccomp type is Localhost"));
        }
        Some(name) if kind == "Localhost" => descending_path(name, &path, out),
        Some(_) => {
            let text = "can only be set when seccomp type is Localhost";
            out.push(FieldError::invalid(&path, profile.clone(), text));
        }
        None => {}
    }
}

fn app_armor(profile: &Value, path: &FieldPath, out: &mut Errors) {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let name = opt_text(profile, "localhostProfile");
    let at = path.child("localhostProfile");
    match text(profile, "type") {
        "Localhost" => match name {
            None => out.push(FieldError::required(&at, MISSING)),
            Some(name) => {
                if name.trim() != name {
                    out.push(FieldError::invalid(&at, name, "must not be padded with whitespace"));
                } else if name.is_empty() {
                    out.push(FieldError::required(&at, MISSING));
                }
                if name.len() > PROFILE_MAX {
                    out.push(FieldError::too_long(&at, PROFILE_MAX));
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = name {
                out.push(FieldError::invalid(&at, name, "can only be set when AppArmor type is Localhost"));
            }
        }
        "" => {
            let text = "type is required when appArmorProfile is set";
            out.push(FieldError::required(&path.child("type"), text));
        }
        other => out.push(FieldError::not_supported(&path.child("type"), other, PROFILES)),
    }
}

fn sysctls(spec: &Value, context: &Value, path: &FieldPath, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let path = path.index(i).child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            out.push(FieldError::required(&path, ""));
        } else if !is_sysctl(name) {
            let text = format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL_PATTERN}");
            out.push(FieldError::invalid(&path, name, text));
        } else if seen.contains(name) {
            out.push(FieldError::duplicate(&path, name));
        }
        seen.insert(name);
        match sysctl_namespace(name) {
            Some("net") if is_set(spec, "hostNetwork") => {
                let text = "may not be specified when 'hostNetwork' is true";
                out.push(FieldError::invalid(&path, name, text));
            }
            Some("ipc") if is_set(spec, "hostIPC") => {
                out.push(FieldError::invalid(&path, name, "may not be specified when 'hostIPC' is true"));
            }
            _ => {}
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= SYSCTL_MAX
        && name.split(['.', '/']).all(|segment| {
            segment.starts_with(edge)
                && segment.ends_with(edge)
                && segment.chars().all(|c| edge(c) || matches!(c, '-' | '_'))
        })
}

/// The kernel's namespace that holds a sysctl. Where the first separator is a slash, slashes and
/// dots change places.
fn sysctl_namespace(name: &str) -> Option<&'static str> {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes().get(at) == Some(&b'/'));
    let normal: String = if slashes {
        name.chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect()
    } else {
        name.to_owned()
    };
    match normal.as_str() {
        "kernel.sem" => Some("ipc"),
        name if ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix)) => {
            Some("ipc")
        }
        name if name.starts_with("net.") => Some("net"),
        _ => None,
    }
}

/// The security context of a container.
pub(super) fn of_container(container: &Value, host_users: bool, path: &FieldPath, out: &mut Errors) {
    let Some(context) = part(container, "securityContext") else { return };
    let path = &path.child("securityContext");
    id(context, "runAsUser", path, out);
    id(context, "runAsGroup", path, out);
    if let Some(mount) = opt_text(context, "procMount") {
        let path = path.child("procMount");
        one_of(mount, &["Default", "Unmasked"], &path, out);
        if host_users && mount == "Unmasked" {
            out.push(FieldError::invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    if flag(context, "allowPrivilegeEscalation") == Some(false) {
        if is_set(context, "privileged") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            out.push(FieldError::invalid(path, context.clone(), text));
        }
        for _ in texts(member(context, "capabilities"), "add").filter(|name| *name == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            out.push(FieldError::invalid(path, context.clone(), text));
        }
    }
    profiles(context, path, out);
}

/// What the host's namespaces exclude where the pod has users of its own.
pub(super) fn host_users(spec: &Value, path: &FieldPath, out: &mut Errors) {
    if flag(spec, "hostUsers") != Some(false) {
        return;
    }
    // The spelling of the last two is Kubernetes'.
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if is_set(spec, field) {
            out.push(FieldError::forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false"));
        }
    }
}

/// Where the annotations of old name a profile, the fields of today must name the same.
pub(super) fn annotations_agree(metadata: &Value, spec: &Value, path: &FieldPath, out: &mut Errors) {
    let annotations = map(metadata, "annotations");
    let annotation = |key: String| annotations.get(&key).and_then(Value::as_str);
    let of_pod = member(spec, "securityContext");
    if let (Some(profile), Some(said)) =
        (part(of_pod, "seccompProfile"), annotation("seccomp.security.alpha.kubernetes.io/pod".to_owned()))
    {
        seccomp_agrees(said, profile, &path.child("securityContext").child("seccompProfile"), out);
    }
    super::each_container(spec, path, |container, path| {
        let name = text(container, "name");
        let context = member(container, "securityContext");
        let path = path.child("securityContext");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if let (Some(profile), Some(said)) = (part(context, "seccompProfile"), annotation(key)) {
            seccomp_agrees(said, profile, &path.child("seccompProfile"), out);
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        let profile = part(context, "appArmorProfile").or_else(|| part(of_pod, "appArmorProfile"));
        let linux = text(member(spec, "os"), "name") != "windows";
        if let (Some(profile), Some(said), true) = (profile, annotation(key), linux) {
            app_armor_agrees(said, profile, &path.child("appArmorProfile"), out);
        }
    });
}

fn seccomp_agrees(said: &str, profile: &Value, path: &FieldPath, out: &mut Errors) {
    let agrees = match text(profile, "type") {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => matches!(said, "runtime/default" | "docker/default"),
        "Localhost" => match said.strip_prefix("localhost/") {
            None => false,
            Some(name) if opt_text(profile, "localhostProfile") == Some(name) => true,
            Some(_) => {
                let text = "seccomp profile in annotation and field must match";
                out.push(FieldError::forbidden(&path.child("localhostProfile"), text));
                return;
            }
        },
        _ => true,
    };
    if !agrees {
        let text = "seccomp type in annotation and field must match";
        out.push(FieldError::forbidden(&path.child("type"), text));
    }
}

fn app_armor_agrees(said: &str, profile: &Value, path: &FieldPath, out: &mut Errors) {
    let agrees = match text(profile, "type") {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => said == "runtime/default",
        "Localhost" => match said.strip_prefix("localhost/") {
            None => false,
            Some(name) if opt_text(profile, "localhostProfile") == Some(name) => true,
            Some(_) => {
                let text = "apparmor profile in annotation and field must match";
                out.push(FieldError::forbidden(&path.child("localhostProfile"), text));
                return;
            }
        },
        _ => true,
    };
    if !agrees {
        let text = "apparmor type in annotation and field must match";
        out.push(FieldError::forbidden(&path.child("type"), text));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn contexts_of_pods() {
        for (spec, expected) in [
            (
                json!({"securityContext": {"runAsUser": 1000, "fsGroup": 0, "supplementalGroups": [1]}}),
                vec![],
            ),
            (
                json!({"securityContext": {"runAsUser": -1, "fsGroup": 2_147_483_648_i64, "supplementalGroups": [-5]}}),
                vec![
                    "s.securityContext.fsGroup: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
                    "s.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                    "s.securityContext.supplementalGroups[0]: Invalid value: -5: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                json!({"shareProcessNamespace": true, "hostPID": true}),
                vec![
                    "s.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                ],
            ),
            (
                json!({"hostNetwork": true, "securityContext": {"sysctls": [
                    {"name": "net.ipv4.tcp_syncookies"}, {"name": "kernel.sem"}, {"name": "kernel.sem"}, {"name": "A"}, {}]}}),
                vec![
                    "s.securityContext.sysctls[0].name: Invalid value: \"net.ipv4.tcp_syncookies\": may not be specified when 'hostNetwork' is true",
                    "s.securityContext.sysctls[2].name: Duplicate value: \"kernel.sem\"",
                    r#"s.securityContext.sysctls[3].name: Invalid value: "A": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"#,
                    "s.securityContext.sysctls[4].name: Required value",
                ],
            ),
            (
                json!({"securityContext": {"fsGroupChangePolicy": "x", "supplementalGroupsPolicy": "y", "seLinuxChangePolicy": "z"}}),
                vec![
                    r#"s.securityContext.fsGroupChangePolicy: Unsupported value: "x": supported values: "Always", "OnRootMismatch""#,
                    r#"s.securityContext.supplementalGroupsPolicy: Unsupported value: "y": supported values: "Merge", "Strict""#,
                    r#"s.securityContext.seLinuxChangePolicy: Unsupported value: "z": supported values: "MountOption", "Recursive""#,
                ],
            ),
        ] {
            let mut out = Errors::new();
            of_pod(&spec, &FieldPath::new("s"), &mut out);
            assert_eq!(texts(&out), expected, "{spec}");
        }
    }

    #[test]
    fn profiles_name_a_file_only_where_they_are_local() {
        for (profile, seccomp_says, app_armor_says) in [
            (json!({"type": "RuntimeDefault"}), "", ""),
            (json!({"type": "Localhost", "localhostProfile": "a/b"}), "", ""),
            (
                json!({"type": "Localhost"}),
                "p.localhostProfile: Required value: must be set when seccomp type is Localhost",
                "p.localhostProfile: Required value: must be set when AppArmor type is Localhost",
            ),
            (
                json!({}),
                "p.type: Required value: type is required when seccompProfile is set",
                "p.type: Required value: type is required when appArmorProfile is set",
            ),
            (
                json!({"type": "x"}),
                r#"p.type: Unsupported value: "x": supported values: "Localhost", "RuntimeDefault", "Unconfined""#,
                r#"p.type: Unsupported value: "x": supported values: "Localhost", "RuntimeDefault", "Unconfined""#,
            ),
            (
                json!({"type": "Unconfined", "localhostProfile": "a"}),
                r#"p.localhostProfile: Invalid value: {"localhostProfile":"a","type":"Unconfined"}: can only be set when seccomp type is Localhost"#,
                r#"p.localhostProfile: Invalid value: "a": can only be set when AppArmor type is Localhost"#,
            ),
        ] {
            for (check, expected) in
                [(seccomp as fn(&Value, &FieldPath, &mut Errors), seccomp_says), (app_armor, app_armor_says)]
            {
                let mut out = Errors::new();
                check(&profile, &FieldPath::new("p"), &mut out);
                assert_eq!(texts(&out).join("\n"), expected, "{profile}");
            }
        }
    }

    #[test]
    fn contexts_of_containers() {
        for (context, expected) in [
            (json!({"privileged": true, "runAsUser": 0}), vec![]),
            (
                json!({"procMount": "Unmasked"}),
                vec![
                    r#"c.securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`"#,
                ],
            ),
            (
                json!({"allowPrivilegeEscalation": false, "privileged": true}),
                vec![
                    r#"c.securityContext: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#,
                ],
            ),
            (
                json!({"runAsGroup": -1}),
                vec![
                    "c.securityContext.runAsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
        ] {
            let mut out = Errors::new();
            of_container(&json!({"securityContext": context}), true, &FieldPath::new("c"), &mut out);
            assert_eq!(texts(&out), expected, "{context}");
        }
    }

    #[test]
    fn users_of_its_own_exclude_the_hosts_namespaces() {
        let mut out = Errors::new();
        let spec = json!({"hostUsers": false, "hostNetwork": true, "hostPID": true, "hostIPC": true});
        host_users(&spec, &FieldPath::new("spec"), &mut out);
        assert_eq!(
            texts(&out),
            [
                "spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false",
                "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false",
                "spec.HostIPC: Forbidden: when `pod.Spec.HostUsers` is false",
            ]
        );
    }

    #[test]
    fn annotations_of_old_agree_with_the_fields() {
        let metadata = json!({"annotations": {
            "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
            "container.seccomp.security.alpha.kubernetes.io/c": "localhost/a",
            "container.apparmor.security.beta.kubernetes.io/c": "unconfined"}});
        let spec = json!({
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "b"}}}]});
        let mut out = Errors::new();
        annotations_agree(&metadata, &spec, &FieldPath::new("spec"), &mut out);
        assert_eq!(
            texts(&out),
            [
                "spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match",
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation and field must match",
                "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match",
            ]
        );
    }
}
