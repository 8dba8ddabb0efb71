//! What a pod's status says at each step of its life.

use std::path::PathBuf;

use sampan_cri::{ContainerId, SandboxId};
use serde_json::{Value, json};

use super::*;
use crate::pod::memory::{Exit, Failure, FailureKind, Record, SandboxFacts, Stage, Verdict, VolumeStage};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 3 }, "spec": spec
    }))
    .unwrap()
}

fn simple() -> Pod {
    pod(json!({ "containers": [{ "name": "a", "image": "x" }] }))
}

fn up() -> Memory {
    let mut memory = Memory::new(at(0));
    memory.volumes.stage = VolumeStage::Mounted;
    memory.sandbox = Sandbox::Ready(SandboxFacts {
        id: SandboxId("s".into()),
        attempt: 0,
        addresses: vec!["10.42.0.7".parse().unwrap()],
    });
    memory
}

fn record(attempt: u32, stage: Stage) -> Record {
    Record {
        id: ContainerId(format!("c{attempt}")),
        sandbox: SandboxId("s".into()),
        attempt,
        image: "docker.io/x:latest".into(),
        image_id: "sha256:1".into(),
        log_path: PathBuf::new(),
        stage,
        interrupted: false,
    }
}

fn exit(code: i32, finished: i64) -> Stage {
    let reason = if code == 0 { "Completed" } else { "Error" };
    Stage::Exited(Exit {
        code,
        reason: reason.into(),
        message: "last words".into(),
        started_at: Some(at(1)),
        finished_at: at(finished),
    })
}

fn build(pod: &Pod, memory: &Memory, now: i64) -> Value {
    serde_json::to_value(status(pod, memory, None, "192.0.2.9".parse().unwrap(), at(now))).unwrap()
}

fn condition<'a>(status: &'a Value, type_: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == type_).unwrap()
}

#[test]
fn a_pod_that_is_being_set_up_is_pending() {
    let status = build(&simple(), &Memory::new(at(0)), 1);
    assert_eq!(status["phase"], "Pending");
    assert_eq!(
        status["containerStatuses"][0]["state"],
        json!({ "waiting": { "reason": "ContainerCreating" } })
    );
    assert_eq!(status["startTime"], "2026-01-01T00:00:00Z");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(condition(&status, "PodReadyToStartContainers")["status"], "False");
    assert_eq!(condition(&status, "Initialized")["status"], "True");
    let ready = condition(&status, "Ready");
    assert_eq!(
        (ready["status"].as_str(), ready["reason"].as_str()),
        (Some("False"), Some("ContainersNotReady"))
    );
    assert_eq!(ready["message"], "containers with unready status: [a]");
}

#[test]
fn a_running_pod_is_ready() {
    let mut memory = up();
    memory.cell_mut("a").put(record(0, Stage::Running { started_at: at(2) }));
    let status = build(&simple(), &memory, 3);
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.42.0.7");
    assert_eq!(status["podIPs"], json!([{ "ip": "10.42.0.7" }]));
    assert_eq!(status["hostIP"], "192.0.2.9");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"], json!({ "running": { "startedAt": "2026-01-01T00:00:02Z" } }));
    assert_eq!(container["containerID"], "wasm://c0");
    assert_eq!(container["imageID"], "sha256:1");
    assert_eq!(
        (&container["ready"], &container["started"], &container["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    for type_ in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&status, type_)["status"], "True", "{type_}");
    }
}

#[test]
fn a_crashing_container_waits_with_its_last_end_told() {
    let mut memory = up();
    let cell = memory.cell_mut("a");
    cell.put(record(0, exit(1, 5)));
    cell.put(record(1, exit(7, 20)));
    cell.crash.advance(at(5), at(5));
    let status = build(&simple(), &memory, 21);
    let container = &status["containerStatuses"][0];
    assert_eq!(
        container["state"],
        json!({ "waiting": {
        "reason": "CrashLoopBackOff",
        "message": "back-off 10s restarting failed container=a pod=p_ns(u)"
    } })
    );
    assert_eq!(
        container["lastState"]["terminated"],
        json!({
            "containerID": "wasm://c1", "exitCode": 7, "reason": "Error", "message": "last words",
            "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:20Z"
        })
    );
    assert_eq!(container["restartCount"], 1);
    assert_eq!(status["phase"], "Running");
}

#[test]
fn why_a_container_does_not_start_is_told() {
    for (kind, age, reason, message) in [
        (FailureKind::Pull, 0, "ErrImagePull", "why"),
        (FailureKind::Pull, 2, "ImagePullBackOff", "Back-off pulling image \"x\": ErrImagePull: why"),
        (FailureKind::NeverPull, 2, "ErrImageNeverPull", "why"),
        (FailureKind::ImageName, 0, "InvalidImageName", "why"),
        (FailureKind::Config, 2, "CreateContainerConfigError", "why"),
        (FailureKind::Create, 2, "CreateContainerError", "why"),
        (FailureKind::Run, 2, "RunContainerError", "why"),
    ] {
        let mut memory = up();
        memory.cell_mut("a").failure =
            Some(Failure { kind, message: "why".into(), at: at(0), retry_at: at(10), told: false });
        let status = build(&simple(), &memory, age);
        assert_eq!(
            status["containerStatuses"][0]["state"],
            json!({ "waiting": { "reason": reason, "message": message } })
        );
        assert_eq!(status["phase"], "Pending");
    }
}

#[test]
fn init_containers_hold_the_rest_back() {
    let pod = pod(json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] }));
    let mut memory = up();
    memory.cell_mut("i").put(record(0, Stage::Running { started_at: at(2) }));
    let status = build(&pod, &memory, 3);
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let initialized = condition(&status, "Initialized");
    assert_eq!(initialized["status"], "False");
    assert_eq!(initialized["reason"], "ContainersNotInitialized");
    assert_eq!(initialized["message"], "containers with incomplete status: [i]");
    assert_eq!(status["phase"], "Pending");
}

#[test]
fn a_finished_pod_tells_how_it_ended() {
    let pod = pod(json!({ "restartPolicy": "Never", "containers": [{ "name": "a" }] }));
    for (code, phase, reason) in [(0, "Succeeded", "PodCompleted"), (2, "Failed", "PodFailed")] {
        let mut memory = up();
        memory.completed = true;
        memory.cell_mut("a").put(record(0, exit(code, 9)));
        let status = build(&pod, &memory, 10);
        assert_eq!(status["phase"], phase);
        assert_eq!(condition(&status, "Ready")["reason"], reason);
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], code);
        assert_eq!(status["podIP"], "10.42.0.7", "the address stays told");
    }
}

#[test]
fn a_verdict_counts_when_nothing_runs_any_more() {
    let mut memory = up();
    memory.verdict = Some(Verdict { reason: "Evicted".into(), message: "too big".into(), rejected: false });
    memory.cell_mut("a").put(record(0, Stage::Running { started_at: at(2) }));
    let status = build(&simple(), &memory, 3);
    assert_eq!((status["phase"].as_str(), &status["reason"]), (Some("Running"), &Value::Null));
    assert_eq!(condition(&status, "DisruptionTarget")["reason"], "TerminationByKubelet");
    memory.cell_mut("a").put(record(0, exit(143, 5)));
    let status = build(&simple(), &memory, 6);
    assert_eq!((status["phase"].as_str(), status["reason"].as_str()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn a_rejected_pod_shows_no_containers() {
    let mut memory = Memory::new(at(0));
    memory.verdict =
        Some(Verdict { reason: "OutOfcpu".into(), message: "Pod was rejected: …".into(), rejected: true });
    let status = build(&simple(), &memory, 1);
    assert_eq!((status["phase"].as_str(), status["reason"].as_str()), (Some("Failed"), Some("OutOfcpu")));
    assert_eq!(status["containerStatuses"], Value::Null);
}

#[test]
fn times_of_conditions_change_only_with_them_and_foreign_conditions_are_left_alone() {
    let mut pod = simple();
    let mut memory = up();
    pod.status = Some(status(&pod, &memory, None, "192.0.2.9".parse().unwrap(), at(0)));
    pod.status
        .as_mut()
        .unwrap()
        .conditions
        .as_mut()
        .unwrap()
        .push(serde_json::from_value(json!({ "type": "example.com/gate", "status": "False" })).unwrap());
    memory.cell_mut("a").put(record(0, Stage::Running { started_at: at(2) }));
    let status = build(&pod, &memory, 60);
    assert_eq!(condition(&status, "PodScheduled")["lastTransitionTime"], "2026-01-01T00:00:00Z");
    assert_eq!(condition(&status, "Ready")["lastTransitionTime"], "2026-01-01T00:01:00Z");
    let types: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert!(!types.contains(&json!("example.com/gate")), "{types:?}");
}

#[test]
fn readiness_gates_hold_readiness_back() {
    let mut pod = pod(json!({
        "readinessGates": [{ "conditionType": "example.com/gate" }], "containers": [{ "name": "a" }]
    }));
    let mut memory = up();
    memory.cell_mut("a").put(record(0, Stage::Running { started_at: at(2) }));
    let ready = condition(&build(&pod, &memory, 3), "Ready").clone();
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    assert_eq!(
        ready["message"],
        "corresponding condition of pod readiness gate \"example.com/gate\" does not exist."
    );
    pod.status = Some(
        serde_json::from_value(json!({ "conditions": [{ "type": "example.com/gate", "status": "True" }] }))
            .unwrap(),
    );
    assert_eq!(condition(&build(&pod, &memory, 3), "Ready")["status"], "True");
}
