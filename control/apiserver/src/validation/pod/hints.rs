//! Kubernetes' own warnings about pods: what is accepted and probably not what was meant.

use std::collections::{BTreeMap, BTreeSet};

use sampan_api::field::{FieldPath, go_quote};
use sampan_api::names;
use serde_json::Value;

use super::annotations::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD};
use super::each_container;
use crate::validation::resources::{is_whole, quantity_of};
use crate::validation::selectors::{Values, is_absent};
use crate::validation::view::{int, list, map, member, part, text, texts, walk};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Labels of nodes that have a successor.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
];

/// Annotations that nobody reads any more.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];

/// Volumes that no Kubernetes mounts any more, by field and shown name.
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// The message about a node's label that has a successor.
pub(crate) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(old, _)| *old == key).map(|(_, message)| *message)
}

/// Warnings about a new pod, its name included.
pub(crate) fn of_pod(pod: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let complaints = names::is_dns1123_label(text(member(pod, "metadata"), "name"));
    if !complaints.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            complaints.join(" ")
        ));
    }
    out.extend(of_spec(member(pod, "metadata"), member(pod, "spec"), &FieldPath::root()));
    out
}

/// Warnings about the spec of a pod (the path is empty) or of a template.
pub(crate) fn of_spec(metadata: &Value, spec: &Value, path: &FieldPath) -> Vec<String> {
    let mut out = Vec::new();
    let at = path.child("spec");
    node_labels(spec, &at, &mut out);
    spread(spec, &at, &mut out);
    old_annotations(metadata, spec, path, &mut out);
    volumes(spec, &at, &mut out);
    token_paths(spec, &at, &mut out);
    duplicates(spec, &at, &mut out);
    fractions(member(spec, "overhead"), &at.child("overhead"), &mut out);
    each_container(spec, &at, |container, path| {
        let resources = member(container, "resources");
        for name in ["limits", "requests"] {
            fractions(member(resources, name), &path.child("resources").child(name), &mut out);
        }
        variables(list(container, "env"), &path.child("env"), &mut out);
    });
    ports(spec, &at, &mut out);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            at.child("terminationGracePeriodSeconds")
        ));
    }
    pod_affinity(spec, &at, &mut out);
    out
}

fn node_labels(spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for key in map(spec, "nodeSelector").keys() {
        if let Some(message) = old_label(key) {
            out.push(format!("{}: {message}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity = walk(spec, &["affinity", "nodeAffinity"]);
    let path = path.child("affinity").child("nodeAffinity");
    for (i, term) in list(member(affinity, REQUIRED), "nodeSelectorTerms").iter().enumerate() {
        let path = path.child(REQUIRED).child("nodeSelectorTerms").index(i);
        node_term(term, Values::Unchecked, &path, out);
    }
    for (i, term) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(i).child("preference");
        node_term(member(term, "preference"), Values::Checked, &path, out);
    }
}

fn node_term(term: &Value, values: Values, path: &FieldPath, out: &mut Vec<String>) {
    for (i, expression) in list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let key = text(expression, "key");
        if let Some(message) = old_label(key) {
            out.push(format!("{}: {key} is {message}", path.child("key")));
        }
        if values == Values::Checked {
            for (j, value) in texts(expression, "values").enumerate() {
                let complaints = names::is_label_value(value);
                out.extend(
                    complaints.iter().map(|text| format!("{}: {text}", path.child("values").index(j))),
                );
            }
        }
    }
}

fn spread(spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        let key = text(constraint, "topologyKey");
        if let Some(message) = old_label(key) {
            out.push(format!("{}: {key} is {message}", path.child("topologyKey")));
        }
        null_selector(constraint, &path, out);
    }
}

fn null_selector(term: &Value, path: &FieldPath, out: &mut Vec<String>) {
    if is_absent(term, "labelSelector") {
        let path = path.child("labelSelector");
        out.push(format!("{path}: a null labelSelector results in matching no pod"));
    }
}

fn pod_affinity(spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for name in ["podAffinity", "podAntiAffinity"] {
        let affinity = walk(spec, &["affinity", name]);
        let path = path.child("affinity").child(name);
        for (i, term) in list(affinity, REQUIRED).iter().enumerate() {
            null_selector(term, &path.child(REQUIRED).index(i), out);
        }
        for (i, term) in list(affinity, PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(i).child("podAffinityTerm");
            null_selector(member(term, "podAffinityTerm"), &path, out);
        }
    }
}

fn old_annotations(metadata: &Value, spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    let annotations = map(metadata, "annotations");
    let at = path.child("metadata").child("annotations");
    for (key, message) in OLD_ANNOTATIONS.iter().filter(|(key, _)| annotations.contains_key(*key)) {
        out.push(format!("{}: {message}", at.key(key)));
    }
    let of_pod = member(spec, "securityContext");
    let use_field = |key: &str| {
        format!(r#"{}: non-functional in v1.27+; use the "seccompProfile" field instead"#, at.key(key))
    };
    if part(of_pod, "seccompProfile").is_none() && annotations.contains_key(SECCOMP_POD) {
        out.push(use_field(SECCOMP_POD));
    }
    each_container(spec, path, |container, _| {
        let context = member(container, "securityContext");
        let name = text(container, "name");
        let key = format!("{SECCOMP_CONTAINER}{name}");
        if part(context, "seccompProfile").is_none() && annotations.contains_key(&key) {
            out.push(use_field(&key));
        }
        let key = format!("{APP_ARMOR}{name}");
        let has_field = [of_pod, context].iter().any(|context| part(context, "appArmorProfile").is_some());
        if !has_field && annotations.contains_key(&key) {
            out.push(format!(
                r#"{}: deprecated since v1.30; use the "appArmorProfile" field instead"#,
                at.key(&key)
            ));
        }
    });
}

fn volumes(spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.child("volumes").index(i);
        for (_, shown, message) in OLD_VOLUMES.iter().filter(|(field, ..)| part(volume, field).is_some()) {
            out.push(format!("{}: {message}", path.child(shown)));
        }
    }
}

/// Files of a projected volume in the place of a token.
fn token_paths(spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    let volumes = list(spec, "volumes");
    let sources = |volume: &'_ Value| list(member(volume, "projected"), "sources").to_vec();
    let tokens: BTreeSet<String> = volumes
        .iter()
        .flat_map(sources)
        .filter_map(|source| part(&source, "serviceAccountToken").map(|token| text(token, "path").to_owned()))
        .collect();
    if tokens.is_empty() {
        return;
    }
    let twice = |path: FieldPath, file: &str| {
        format!("{path}: has duplicated path with ServiceAccountToken {}", go_quote(file))
    };
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.child("volumes").index(i).child("projected").child("sources");
        for source in list(member(volume, "projected"), "sources") {
            for (field, shown) in
                [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")]
            {
                for (j, item) in list(member(source, field), "items").iter().enumerate() {
                    let file = text(item, "path");
                    if tokens.contains(file) {
                        out.push(twice(path.child(shown).index(j), file));
                    }
                }
            }
            let bundle = text(member(source, "clusterTrustBundle"), "path");
            if tokens.contains(bundle) {
                out.push(twice(path.child("ClusterTrustBundle"), bundle));
            }
        }
    }
}

fn duplicates(spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for (name, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let mut seen = BTreeSet::new();
        for (i, item) in list(spec, name).iter().enumerate() {
            let value = text(item, field);
            if !seen.insert(value) {
                let path = path.child(name).index(i).child(field);
                out.push(format!("{path}: duplicate {field} {}", go_quote(value)));
            }
        }
    }
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            let path = path.child("imagePullSecrets").index(i).child("name");
            out.push(format!("{path}: invalid empty name \"\""));
        }
    }
}

fn fractions(resources: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        if let Some(amount) = quantity_of(resources, name).filter(|amount| !is_whole(*amount)) {
            let path = path.key(name);
            let shown = go_quote(&amount.to_string());
            out.push(format!("{path}: fractional byte value {shown} is invalid, must be an integer"));
        }
    }
}

/// A variable set twice, unless the second builds on the first.
fn variables(variables: &[Value], path: &FieldPath, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, variable) in variables.iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let builds_on = value != reference && value.contains(&reference);
        if part(variable, "valueFrom").is_some() || !builds_on {
            let path = path.index(i);
            let name = go_quote(name);
            out.push(format!(
                "{path}: hides previous definition of {name}, which may be dropped when using apply"
            ));
        }
    }
}

/// Ports of containers that run at the same time and mean the same.
fn ports(spec: &Value, path: &FieldPath, out: &mut Vec<String>) {
    let mut named: BTreeMap<&str, FieldPath> = BTreeMap::new();
    let mut seen: BTreeMap<(i64, &str), Vec<(FieldPath, &Value)>> = BTreeMap::new();
    for (name, lasting) in [("initContainers", false), ("containers", true)] {
        for (i, container) in list(spec, name).iter().enumerate() {
            if !lasting && text(container, "restartPolicy") != "Always" {
                continue;
            }
            let path = path.child(name).index(i);
            for (j, port) in list(container, "ports").iter().enumerate() {
                let path = path.child("ports").index(j);
                if let Some(first) = named.get(text(port, "name")) {
                    let name = go_quote(text(port, "name"));
                    out.push(format!("{path}: duplicate port name {name} with {first}, services and probes that select ports by name will use {first}"));
                } else if !text(port, "name").is_empty() {
                    named.insert(text(port, "name"), path.clone());
                }
                host_ip_alone(port, &path, out);
                let key = (int(port, "containerPort").unwrap_or_default(), text(port, "protocol"));
                let others = seen.entry(key).or_default();
                out.extend(
                    others.iter().filter_map(|(at, other)| {
                        Some(format!("{path}: {} with {at}", overlap(port, other)?))
                    }),
                );
                others.push((path, port));
            }
        }
    }
}

fn host_ip_alone(port: &Value, path: &FieldPath, out: &mut Vec<String>) {
    if !text(port, "hostIP").is_empty() && int(port, "hostPort").unwrap_or_default() == 0 {
        out.push(format!(
            "{path}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
            text(port, "name"),
            int(port, "containerPort").unwrap_or_default(),
            text(port, "protocol"),
            text(port, "hostIP"),
        ));
    }
}

fn overlap(a: &Value, b: &Value) -> Option<&'static str> {
    let on_host = |port: &Value| int(port, "hostPort").unwrap_or_default();
    let (port_a, port_b) = (on_host(a), on_host(b));
    let (ip_a, ip_b) = (text(a, "hostIP"), text(b, "hostIP"));
    if ip_a == ip_b && port_a == port_b {
        Some("duplicate port definition")
    } else if port_a == 0 || port_b == 0 {
        Some("overlapping port definition")
    } else if port_a == port_b && ip_a.is_empty() != ip_b.is_empty() {
        Some("dangerously ambiguous port definition")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: &Value) -> Vec<String> {
        of_spec(&json!({}), spec, &FieldPath::root())
    }

    #[test]
    fn probable_mistakes_are_pointed_out() {
        for (spec, expected) in [
            (json!({"containers": [{"name": "c"}]}), vec![]),
            (
                json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
                vec![
                    r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                ],
            ),
            (
                json!({"topologySpreadConstraints": [{"topologyKey": "zone"}]}),
                vec![
                    "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
            (
                json!({"volumes": [{"flocker": {}}, {"storageos": {}}]}),
                vec![
                    "spec.volumes[0].flocker: deprecated in v1.22, non-functional in v1.25+",
                    "spec.volumes[1].storageOS: deprecated in v1.22, non-functional in v1.25+",
                ],
            ),
            (
                json!({"volumes": [{"projected": {"sources": [
                    {"serviceAccountToken": {"path": "t"}}, {"secret": {"items": [{"path": "t"}]}}]}}]}),
                vec![
                    r#"spec.volumes[0].projected.sources.secrets[0]: has duplicated path with ServiceAccountToken "t""#,
                ],
            ),
            (
                json!({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}], "imagePullSecrets": [{"name": ""}]}),
                vec![
                    r#"spec.hostAliases[1].ip: duplicate ip "1.1.1.1""#,
                    r#"spec.imagePullSecrets[0].name: invalid empty name """#,
                ],
            ),
            (
                json!({"containers": [{"resources": {"limits": {"memory": "100m"}}}], "overhead": {"memory": "1.5"}}),
                vec![
                    r#"spec.overhead[memory]: fractional byte value "1500m" is invalid, must be an integer"#,
                    r#"spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer"#,
                ],
            ),
            (
                json!({"terminationGracePeriodSeconds": -1}),
                vec![
                    "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                ],
            ),
            (
                json!({"affinity": {"podAffinity": {(PREFERRED): [{"podAffinityTerm": {}}]}}}),
                vec![
                    "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
                ],
            ),
        ] {
            assert_eq!(found(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn variables_that_hide_each_other() {
        for (second, hides) in [
            (json!({"name": "A", "value": "$(A)more"}), false),
            (json!({"name": "A", "value": "$(A)"}), true),
            (json!({"name": "A", "value": "b"}), true),
            (json!({"name": "A", "valueFrom": {}}), true),
            (json!({"name": "B", "value": "b"}), false),
        ] {
            let warnings = found(&json!({"containers": [{"env": [{"name": "A", "value": "a"}, second]}]}));
            let expected: &[&str] = if hides {
                &[
                    r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#,
                ]
            } else {
                &[]
            };
            assert_eq!(warnings, expected, "{second}");
        }
    }

    #[test]
    fn ports_that_are_in_each_others_way() {
        let two = |a: Value, b: Value| {
            let mut ports = [a, b];
            for port in &mut ports {
                port["containerPort"] = json!(80);
                port["protocol"] = json!("TCP");
            }
            found(&json!({"containers": [{"ports": [ports[0]]}, {"ports": [ports[1]]}]}))
        };
        let at = "spec.containers[1].ports[0]";
        let other = "spec.containers[0].ports[0]";
        assert_eq!(two(json!({}), json!({})), [format!("{at}: duplicate port definition with {other}")]);
        assert_eq!(
            two(json!({"hostPort": 1}), json!({})),
            [format!("{at}: overlapping port definition with {other}")]
        );
        assert_eq!(
            two(json!({"hostPort": 1, "hostIP": "1.1.1.1"}), json!({"hostPort": 1})),
            [format!("{at}: dangerously ambiguous port definition with {other}")]
        );
        assert!(two(json!({"hostPort": 1}), json!({"hostPort": 2})).is_empty());
        assert_eq!(
            found(
                &json!({"containers": [{"ports": [{"containerPort": 80, "protocol": "TCP", "hostIP": "1.1.1.1"}]}]})
            ),
            [format!(
                "{other}: hostIP set without hostPort: {{Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.1.1.1}}"
            )]
        );
    }

    #[test]
    fn names_and_annotations_of_pods() {
        let pod = json!({"metadata": {"name": "a.b", "annotations": {
            "scheduler.alpha.kubernetes.io/critical-pod": "", (SECCOMP_POD): "unconfined"}}});
        assert_eq!(
            of_pod(&pod),
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
                r#"metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead"#,
                r#"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead"#,
            ]
        );
    }
}
