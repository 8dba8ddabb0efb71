//! Tables of the lifecycle: a pod, what happened, and the exact actions that follow.

use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sampan_cri::{ContainerId, SandboxId};
use serde_json::{Value, json};

use super::*;
use crate::pod::event::{Event, Started};
use crate::pod::memory::{Exit, FailureKind, Stage};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// A pod that is driven by hand.
struct Driven {
    pod: Pod,
    memory: Memory,
    now: i64,
}

impl Driven {
    fn new(spec: Value) -> Self {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" }, "spec": spec
        }))
        .unwrap();
        Self { pod, memory: Memory::new(at(0)), now: 0 }
    }

    fn simple(policy: &str) -> Self {
        let mut driven =
            Self::new(json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": "x" }] }));
        driven.up();
        driven
    }

    /// Volumes and sandbox come up.
    fn up(&mut self) {
        self.plan();
        self.event(Event::VolumesMounted { resync_at: None });
        self.sandbox("s0", 0);
    }

    fn sandbox(&mut self, id: &str, attempt: u32) -> Vec<String> {
        self.event(Event::SandboxCreated(SandboxFacts {
            id: SandboxId(id.into()),
            attempt,
            addresses: vec!["10.42.0.1".parse().unwrap()],
        }))
    }

    fn plan(&mut self) -> Vec<String> {
        let plan = plan(&self.pod, &mut self.memory, at(self.now));
        self.memory.validate().unwrap();
        plan.actions.iter().map(show).collect()
    }

    fn wake(&mut self) -> Option<i64> {
        plan(&self.pod, &mut self.memory, at(self.now)).wake.map(|wake| wake.as_second() - 1_000_000)
    }

    fn event(&mut self, event: Event) -> Vec<String> {
        self.memory.apply(event, at(self.now));
        self.plan()
    }

    fn record(&self, name: &str, stage: Stage) -> Record {
        let attempt = self.memory.newest(name).map_or(0, |record| match record.stage {
            Stage::Exited(_) => record.attempt + 1,
            _ => record.attempt,
        });
        Record {
            id: ContainerId(format!("{name}{attempt}")),
            sandbox: self
                .memory
                .sandbox
                .facts()
                .map_or_else(|| SandboxId("s0".into()), |facts| facts.id.clone()),
            attempt,
            image: "x".into(),
            image_id: "sha256:1".into(),
            log_path: PathBuf::new(),
            stage,
            interrupted: false,
        }
    }

    fn started(&mut self, name: &str) -> Vec<String> {
        let record = self.record(name, Stage::Running { started_at: at(self.now) });
        self.event(Event::StartDone { name: name.into(), result: Started::Yes(Box::new(record)) })
    }

    fn failed(&mut self, name: &str, kind: FailureKind) -> Vec<String> {
        let result = Started::No { kind, message: "why".into(), record: None };
        self.event(Event::StartDone { name: name.into(), result })
    }

    fn exited(&mut self, name: &str, code: i32) -> Vec<String> {
        let exit = Exit {
            code,
            reason: "Error".into(),
            message: String::new(),
            started_at: Some(at(self.now)),
            finished_at: at(self.now),
        };
        let record = self.record(name, Stage::Exited(exit));
        self.event(Event::Container { name: name.into(), record: Box::new(record) })
    }

    fn stopped(&mut self, name: &str, code: i32) -> Vec<String> {
        self.exited(name, code);
        self.event(Event::StopDone { name: name.into() })
    }

    fn delete(&mut self, grace: i64) -> Vec<String> {
        let time = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        self.pod.metadata.deletion_timestamp = Some(time);
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.event(Event::Changed)
    }
}

/// Actions as short words.
fn show(action: &Action) -> String {
    match action {
        Action::MountVolumes => "mount".into(),
        Action::SyncVolumes => "sync".into(),
        Action::ReleaseVolumes => "unmount".into(),
        Action::CreateSandbox { attempt } => format!("sandbox #{attempt}"),
        Action::StopSandbox(facts) => format!("stop sandbox {}", facts.id.0),
        Action::RemoveSandbox(id) => format!("remove sandbox {}", id.0),
        Action::Start { name, attempt } => format!("start {name} #{attempt}"),
        Action::CancelStart { name } => format!("cancel {name}"),
        Action::Stop { id, grace, .. } => format!("stop {} {}s", id.0, grace.as_secs()),
        Action::RemoveContainer { record, .. } => format!("remove {}", record.id.0),
        Action::RemovePod => "remove pod".into(),
        Action::Finish => "finish".into(),
        Action::Tell { reason, message, .. } => format!("tell {reason}: {message}"),
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_pod_comes_up_volumes_first_then_sandbox_then_containers() {
    let mut pod = Driven::new(json!({ "containers": [{ "name": "a" }, { "name": "b" }] }));
    assert_eq!(pod.plan(), ["mount"]);
    assert_eq!(pod.plan(), NOTHING, "nothing is ordered twice");
    assert_eq!(pod.event(Event::VolumesMounted { resync_at: None }), ["sandbox #0"]);
    assert_eq!(pod.sandbox("s0", 0), ["start a #0", "start b #0"]);
    assert_eq!(pod.started("a"), NOTHING);
    assert_eq!(pod.started("b"), NOTHING);
    assert_eq!(pod.wake(), None, "a running pod needs no timer");
}

#[test]
fn init_containers_run_one_after_the_other() {
    let mut pod = Driven::new(json!({
        "initContainers": [{ "name": "i" }, { "name": "j" }], "containers": [{ "name": "a" }]
    }));
    pod.plan();
    pod.event(Event::VolumesMounted { resync_at: None });
    assert_eq!(pod.sandbox("s0", 0), ["start i #0"]);
    assert_eq!(pod.started("i"), NOTHING);
    assert_eq!(pod.exited("i", 0), ["start j #0"]);
    assert_eq!(pod.started("j"), NOTHING);
    assert_eq!(pod.exited("j", 1), ["start j #1"], "retried, the first time at once");
    pod.started("j");
    assert_eq!(pod.exited("j", 0), ["start a #0"]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let mut pod = Driven::new(json!({
        "restartPolicy": "Never", "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }]
    }));
    pod.up();
    pod.started("i");
    assert_eq!(pod.exited("i", 3), ["stop sandbox s0"]);
    assert!(pod.memory.completed);
    assert_eq!(pod.event(Event::SandboxStopped), ["unmount"]);
    assert_eq!(pod.event(Event::VolumesReleased), NOTHING, "its logs stay until it is deleted");
}

#[test]
fn sidecars_start_before_what_follows_and_stop_last_in_reverse_order() {
    let sidecar = |name: &str| json!({ "name": name, "restartPolicy": "Always" });
    let mut pod = Driven::new(json!({
        "restartPolicy": "Never",
        "initContainers": [sidecar("s"), { "name": "i" }, sidecar("t")], "containers": [{ "name": "a" }]
    }));
    pod.plan();
    pod.event(Event::VolumesMounted { resync_at: None });
    assert_eq!(pod.sandbox("s0", 0), ["start s #0"]);
    assert_eq!(pod.started("s"), ["start i #0"]);
    pod.started("i");
    assert_eq!(pod.exited("s", 0), ["start s #1"], "restarted while another init container runs");
    assert_eq!(pod.started("s"), NOTHING);
    assert_eq!(pod.exited("i", 0), ["start t #0"]);
    assert_eq!(pod.started("t"), ["start a #0"]);
    pod.started("a");
    assert_eq!(pod.exited("a", 0), ["tell Killing: Stopping container t", "stop t0 30s"]);
    pod.now += 10;
    assert_eq!(pod.stopped("t", 0), ["tell Killing: Stopping container s", "stop s1 20s"]);
    assert_eq!(pod.stopped("s", 0), ["stop sandbox s0"]);
}

#[test]
fn restarts_wait_ever_longer_and_say_so_once() {
    let mut pod = Driven::simple("Always");
    pod.started("a");
    assert_eq!(pod.exited("a", 0), ["start a #1"], "the first restart is immediate");
    pod.started("a");
    let pause = "tell BackOff: Back-off restarting failed container a in pod p_ns(u)";
    assert_eq!(pod.exited("a", 1), [pause]);
    assert_eq!(pod.wake(), Some(10));
    pod.now = 9;
    assert_eq!(pod.plan(), NOTHING);
    pod.now = 10;
    assert_eq!(pod.plan(), ["start a #2"]);
    assert_eq!(pod.started("a"), ["remove a0"], "two containers of a name are kept");
    assert_eq!(pod.exited("a", 1), [pause]);
    assert_eq!(pod.wake(), Some(30), "twice as long");
}

#[test]
fn the_restart_policy_says_when_a_pod_is_done() {
    for (policy, code, want) in [
        ("Always", 0, vec!["start a #1"]),
        ("OnFailure", 1, vec!["start a #1"]),
        ("OnFailure", 0, vec!["stop sandbox s0"]),
        ("Never", 1, vec!["stop sandbox s0"]),
        ("Never", 0, vec!["stop sandbox s0"]),
    ] {
        let mut pod = Driven::simple(policy);
        pod.started("a");
        assert_eq!(pod.exited("a", code), want, "{policy} {code}");
    }
}

#[test]
fn image_pulls_that_fail_are_retried_with_growing_pauses() {
    let mut pod = Driven::simple("Always");
    assert_eq!(pod.failed("a", FailureKind::Pull), NOTHING);
    assert_eq!(pod.wake(), Some(1), "the failure shows for a moment");
    pod.now = 1;
    assert_eq!(
        pod.plan(),
        ["tell BackOff: Back-off pulling image \"x\"", "tell Failed: Error: ImagePullBackOff"]
    );
    assert_eq!(pod.wake(), Some(10));
    pod.now = 10;
    assert_eq!(pod.plan(), ["start a #0"]);
    pod.failed("a", FailureKind::Pull);
    pod.now = 11;
    pod.plan();
    assert_eq!(pod.wake(), Some(30));
}

#[test]
fn a_missing_reference_is_looked_for_again_when_something_changes() {
    let mut pod = Driven::simple("Always");
    pod.failed("a", FailureKind::Config);
    assert_eq!(pod.wake(), Some(10));
    pod.now = 3;
    assert_eq!(pod.event(Event::ReferencesChanged), ["sync", "start a #0"]);
}

#[test]
fn a_container_that_cannot_run_is_paced_like_one_that_crashes() {
    let mut pod = Driven::simple("Always");
    for (now, want) in [
        (0, vec!["start a #1"]),
        (0, vec!["tell BackOff: Back-off restarting failed container a in pod p_ns(u)"]),
    ] {
        pod.now = now;
        let exit = Exit {
            code: 128,
            reason: "ContainerCannotRun".into(),
            message: String::new(),
            started_at: None,
            finished_at: at(now),
        };
        let record = pod.record("a", Stage::Exited(exit));
        let result =
            Started::No { kind: FailureKind::Run, message: "why".into(), record: Some(Box::new(record)) };
        assert_eq!(pod.event(Event::StartDone { name: "a".into(), result }), want);
    }
}

#[test]
fn volumes_that_fail_are_tried_again_with_growing_pauses() {
    let mut pod = Driven::new(json!({ "containers": [{ "name": "a" }] }));
    pod.plan();
    assert_eq!(pod.event(Event::VolumesFailed), NOTHING);
    pod.now = 1;
    assert_eq!(pod.plan(), ["mount"]);
    pod.event(Event::VolumesFailed);
    assert_eq!(pod.wake(), Some(2));
    assert_eq!(pod.event(Event::ReferencesChanged), ["mount"], "a change is not waited for");
}

#[test]
fn what_volumes_show_is_brought_up_to_date() {
    let mut pod = Driven::simple("Always");
    pod.started("a");
    assert_eq!(pod.event(Event::ReferencesChanged), ["sync"]);
    assert_eq!(pod.event(Event::VolumesMounted { resync_at: Some(at(50)) }), NOTHING);
    assert_eq!(pod.wake(), Some(50));
    pod.now = 50;
    assert_eq!(pod.plan(), ["sync"], "a token that runs out is renewed");
    assert_eq!(pod.event(Event::VolumesFailed), NOTHING, "a failed update stops nothing");
    assert_eq!(pod.wake(), Some(50), "and is tried again soon");
}

#[test]
fn deletion_stops_containers_sandbox_and_volumes_and_then_tells_the_api() {
    let mut pod = Driven::simple("Always");
    pod.started("a");
    assert_eq!(pod.delete(30), ["tell Killing: Stopping container a", "stop a0 30s"]);
    assert_eq!(pod.plan(), NOTHING);
    assert_eq!(pod.stopped("a", 143), ["stop sandbox s0"]);
    assert_eq!(pod.event(Event::SandboxStopped), ["unmount"]);
    assert_eq!(pod.event(Event::VolumesReleased), ["remove pod"]);
    assert_eq!(pod.event(Event::Removed), ["finish"]);
    assert_eq!(pod.plan(), NOTHING);
}

#[test]
fn a_second_deletion_with_less_grace_hurries_the_first() {
    let mut pod = Driven::simple("Always");
    pod.started("a");
    pod.delete(30);
    pod.now = 5;
    assert_eq!(pod.delete(10), ["stop a0 10s"]);
    assert_eq!(pod.delete(60), NOTHING, "more grace changes nothing");
    assert_eq!(pod.delete(0), ["stop a0 2s"], "a moment is left to end in order");
}

#[test]
fn deletion_during_a_start_calls_it_off() {
    let mut pod = Driven::simple("Always");
    assert_eq!(pod.delete(30), ["cancel a"]);
    let result = Started::Cancelled;
    assert_eq!(pod.event(Event::StartDone { name: "a".into(), result }), ["stop sandbox s0"]);
}

#[test]
fn a_start_that_came_too_far_is_stopped_afterwards() {
    let mut pod = Driven::simple("Always");
    pod.delete(30);
    assert_eq!(pod.started("a"), ["tell Killing: Stopping container a", "stop a0 30s"]);
}

#[test]
fn deletion_before_anything_came_up_leaves_nothing_to_stop() {
    let mut pod = Driven::new(json!({ "containers": [{ "name": "a" }] }));
    pod.plan();
    assert_eq!(pod.delete(30), NOTHING, "the mount in progress is awaited");
    assert_eq!(pod.event(Event::VolumesMounted { resync_at: None }), ["unmount"]);
    assert_eq!(pod.event(Event::VolumesReleased), ["remove pod"]);
}

#[test]
fn a_pod_whose_object_is_gone_is_removed_without_being_restarted() {
    let mut pod = Driven::simple("Always");
    pod.started("a");
    assert_eq!(pod.event(Event::Gone), ["tell Killing: Stopping container a", "stop a0 30s"]);
    assert_eq!(pod.stopped("a", 1), ["stop sandbox s0"]);
}

#[test]
fn a_pod_that_ran_too_long_is_failed_by_the_node() {
    let mut pod = Driven::new(json!({
        "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5, "containers": [{ "name": "a" }]
    }));
    pod.up();
    pod.started("a");
    assert_eq!(pod.wake(), Some(60));
    pod.now = 60;
    assert_eq!(
        pod.plan(),
        [
            "tell DeadlineExceeded: Pod was active on the node longer than the specified deadline",
            "tell Killing: Stopping container a",
            "stop a0 5s"
        ]
    );
    assert_eq!(pod.stopped("a", 143), ["stop sandbox s0"], "not restarted");
}

#[test]
fn a_node_that_stops_asks_all_pods_to_end_and_keeps_what_they_need() {
    let mut pod = Driven::simple("Always");
    pod.started("a");
    let halt = Event::Halt { deadline: at(8) };
    assert_eq!(pod.event(halt), ["tell Killing: Stopping container a", "stop a0 8s"]);
    assert_eq!(pod.stopped("a", 143), ["stop sandbox s0"]);
    assert_eq!(pod.event(Event::SandboxStopped), NOTHING, "volumes and records stay");
}

/// A pod as the node finds it after its own restart: an ended container in a sandbox of before.
fn found_again(policy: &str, code: i32, interrupted: bool) -> Driven {
    let mut pod = Driven::new(json!({ "restartPolicy": policy, "containers": [{ "name": "a" }] }));
    let exit = Exit {
        code,
        reason: "Unknown".into(),
        message: String::new(),
        started_at: Some(at(-100)),
        finished_at: at(-1),
    };
    let record = Record { interrupted, attempt: 4, ..pod.record("a", Stage::Exited(exit)) };
    pod.memory.cell_mut("a").put(record);
    pod.memory.former_sandboxes.push(SandboxId("s0".into()));
    pod.memory.sandboxes_made = 1;
    pod
}

#[test]
fn pods_come_back_after_a_restart_of_the_node_as_their_policy_says() {
    for (policy, code, interrupted, back) in [
        ("Always", 255, false, true),
        ("OnFailure", 255, false, true),
        ("Never", 255, false, false),
        ("OnFailure", 0, true, true),
        ("OnFailure", 0, false, false),
        ("Never", 143, true, false),
    ] {
        let mut pod = found_again(policy, code, interrupted);
        let first = pod.plan();
        if !back {
            assert_eq!(first, ["unmount"], "{policy} {code} {interrupted}");
            assert!(pod.memory.completed);
            continue;
        }
        assert_eq!(first, ["mount"], "{policy} {code} {interrupted}");
        assert_eq!(pod.event(Event::VolumesMounted { resync_at: None }), ["sandbox #1"]);
        assert_eq!(pod.sandbox("s1", 1), ["start a #5"], "the count of restarts goes on");
    }
}

#[test]
fn a_sandbox_of_before_goes_when_its_last_container_does() {
    let mut pod = found_again("Always", 255, false);
    pod.up();
    pod.memory.sandbox =
        Sandbox::Ready(SandboxFacts { id: SandboxId("s1".into()), attempt: 1, addresses: vec![] });
    pod.started("a");
    assert_eq!(pod.exited("a", 1).len(), 1);
    pod.now = 700;
    assert_eq!(pod.plan(), ["start a #6"]);
    assert_eq!(pod.started("a"), ["remove a0", "remove sandbox s0"]);
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let mut pod =
        Driven::new(json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] }));
    let exit = |code| Exit {
        code,
        reason: String::new(),
        message: String::new(),
        started_at: None,
        finished_at: at(-1),
    };
    for (name, code) in [("i", 0), ("a", 255)] {
        let record = pod.record(name, Stage::Exited(exit(code)));
        pod.memory.cell_mut(name).put(record);
    }
    pod.memory.former_sandboxes.push(SandboxId("s0".into()));
    pod.plan();
    pod.event(Event::VolumesMounted { resync_at: None });
    assert_eq!(pod.sandbox("s1", 1), ["start i #1"]);
    pod.started("i");
    assert_eq!(pod.exited("i", 0), ["start a #1"]);
}

#[test]
fn a_pod_that_the_api_knows_as_finished_is_only_cleaned_up() {
    let mut pod = Driven::new(json!({ "containers": [{ "name": "a" }] }));
    pod.memory.settled = true;
    assert_eq!(pod.plan(), ["unmount"]);
    assert_eq!(pod.event(Event::VolumesReleased), NOTHING);
    assert_eq!(pod.delete(0), ["remove pod"]);
}

#[test]
fn a_sandbox_that_cannot_be_made_is_tried_again() {
    let mut pod = Driven::new(json!({ "containers": [{ "name": "a" }] }));
    pod.plan();
    pod.event(Event::VolumesMounted { resync_at: None });
    assert_eq!(pod.event(Event::SandboxFailed), NOTHING);
    assert_eq!(pod.wake(), Some(10));
    pod.now = 10;
    assert_eq!(pod.plan(), ["sandbox #0"]);
}

#[test]
fn a_container_whose_image_was_changed_is_restarted_with_the_new_one() {
    let mut pod = Driven::simple("Never");
    pod.started("a");
    pod.pod.spec.as_mut().unwrap().containers[0].image = Some("y".into());
    assert_eq!(
        pod.event(Event::Changed),
        ["tell Killing: Container a definition changed, will be restarted", "stop a0 30s"]
    );
    assert_eq!(pod.exited("a", 143), NOTHING);
    assert_eq!(pod.event(Event::StopDone { name: "a".into() }), ["start a #1"]);
}
