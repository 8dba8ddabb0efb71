//! A pod's conditions, with Kubernetes' reasons and messages. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::{Memory, Sandbox, Verdict, VolumeStage};
use super::spec::{self, Role};

/// What a condition says, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which condition.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Finding {
    fn yes(type_: &'static str) -> Self {
        Self { type_, holds: true, reason: "", message: String::new() }
    }

    fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: false, reason, message: message.into() }
    }
}

/// The conditions that the node owns.
pub fn conditions(
    pod: &Pod,
    memory: &Memory,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    phase: &str,
) -> Vec<Finding> {
    let containers_ready = containers_ready(pod, init, main, phase);
    let mut list = vec![
        ready_to_start(memory),
        initialized(pod, init, main, phase),
        ready(pod, &containers_ready),
        containers_ready,
        Finding::yes("PodScheduled"),
    ];
    if let Some(Verdict { reason, message, .. }) = &memory.verdict
        && reason == "Evicted"
    {
        list.push(Finding {
            type_: "DisruptionTarget",
            holds: true,
            reason: "TerminationByKubelet",
            message: message.clone(),
        });
    }
    list
}

fn ready_to_start(memory: &Memory) -> Finding {
    const TYPE: &str = "PodReadyToStartContainers";
    let mounted = matches!(memory.volumes.stage, VolumeStage::Mounted | VolumeStage::Syncing);
    if mounted && matches!(memory.sandbox, Sandbox::Ready(_)) {
        Finding::yes(TYPE)
    } else {
        Finding::no(TYPE, "", "")
    }
}

fn initialized(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> Finding {
    const TYPE: &str = "Initialized";
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for (role, container) in spec::init_containers(pod) {
        match init.iter().find(|status| status.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if role == Role::Sidecar && status.started == Some(true) => {}
            Some(status) if role == Role::Init && status.ready => {}
            Some(_) => incomplete.push(container.name.as_str()),
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Finding { reason: "PodCompleted", ..Finding::yes(TYPE) };
    }
    // Once a container of the pod itself has started, its init containers were through.
    let begun = main.iter().any(|status| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
    });
    if begun {
        return Finding::yes(TYPE);
    }
    match unready_message(&unknown, &incomplete, "incomplete") {
        Some(message) => Finding::no(TYPE, "ContainersNotInitialized", message),
        None => Finding::yes(TYPE),
    }
}

fn containers_ready(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> Finding {
    const TYPE: &str = "ContainersReady";
    match phase {
        "Succeeded" => return Finding::no(TYPE, "PodCompleted", ""),
        "Failed" => return Finding::no(TYPE, "PodFailed", ""),
        _ => {}
    }
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for (role, container) in spec::containers(pod) {
        let status = match role {
            Role::Init => continue,
            Role::Sidecar => init.iter().find(|status| status.name == container.name),
            Role::Main => main.iter().find(|status| status.name == container.name),
        };
        match status {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match unready_message(&unknown, &unready, "unready") {
        Some(message) => Finding::no(TYPE, "ContainersNotReady", message),
        None => Finding::yes(TYPE),
    }
}

fn ready(pod: &Pod, containers: &Finding) -> Finding {
    const TYPE: &str = "Ready";
    if !containers.holds {
        return Finding { type_: TYPE, ..containers.clone() };
    }
    let gates = spec::spec(pod).and_then(|spec| spec.readiness_gates.as_ref());
    let known = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let unmet: Vec<String> = gates
        .into_iter()
        .flatten()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match known.into_iter().flatten().find(|condition| condition.type_ == *name) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if unmet.is_empty() {
        Finding::yes(TYPE)
    } else {
        Finding::no(TYPE, "ReadinessGatesNotReady", unmet.join(", "))
    }
}

fn unready_message(unknown: &[&str], unready: &[&str], word: &str) -> Option<String> {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !unready.is_empty() {
        parts.push(format!("containers with {word} status: [{}]", unready.join(" ")));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The conditions for the status. Their times are kept where nothing changed since `before`
/// (what was last built) or since what the API holds. Conditions of others are not touched.
pub fn dated(
    pod: &Pod,
    before: Option<&PodStatus>,
    wanted: Vec<Finding>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let known =
        before.or(pod.status.as_ref()).and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    wanted
        .into_iter()
        .map(|condition| {
            let status = if condition.holds { "True" } else { "False" };
            let since = known
                .iter()
                .find(|known| known.type_ == condition.type_ && known.status == status)
                .and_then(|known| known.last_transition_time.clone());
            PodCondition {
                type_: condition.type_.into(),
                status: status.into(),
                reason: (!condition.reason.is_empty()).then(|| condition.reason.into()),
                message: (!condition.message.is_empty()).then_some(condition.message),
                last_probe_time: None,
                last_transition_time: Some(since.unwrap_or(Time(now))),
                observed_generation: pod.metadata.generation,
            }
        })
        .collect()
}
