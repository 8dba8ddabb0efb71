//! Pods: the one word that `kubectl get pods` says about them, and the rest.

use std::cmp::max;

use jiff::Timestamp;
use sampan_api::time;
use serde_json::Value;

use super::{AGE, NAME, age, column, name, or, wide};
use crate::registry::strategy::Column;
use crate::validation::view::{int, is_set, list, member, opt_text, part, text, walk};

/// The columns of pods.
pub(crate) const POD: &[Column] = &[
    NAME,
    column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "The aggregate status of the containers in this pod."),
    column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

/// The cells of a pod.
pub(crate) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (member(pod, "spec"), member(pod, "status"));
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            let ago = time::age(Some(&time::format_seconds(last)), now);
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let address = list(status, "podIPs").first().map(|address| text(address, "ip")).unwrap_or_default();
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.word.into(),
        restarts.into(),
        age(pod, now),
        or(address, "<none>"),
        or(text(spec, "nodeName"), "<none>"),
        or(text(status, "nominatedNodeName"), "<none>"),
        readiness_gates(spec, status),
    ]
}

fn readiness_gates(spec: &Value, status: &Value) -> Value {
    let gates = list(spec, "readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| is_true(status, text(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len()).into()
}

/// Whether the first condition of a type is true.
fn is_true(status: &Value, kind: &str) -> bool {
    let condition = list(status, "conditions").iter().find(|condition| text(condition, "type") == kind);
    condition.is_some_and(|condition| text(condition, "status") == "True")
}

/// What is said about a pod as a whole.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    containers: usize,
    ready: usize,
    word: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (member(pod, "spec"), member(pod, "status"));
        let sidecars = list(spec, "initContainers").iter().filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            containers: list(spec, "containers").len() + sidecars,
            word: first_word(status).to_owned(),
            ..Self::default()
        };
        let initialising = summary.initialisation(spec, status);
        if !initialising || is_true(status, "Initialized") {
            summary.restarts_of_sidecars_only(spec, status);
            summary.running(status);
        }
        let deleting = part(member(pod, "metadata"), "deletionTimestamp").is_some();
        let ended = matches!(text(status, "phase"), "Failed" | "Succeeded");
        if deleting && text(status, "reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.word);
        } else if deleting && !ended {
            "Terminating".clone_into(&mut summary.word);
        }
        summary
    }

    /// Counts in what the init containers did; answers whether they are not done.
    fn initialisation(&mut self, spec: &Value, status: &Value) -> bool {
        let all = list(spec, "initContainers").len();
        for (i, container) in list(status, "initContainerStatuses").iter().enumerate() {
            self.count_restarts(container);
            let state = member(container, "state");
            let ended = part(state, "terminated");
            if ended.is_some_and(|ended| int(ended, "exitCode").unwrap_or_default() == 0) {
                continue;
            }
            if sidecar_of(spec, container) && is_set(container, "started") {
                self.ready += usize::from(is_set(container, "ready"));
                continue;
            }
            let waiting = text(member(state, "waiting"), "reason");
            self.word = match ended {
                Some(ended) => format!("Init:{}", end_word(ended)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{i}/{all}"),
            };
            return true;
        }
        false
    }

    /// Once the pod is initialised, what its init containers went through is forgotten.
    fn restarts_of_sidecars_only(&mut self, spec: &Value, status: &Value) {
        self.restarts = 0;
        self.last_restart = None;
        for container in list(status, "initContainerStatuses").iter().filter(|c| sidecar_of(spec, c)) {
            self.count_restarts(container);
        }
    }

    fn running(&mut self, status: &Value) {
        let mut any_running = false;
        for container in list(status, "containerStatuses").iter().rev() {
            self.count_restarts(container);
            let state = member(container, "state");
            let waiting = text(member(state, "waiting"), "reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.word);
            } else if let Some(ended) = part(state, "terminated") {
                self.word = end_word(ended);
            } else if is_set(container, "ready") && part(state, "running").is_some() {
                any_running = true;
                self.ready += 1;
            }
        }
        // One container may be done while another still works.
        if self.word == "Completed" && any_running {
            let word = if is_true(status, "Ready") { "Running" } else { "NotReady" };
            word.clone_into(&mut self.word);
        }
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += int(container, "restartCount").unwrap_or_default();
        let last = walk(container, &["lastState", "terminated"]);
        self.last_restart = max(self.last_restart, opt_text(last, "finishedAt").and_then(time::parse));
    }
}

/// The phase, unless there is more to say.
fn first_word(status: &Value) -> &str {
    let gated = list(status, "conditions")
        .iter()
        .any(|c| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated");
    match text(status, "reason") {
        _ if gated => "SchedulingGated",
        "" => text(status, "phase"),
        reason => reason,
    }
}

/// How a container ended.
fn end_word(ended: &Value) -> String {
    match (text(ended, "reason"), int(ended, "signal").unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", int(ended, "exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn sidecar_of(spec: &Value, status: &Value) -> bool {
    let own = list(spec, "initContainers").iter().rfind(|c| text(c, "name") == text(status, "name"));
    own.is_some_and(is_sidecar)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2025-01-01T01:00:00Z";

    /// READY, STATUS and RESTARTS.
    fn shown(spec: Value, status: Value) -> [String; 3] {
        shown_of(&json!({"metadata": {"name": "p"}, "spec": spec, "status": status}))
    }

    fn shown_of(pod: &Value) -> [String; 3] {
        let cells = cells(pod, NOW.parse().unwrap());
        [1, 2, 3].map(|i| cells[i].as_str().unwrap().to_owned())
    }

    fn containers(n: usize) -> Value {
        json!((0..n).map(|i| json!({"name": format!("c{i}")})).collect::<Vec<_>>())
    }

    #[test]
    fn the_word_about_the_containers() {
        let running = json!({"name": "c0", "ready": true, "state": {"running": {}}});
        let ended = |reason: &str, code: i32, signal: i32| json!({"name": "c1", "state": {"terminated": {"reason": reason, "exitCode": code, "signal": signal}}});
        let waiting = |reason: &str| json!({"name": "c1", "state": {"waiting": {"reason": reason}}});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        for (n, status, expected) in [
            (1, json!({"phase": "Pending"}), ["0/1", "Pending", "0"]),
            (1, json!({"phase": "Failed", "reason": "Evicted"}), ["0/1", "Evicted", "0"]),
            (1, json!({"phase": "Running", "containerStatuses": [running]}), ["1/1", "Running", "0"]),
            (
                2,
                json!({"phase": "Running", "containerStatuses": [running, waiting("CrashLoopBackOff")]}),
                ["1/2", "CrashLoopBackOff", "0"],
            ),
            (
                1,
                json!({"phase": "Pending", "containerStatuses": [waiting("ErrImagePull")]}),
                ["0/1", "ErrImagePull", "0"],
            ),
            (1, json!({"phase": "Pending", "containerStatuses": [waiting("")]}), ["0/1", "Pending", "0"]),
            (
                1,
                json!({"phase": "Succeeded", "containerStatuses": [ended("Completed", 0, 0)]}),
                ["0/1", "Completed", "0"],
            ),
            (
                2,
                json!({"phase": "Running", "conditions": ready, "containerStatuses": [ended("Completed", 0, 0), running]}),
                ["1/2", "Running", "0"],
            ),
            (
                2,
                json!({"phase": "Running", "containerStatuses": [ended("Completed", 0, 0), running]}),
                ["1/2", "NotReady", "0"],
            ),
            (
                1,
                json!({"phase": "Failed", "containerStatuses": [ended("OOMKilled", 137, 0)]}),
                ["0/1", "OOMKilled", "0"],
            ),
            (
                1,
                json!({"phase": "Failed", "containerStatuses": [ended("", 3, 0)]}),
                ["0/1", "ExitCode:3", "0"],
            ),
            (
                1,
                json!({"phase": "Failed", "containerStatuses": [ended("", 137, 9)]}),
                ["0/1", "Signal:9", "0"],
            ),
            (
                1,
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                ["0/1", "SchedulingGated", "0"],
            ),
        ] {
            assert_eq!(shown(json!({"containers": containers(n)}), status.clone()), expected, "{status}");
        }
    }

    #[test]
    fn the_word_about_initialisation() {
        let spec = json!({"containers": containers(1), "initContainers": [{"name": "a"}, {"name": "b"}]});
        let done = json!({"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let main = json!([{"name": "c0", "state": {"waiting": {"reason": "PodInitializing"}}}]);
        for (second, expected) in [
            (json!({"running": {}}), "Init:1/2"),
            (json!({"waiting": {"reason": "PodInitializing"}}), "Init:1/2"),
            (json!({"waiting": {"reason": "CrashLoopBackOff"}}), "Init:CrashLoopBackOff"),
            (json!({"terminated": {"exitCode": 1, "reason": "Error"}}), "Init:Error"),
            (json!({"terminated": {"exitCode": 2}}), "Init:ExitCode:2"),
            (json!({"terminated": {"exitCode": 137, "signal": 9}}), "Init:Signal:9"),
            (json!({"terminated": {"exitCode": 0}}), "PodInitializing"),
        ] {
            let status = json!({"phase": "Pending", "containerStatuses": main,
                "initContainerStatuses": [done, {"name": "b", "state": second}]});
            assert_eq!(shown(spec.clone(), status)[1], expected, "{second}");
        }
    }

    #[test]
    fn sidecars_count_as_containers() {
        let spec = json!({"containers": containers(1), "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let sidecar = |started: bool, ready: bool| json!([{"name": "s", "started": started, "ready": ready, "restartCount": 2, "state": {"running": {}}}]);
        let main = json!([{"name": "c0", "ready": true, "restartCount": 1, "state": {"running": {}}}]);
        let status = |init: Value| json!({"phase": "Running", "initContainerStatuses": init, "containerStatuses": main});
        assert_eq!(shown(spec.clone(), status(sidecar(true, true))), ["2/2", "Running", "3"]);
        assert_eq!(shown(spec.clone(), status(sidecar(true, false))), ["1/2", "Running", "3"]);
        assert_eq!(shown(spec, status(sidecar(false, false))), ["0/2", "Init:0/1", "2"]);
    }

    #[test]
    fn restarts_say_how_long_ago() {
        let container = |finished: &str| {
            json!({"name": "c0", "restartCount": 3, "ready": true, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": finished}}})
        };
        let status = json!({"phase": "Running", "containerStatuses": [
            container("2025-01-01T00:55:00Z"), container("2025-01-01T00:10:00Z")]});
        assert_eq!(shown(json!({"containers": containers(2)}), status)[2], "6 (5m ago)");
        // What init containers went through is forgotten once they are done.
        let status = json!({"phase": "Running", "containerStatuses": [],
            "initContainerStatuses": [{"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}}]});
        assert_eq!(
            shown(json!({"containers": containers(1), "initContainers": [{"name": "i"}]}), status)[2],
            "0"
        );
    }

    #[test]
    fn deleted_pods_terminate_unless_they_ended_or_their_node_is_lost() {
        for (status, expected) in [
            (json!({"phase": "Running"}), "Terminating"),
            (json!({"phase": "Succeeded"}), "Succeeded"),
            (json!({"phase": "Running", "reason": "NodeLost"}), "Unknown"),
        ] {
            let pod = json!({"metadata": {"deletionTimestamp": NOW}, "status": status});
            assert_eq!(shown_of(&pod)[1], expected, "{pod}");
        }
    }

    #[test]
    fn wide_cells() {
        let now = NOW.parse().unwrap();
        let pod = json!({
            "metadata": {"name": "p", "creationTimestamp": "2025-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "nominatedNodeName": "m",
                "conditions": [{"type": "a", "status": "True"}, {"type": "b", "status": "False"}]},
        });
        assert_eq!(
            cells(&pod, now)[4..],
            [json!("60m"), json!("10.0.0.1"), json!("n"), json!("m"), json!("1/2")]
        );
        let none = json!("<none>");
        assert_eq!(cells(&json!({}), now)[5..], [none.clone(), none.clone(), none.clone(), none]);
    }
}
