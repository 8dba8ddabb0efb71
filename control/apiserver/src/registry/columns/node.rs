//! Nodes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, age, column, name, or, wide};
use crate::registry::strategy::Column;
use crate::validation::view::{is_set, list, map, member, text};

const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).";
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

/// The columns of nodes.
pub(crate) const NODE: &[Column] = &[
    NAME,
    column("Status", "The status of the node"),
    column("Roles", "The roles of the node"),
    AGE,
    column("Version", "Kubelet Version reported by the node."),
    wide("Internal-IP", ADDRESSES),
    wide("External-IP", ADDRESSES),
    wide(
        "OS-Image",
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    wide(
        "Kernel-Version",
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

/// The cells of a node.
pub(crate) fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let status = member(node, "status");
    let info = member(status, "nodeInfo");
    let address = |kind: &str| {
        let found = list(status, "addresses").iter().find(|address| text(address, "type") == kind);
        found.map_or_else(|| Value::from("<none>"), |address| text(address, "address").into())
    };
    vec![
        name(node),
        conditions(node).into(),
        roles(node),
        age(node, now),
        text(info, "kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        or(text(info, "osImage"), "<unknown>"),
        or(text(info, "kernelVersion"), "<unknown>"),
        or(text(info, "containerRuntimeVersion"), "<unknown>"),
    ]
}

fn conditions(node: &Value) -> String {
    let ready = list(member(node, "status"), "conditions").iter().rfind(|c| text(c, "type") == "Ready");
    let ready = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if is_set(member(node, "spec"), "unschedulable") {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    }
}

fn roles(node: &Value) -> Value {
    let labels = map(member(node, "metadata"), "labels");
    let found: BTreeSet<&str> = labels
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    or(&found.into_iter().collect::<Vec<_>>().join(","), "<none>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_in_full() {
        let node = json!({
            "metadata": {"name": "n", "creationTimestamp": "2025-01-01T00:00:00Z", "labels": {
                "node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge", "node-role.kubernetes.io/": ""}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "sampan://0.1.0"},
            },
        });
        assert_eq!(
            cells(&node, "2025-01-01T00:01:00Z".parse().unwrap()),
            json!([
                "n",
                "Ready,SchedulingDisabled",
                "control-plane,edge",
                "60s",
                "v1.35.0",
                "10.0.0.1",
                "<none>",
                "Debian",
                "6.1",
                "sampan://0.1.0"
            ])
            .as_array()
            .unwrap()
            .as_slice()
        );
    }

    #[test]
    fn a_node_that_says_little() {
        let now = Timestamp::UNIX_EPOCH;
        let bare = cells(&json!({"metadata": {"name": "n"}}), now);
        assert_eq!(bare[1..4], [json!("Unknown"), json!("<none>"), json!("<unknown>")]);
        assert_eq!(bare[7], "<unknown>");
        for status in ["False", "Unknown"] {
            let node = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
            assert_eq!(cells(&node, now)[1], "NotReady");
        }
    }
}
