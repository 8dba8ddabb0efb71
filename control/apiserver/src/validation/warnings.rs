//! What a pod may ask for that nothing of ours acts upon: the one list, by field.
//!
//! Such a field is valid API, so it is accepted; the answer names it in a `Warning` header. Whoever
//! makes a field act takes its row out.

use sampan_api::field::FieldPath;
use serde_json::Value;

use super::pod::each_container;
use super::resources::{is_extended, is_huge_pages};
use super::view::{int, is_set, list, map, member, non_zero, opt_text, part, text, walk};
use super::volumes::source_names;

const NO_EFFECT: &str = "has no effect for WebAssembly containers";
const NOT_YET: &str = "is not acted upon yet";

/// When a field asks for something.
#[derive(Clone, Copy)]
enum When {
    /// It is there.
    Present,
    /// It is there and not empty.
    Filled,
    /// It is true.
    True,
    /// It is false.
    False,
    /// It is there with another value than this one.
    OtherThan(&'static str),
}

impl When {
    fn holds(self, at: &Value, field: &str) -> bool {
        match self {
            Self::Present => part(at, field).is_some(),
            Self::Filled => non_zero(at, field).is_some(),
            Self::True => is_set(at, field),
            Self::False => at.get(field) == Some(&Value::Bool(false)),
            Self::OtherThan(usual) => {
                opt_text(at, field).is_some_and(|value| !value.is_empty() && value != usual)
            }
        }
    }
}

/// A field below some place, when it asks for something, and what is said then.
struct Row(&'static [&'static str], When, &'static str);

/// Fields of a pod's spec.
const POD: &[Row] = &[
    Row(&["hostPID"], When::True, NO_EFFECT),
    Row(&["hostIPC"], When::True, NO_EFFECT),
    Row(&["hostUsers"], When::False, NO_EFFECT),
    Row(&["shareProcessNamespace"], When::True, NO_EFFECT),
    Row(&["setHostnameAsFQDN"], When::True, NOT_YET),
    Row(&["subdomain"], When::Filled, NOT_YET),
    Row(&["dnsConfig"], When::Present, NOT_YET),
    Row(&["runtimeClassName"], When::Filled, "runtime classes are not known yet"),
    Row(&["priorityClassName"], When::Filled, "orders pods that wait; none is preempted yet"),
    Row(&["imagePullSecrets"], When::Filled, "registries are not asked yet"),
    Row(&["resources"], When::Present, "resources of a whole pod are not enforced yet"),
    Row(&["resourceClaims"], When::Filled, "resource claims are not known yet"),
    Row(&["workloadRef"], When::Present, "workloads are not known yet"),
    Row(&["topologySpreadConstraints"], When::Filled, NOT_YET),
    Row(&["affinity", "podAffinity"], When::Present, NOT_YET),
    Row(&["affinity", "podAntiAffinity"], When::Present, NOT_YET),
    Row(&["os", "name"], When::OtherThan("linux"), "no node of this cluster runs that system"),
    Row(&["securityContext", "runAsUser"], When::Present, NO_EFFECT),
    Row(&["securityContext", "runAsGroup"], When::Present, NO_EFFECT),
    Row(&["securityContext", "fsGroup"], When::Present, NO_EFFECT),
    Row(&["securityContext", "fsGroupChangePolicy"], When::Present, NO_EFFECT),
    Row(&["securityContext", "supplementalGroups"], When::Filled, NO_EFFECT),
    Row(&["securityContext", "supplementalGroupsPolicy"], When::Present, NO_EFFECT),
    Row(&["securityContext", "seLinuxOptions"], When::Present, NO_EFFECT),
    Row(&["securityContext", "seLinuxChangePolicy"], When::Present, NO_EFFECT),
    Row(&["securityContext", "seccompProfile"], When::Present, NO_EFFECT),
    Row(&["securityContext", "appArmorProfile"], When::Present, NO_EFFECT),
    Row(&["securityContext", "sysctls"], When::Filled, NO_EFFECT),
    Row(&["securityContext", "windowsOptions"], When::Present, NO_EFFECT),
];

/// Fields of a container of any sort.
///
/// What only takes away (`runAsNonRoot`, `allowPrivilegeEscalation: false`, `capabilities.drop`) is
/// not here: a guest has none of it to begin with.
const CONTAINER: &[Row] = &[
    Row(&["livenessProbe"], When::Present, "probes are not run yet"),
    Row(&["readinessProbe"], When::Present, "probes are not run yet"),
    Row(&["startupProbe"], When::Present, "probes are not run yet"),
    Row(&["lifecycle", "postStart"], When::Present, "lifecycle hooks are not run yet"),
    Row(&["lifecycle", "preStop"], When::Present, "lifecycle hooks are not run yet"),
    Row(&["lifecycle", "stopSignal"], When::Filled, NOT_YET),
    Row(&["stdin"], When::True, "attaching is not possible yet"),
    Row(&["tty"], When::True, "attaching is not possible yet"),
    Row(&["volumeDevices"], When::Filled, NO_EFFECT),
    Row(&["resizePolicy"], When::Filled, "containers are not resized yet"),
    Row(&["resources", "claims"], When::Filled, "resource claims are not known yet"),
    Row(&["securityContext", "privileged"], When::True, NO_EFFECT),
    Row(&["securityContext", "allowPrivilegeEscalation"], When::True, NO_EFFECT),
    Row(&["securityContext", "capabilities", "add"], When::Filled, NO_EFFECT),
    Row(&["securityContext", "runAsUser"], When::Present, NO_EFFECT),
    Row(&["securityContext", "runAsGroup"], When::Present, NO_EFFECT),
    Row(&["securityContext", "procMount"], When::OtherThan("Default"), NO_EFFECT),
    Row(&["securityContext", "seLinuxOptions"], When::Present, NO_EFFECT),
    Row(&["securityContext", "seccompProfile"], When::Present, NO_EFFECT),
    Row(&["securityContext", "appArmorProfile"], When::Present, NO_EFFECT),
    Row(&["securityContext", "windowsOptions"], When::Present, NO_EFFECT),
];

/// Fields of a toleration.
const TOLERATION: &[Row] =
    &[Row(&["tolerationSeconds"], When::Present, "pods are not evicted for a node's taints yet")];

/// Tolerations for this long are given to every pod, for these taints: nobody asked for them.
const GIVEN_TOLERATIONS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const GIVEN_SECONDS: i64 = 300;

/// Fields of a port.
const PORT: &[Row] =
    &[Row(&["hostIP"], When::OtherThan("0.0.0.0"), "a host port is open on all addresses of the node")];

/// Fields of a mount.
const MOUNT: &[Row] = &[
    Row(&["mountPropagation"], When::OtherThan("None"), NO_EFFECT),
    Row(&["recursiveReadOnly"], When::OtherThan("Disabled"), NO_EFFECT),
];

/// Fields of a variable.
const VARIABLE: &[Row] =
    &[Row(&["valueFrom", "fileKeyRef"], When::Present, "is not supported, the container will not start")];

/// Fields of a volume whose source is mounted.
const VOLUME: &[Row] =
    &[Row(&["emptyDir", "medium"], When::OtherThan("Memory"), "only Memory and the default are supported")];

/// Sources of volumes that are mounted; the others are not, and a pod with one does not start.
const MOUNTED: &[&str] = &["emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected"];

/// Sources in a projected volume that are not mounted.
const NOT_PROJECTED: &[&str] = &["clusterTrustBundle", "podCertificate"];

const NOT_MOUNTED: &str = "volumes of this type are not supported";

/// What a pod asks for in vain.
pub(crate) fn of_pod(pod: &Value) -> Vec<String> {
    of_spec(member(pod, "spec"), &FieldPath::new("spec"))
}

/// What the spec of a pod or a template asks for in vain.
pub fn of_spec(spec: &Value, path: &FieldPath) -> Vec<String> {
    let mut out = Vec::new();
    rows(POD, spec, path, &mut out);
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        volume_source(volume, &path.child("volumes").index(i), &mut out);
    }
    for (i, toleration) in list(spec, "tolerations").iter().enumerate().filter(|(_, t)| !is_given(t)) {
        rows(TOLERATION, toleration, &path.child("tolerations").index(i), &mut out);
    }
    each_container(spec, path, |container, path| {
        rows(CONTAINER, container, path, &mut out);
        for (i, variable) in list(container, "env").iter().enumerate() {
            rows(VARIABLE, variable, &path.child("env").index(i), &mut out);
        }
        for (i, port) in list(container, "ports").iter().enumerate() {
            rows(PORT, port, &path.child("ports").index(i), &mut out);
        }
        for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
            rows(MOUNT, mount, &path.child("volumeMounts").index(i), &mut out);
        }
        resources(container, &path.child("resources"), &mut out);
    });
    out
}

fn rows(rows: &[Row], at: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for Row(names, when, text) in rows {
        let Some((field, way)) = names.split_last() else { continue };
        if when.holds(walk(at, way), field) {
            let path = names.iter().fold(path.clone(), |path, name| path.child(name));
            out.push(format!("{path}: {text}"));
        }
    }
}

/// Whether a toleration is like those that admission adds.
fn is_given(toleration: &Value) -> bool {
    GIVEN_TOLERATIONS.contains(&text(toleration, "key"))
        && int(toleration, "tolerationSeconds") == Some(GIVEN_SECONDS)
}

fn volume_source(volume: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for source in source_names().filter(|source| part(volume, source).is_some() && !MOUNTED.contains(source))
    {
        out.push(format!("{}: {NOT_MOUNTED}", path.child(source)));
    }
    rows(VOLUME, volume, path, out);
    for (i, source) in list(member(volume, "projected"), "sources").iter().enumerate() {
        for kind in NOT_PROJECTED.iter().filter(|kind| part(source, kind).is_some()) {
            let path = path.child("projected").child("sources").index(i).child(kind);
            out.push(format!("{path}: {NOT_MOUNTED}"));
        }
    }
}

/// Devices and pages that no node has, and disk space that nobody counts.
fn resources(container: &Value, path: &FieldPath, out: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        for name in map(member(container, "resources"), list).keys() {
            let text = if is_extended(name) || is_huge_pages(name) {
                "no node offers this resource"
            } else if name == "ephemeral-storage" && list == "limits" {
                "is not enforced yet"
            } else {
                continue;
            };
            out.push(format!("{}: {text}", path.child(list).key(name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: &Value) -> Vec<String> {
        of_spec(spec, &FieldPath::new("spec"))
    }

    #[test]
    fn an_ordinary_pod_is_not_warned_about() {
        let spec = json!({
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "preemptionPolicy": "PreemptLowerPriority", "enableServiceLinks": true, "serviceAccountName": "default",
            "securityContext": {"runAsNonRoot": true},
            "hostNetwork": true, "hostAliases": [{"ip": "1.1.1.1"}], "hostname": "h", "hostnameOverride": "o",
            "affinity": {"nodeAffinity": {}}, "nodeSelector": {"a": "b"}, "priority": 0,
            "tolerations": [
                {"operator": "Exists"},
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "projected": {"sources": [{"secret": {}}]}}],
            "initContainers": [{"name": "i", "restartPolicy": "Always"}],
            "containers": [{
                "name": "c", "restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"ephemeral-storage": "1Gi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true, "privileged": false},
                "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "0.0.0.0", "protocol": "TCP"}],
                "volumeMounts": [{"name": "a", "mountPath": "/a", "readOnly": true, "subPath": "b"}],
            }],
        });
        assert_eq!(found(&spec), [""; 0]);
    }

    #[test]
    fn what_does_not_act_is_named() {
        for (spec, expected) in [
            (json!({"hostPID": true}), "spec.hostPID: has no effect for WebAssembly containers"),
            (json!({"hostUsers": false}), "spec.hostUsers: has no effect for WebAssembly containers"),
            (
                json!({"securityContext": {"fsGroup": 0}}),
                "spec.securityContext.fsGroup: has no effect for WebAssembly containers",
            ),
            (json!({"affinity": {"podAffinity": {}}}), "spec.affinity.podAffinity: is not acted upon yet"),
            (
                json!({"affinity": {"nodeAffinity": {}, "podAntiAffinity": {}}}),
                "spec.affinity.podAntiAffinity: is not acted upon yet",
            ),
            (
                json!({"topologySpreadConstraints": [{}]}),
                "spec.topologySpreadConstraints: is not acted upon yet",
            ),
            (
                json!({"priorityClassName": "system-node-critical", "preemptionPolicy": "PreemptLowerPriority"}),
                "spec.priorityClassName: orders pods that wait; none is preempted yet",
            ),
            (
                json!({"tolerations": [
                    {"key": "node.kubernetes.io/unreachable", "tolerationSeconds": 300},
                    {"key": "node.kubernetes.io/unreachable", "tolerationSeconds": 30},
                ]}),
                "spec.tolerations[1].tolerationSeconds: pods are not evicted for a node's taints yet",
            ),
            (
                json!({"containers": [{"ports": [{}, {"hostPort": 80, "hostIP": "127.0.0.1"}]}]}),
                "spec.containers[0].ports[1].hostIP: a host port is open on all addresses of the node",
            ),
            (
                json!({"containers": [{"livenessProbe": {}}]}),
                "spec.containers[0].livenessProbe: probes are not run yet",
            ),
            (
                json!({"containers": [{}, {"lifecycle": {"preStop": {}}}]}),
                "spec.containers[1].lifecycle.preStop: lifecycle hooks are not run yet",
            ),
            (
                json!({"initContainers": [{"securityContext": {"privileged": true}}]}),
                "spec.initContainers[0].securityContext.privileged: has no effect for WebAssembly containers",
            ),
            (
                json!({"containers": [{"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]}),
                "spec.containers[0].securityContext.capabilities.add: has no effect for WebAssembly containers",
            ),
            (
                json!({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}),
                "spec.containers[0].resources.limits[nvidia.com/gpu]: no node offers this resource",
            ),
            (
                json!({"containers": [{"env": [{"valueFrom": {"fileKeyRef": {}}}]}]}),
                "spec.containers[0].env[0].valueFrom.fileKeyRef: is not supported, the container will not start",
            ),
            (
                json!({"containers": [{"volumeMounts": [{"mountPropagation": "HostToContainer"}]}]}),
                "spec.containers[0].volumeMounts[0].mountPropagation: has no effect for WebAssembly containers",
            ),
            (
                json!({"volumes": [{"nfs": {}}]}),
                "spec.volumes[0].nfs: volumes of this type are not supported",
            ),
            (
                json!({"volumes": [{"projected": {"sources": [{"clusterTrustBundle": {}}]}}]}),
                "spec.volumes[0].projected.sources[0].clusterTrustBundle: volumes of this type are not supported",
            ),
            (
                json!({"volumes": [{"emptyDir": {"medium": "Memory"}}, {"emptyDir": {"medium": "HugePages"}}]}),
                "spec.volumes[1].emptyDir.medium: only Memory and the default are supported",
            ),
        ] {
            assert_eq!(found(&spec), [expected], "{spec}");
        }
    }

    #[test]
    fn every_source_that_is_not_mounted_is_named() {
        for source in source_names() {
            let warnings = found(&json!({"volumes": [{(source): {}}]}));
            assert_eq!(warnings.is_empty(), MOUNTED.contains(&source), "{source}");
            assert!(
                warnings.iter().all(|warning| warning.starts_with(&format!("spec.volumes[0].{source}: ")))
            );
        }
    }
}
