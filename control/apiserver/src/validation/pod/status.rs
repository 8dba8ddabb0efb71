//! What the status of a pod may become.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::annotations;
use crate::validation::checks::{
    Errors, each, immutable, in_range, ip, is_dual_stack, one_of, parse_ip, qualified_name,
};
use crate::validation::view::{int, list, map, member, opt_text, part, text, walk};

/// What is wrong with a reported status.
pub(crate) fn status_update(new: &Value, old: &Value) -> Errors {
    let mut out = Errors::new();
    let metadata = FieldPath::new("metadata");
    annotations::changes(
        member(new, "metadata"),
        member(old, "metadata"),
        &metadata.child("annotations"),
        &mut out,
    );
    let (status, before) = (member(new, "status"), member(old, "status"));
    let (spec, spec_before) = (member(new, "spec"), member(old, "spec"));
    // The path is not where conditions are, but it is Kubernetes' path.
    conditions(status, &metadata.child("conditions"), &mut out);
    let path = FieldPath::new("status");
    if text(spec, "nodeName") != text(spec_before, "nodeName") {
        out.push(FieldError::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let nominated = text(status, "nominatedNodeName");
    if nominated != text(before, "nominatedNodeName") && !nominated.is_empty() {
        let path = path.child("nominatedNodeName");
        each(&path, nominated, names::is_dns1123_subdomain(nominated), &mut out);
    }
    immutable(member(status, "qosClass"), member(before, "qosClass"), &path.child("qosClass"), &mut out);
    restarts(status, before, spec_before, &path, &mut out);
    claims(status, spec, &path.child("resourceClaimStatuses"), &mut out);
    pod_addresses(status, &path.child("podIPs"), &mut out);
    host_addresses(status, &path.child("hostIPs"), &mut out);
    for name in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for (i, container) in list(status, name).iter().enumerate() {
            users(container, text(member(spec, "os"), "name"), &path.child(name).index(i), &mut out);
        }
    }
    devices(status, spec, &path, &mut out);
    out
}

fn conditions(status: &Value, path: &FieldPath, out: &mut Errors) {
    for (i, condition) in list(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            qualified_name(kind, &path.index(i).child("Type"), out);
        }
    }
}

/// An ended container that the pod's policy does not restart stays ended.
fn restarts(status: &Value, before: &Value, spec: &Value, path: &FieldPath, out: &mut Errors) {
    let policy = text(spec, "restartPolicy");
    let sidecar = |name: &str| {
        let is = |c: &&Value| text(c, "name") == name && text(c, "restartPolicy") == "Always";
        list(spec, "initContainers").iter().any(|container| is(&container))
    };
    let own_policy = |name: &str| {
        let mut containers = list(spec, "containers").iter().chain(list(spec, "initContainers"));
        containers.any(|c| {
            text(c, "name") == name
                && (opt_text(c, "restartPolicy").is_some() || !list(c, "restartPolicyRules").is_empty())
        })
    };
    for (name, policy) in [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        if policy == "Always" {
            continue;
        }
        for (i, old) in list(before, name).iter().enumerate() {
            let Some(ended) = part(member(old, "state"), "terminated") else { continue };
            let container = text(old, "name");
            let failed = int(ended, "exitCode").unwrap_or_default() != 0;
            // A container with a policy of its own may leave its end as that policy says.
            if (failed && policy == "OnFailure") || sidecar(container) || own_policy(container) {
                continue;
            }
            let revived = |new: &&Value| {
                text(new, "name") == container && part(member(new, "state"), "terminated").is_none()
            };
            for _ in list(status, name).iter().filter(revived) {
                let path = path.child(name).index(i).child("state");
                out.push(FieldError::forbidden(&path, "may not be transitioned to non-terminated state"));
            }
        }
    }
}

fn claims(status: &Value, spec: &Value, path: &FieldPath, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in list(status, "resourceClaimStatuses").iter().enumerate() {
        let path = path.index(i).child("name");
        let name = text(claim, "name");
        if !list(spec, "resourceClaims").iter().any(|of_pod| text(of_pod, "name") == name) {
            let text = "must match the name of an entry in `spec.resourceClaims`";
            out.push(FieldError::invalid(&path, name, text));
        }
        if !seen.insert(name) {
            out.push(FieldError::duplicate(&path, name));
        }
        if let Some(made) = opt_text(claim, "resourceClaimName") {
            each(&path, made, names::is_dns1123_subdomain(made), out);
        }
    }
}

fn pod_addresses(status: &Value, path: &FieldPath, out: &mut Errors) {
    let addresses = list(status, "podIPs");
    for (i, address) in addresses.iter().enumerate() {
        ip(text(address, "ip"), &path.index(i), out);
    }
    one_of_each_family(addresses, path, out);
}

fn host_addresses(status: &Value, path: &FieldPath, out: &mut Errors) {
    let addresses = list(status, "hostIPs");
    let Some(first) = addresses.first() else { return };
    if text(first, "ip") != text(status, "hostIP") {
        out.push(FieldError::invalid(
            &path.index(0).child("ip"),
            text(first, "ip"),
            "must be equal to `hostIP`",
        ));
    }
    for (i, address) in addresses.iter().enumerate() {
        ip(text(address, "ip"), &path.index(i), out);
    }
    one_of_each_family(addresses, path, out);
}

fn one_of_each_family(addresses: &[Value], path: &FieldPath, out: &mut Errors) {
    if addresses.len() < 2 {
        return;
    }
    let parsed: Vec<IpAddr> = addresses.iter().filter_map(|address| parse_ip(text(address, "ip"))).collect();
    if !is_dual_stack(&parsed) || addresses.len() > 2 {
        let text = "may specify no more than one IP for each IP family";
        out.push(FieldError::invalid(path, addresses.to_vec(), text));
    }
    let mut seen = BTreeSet::new();
    for (i, address) in addresses.iter().enumerate() {
        if !seen.insert(text(address, "ip")) {
            out.push(FieldError::duplicate(&path.index(i), address.clone()));
        }
    }
}

fn users(container: &Value, os: &str, path: &FieldPath, out: &mut Errors) {
    let user = walk(container, &["user", "linux"]);
    if user.is_null() {
        return;
    }
    let path = path.child("linux");
    if os == "windows" {
        out.push(FieldError::forbidden(&path, "cannot be set for a windows pod"));
        return;
    }
    let greatest = i64::from(i32::MAX);
    for name in ["uid", "gid"] {
        in_range(int(user, name).unwrap_or_default(), 0, greatest, &path.child(name), out);
    }
    for (i, group) in list(user, "supplementalGroups").iter().enumerate() {
        let path = path.child("supplementalGroups").index(i);
        in_range(group.as_i64().unwrap_or_default(), 0, greatest, &path, out);
    }
}

/// The health of devices: of resources that the container asked for, each device once.
fn devices(status: &Value, spec: &Value, path: &FieldPath, out: &mut Errors) {
    for (name, of_spec) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")]
    {
        for (i, container) in list(status, name).iter().enumerate() {
            let path = path.child(name).index(i).child("allocatedResourcesStatus");
            let asked = list(spec, of_spec).iter().find(|c| text(c, "name") == text(container, "name"));
            for (j, resource) in list(container, "allocatedResourcesStatus").iter().enumerate() {
                device(resource, asked, &path.index(j), out);
            }
        }
    }
    for (i, container) in list(status, "ephemeralContainerStatuses").iter().enumerate() {
        if !list(container, "allocatedResourcesStatus").is_empty() {
            let path = path.child("ephemeralContainerStatuses").index(i).child("allocatedResourcesStatus");
            out.push(FieldError::forbidden(&path, "must not be specified in container status"));
        }
    }
}

fn device(resource: &Value, asked: Option<&Value>, path: &FieldPath, out: &mut Errors) {
    let name = text(resource, "name");
    if let Some(container) = asked {
        let resources = member(container, "resources");
        let (found, text) = match name.strip_prefix("claim:") {
            Some(claim) => (
                list(resources, "claims").iter().any(|c| match text(c, "request") {
                    "" => claim == text(c, "name"),
                    request => claim == format!("{}/{request}", text(c, "name")),
                }),
                "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
            ),
            None => (
                map(resources, "requests").contains_key(name),
                "must match one of the container's resource requests",
            ),
        };
        if !found {
            out.push(FieldError::invalid(&path.child("name"), name, text));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, one) in list(resource, "resources").iter().enumerate() {
        let path = path.child("resources").index(i);
        one_of(text(one, "health"), &["Healthy", "Unhealthy", "Unknown"], &path.child("health"), out);
        if !seen.insert(text(one, "resourceID")) {
            out.push(FieldError::duplicate(&path.child("resourceID"), text(one, "resourceID")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(spec: &Value, old: &Value, new: &Value) -> Vec<String> {
        texts(&status_update(&json!({"spec": spec, "status": new}), &json!({"spec": spec, "status": old})))
    }

    #[test]
    fn statuses_are_plausible() {
        for (status, expected) in [
            (
                json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}], "hostIP": "1.1.1.1", "hostIPs": [{"ip": "1.1.1.1"}]}),
                vec![],
            ),
            (
                json!({"conditions": [{"type": "Ready"}, {"type": "-"}]}),
                vec![
                    "metadata.conditions[1].Type: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                ],
            ),
            (
                json!({"qosClass": "Burstable"}),
                vec!["status.qosClass: Invalid value: \"Burstable\": field is immutable"],
            ),
            (
                json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]}),
                vec![
                    r#"status.podIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.1"}]: may specify no more than one IP for each IP family"#,
                    r#"status.podIPs[1]: Duplicate value: {"ip":"10.0.0.1"}"#,
                ],
            ),
            (
                json!({"hostIP": "1.1.1.1", "hostIPs": [{"ip": "x"}]}),
                vec![
                    "status.hostIPs[0].ip: Invalid value: \"x\": must be equal to `hostIP`",
                    r#"status.hostIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                ],
            ),
            (
                json!({"resourceClaimStatuses": [{"name": "x"}]}),
                vec![
                    "status.resourceClaimStatuses[0].name: Invalid value: \"x\": must match the name of an entry in `spec.resourceClaims`",
                ],
            ),
            (
                json!({"containerStatuses": [{"name": "c", "user": {"linux": {"uid": -1, "gid": 0}}}]}),
                vec![
                    "status.containerStatuses[0].linux.uid: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
        ] {
            assert_eq!(found(&json!({}), &json!({}), &status), expected, "{status}");
        }
    }

    #[test]
    fn the_end_of_a_container_is_final_unless_it_is_restarted() {
        let status = |state: Value| json!({"containerStatuses": [{"name": "c", "state": state}]});
        let running = status(json!({"running": {}}));
        let ended = |code: i32| status(json!({"terminated": {"exitCode": code}}));
        let refusal = vec![
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
        ];
        for (spec, code, expected) in [
            (json!({"restartPolicy": "Always"}), 0, vec![]),
            (json!({"restartPolicy": "OnFailure"}), 1, vec![]),
            (json!({"restartPolicy": "OnFailure"}), 0, refusal.clone()),
            (json!({"restartPolicy": "Never"}), 1, refusal.clone()),
            (
                json!({"restartPolicy": "Never", "containers": [{"name": "c", "restartPolicy": "Always"}]}),
                1,
                vec![],
            ),
        ] {
            assert_eq!(found(&spec, &ended(code), &running), expected, "{spec} {code}");
        }
        let init = |state: Value| json!({"initContainerStatuses": [{"name": "s", "state": state}]});
        let spec =
            json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        assert!(
            found(&spec, &init(json!({"terminated": {"exitCode": 1}})), &init(json!({"running": {}})))
                .is_empty()
        );
    }
}
