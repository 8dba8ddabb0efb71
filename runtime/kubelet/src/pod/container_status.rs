//! A container's status, as `kubectl describe` shows it. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, Pod, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::later;
use super::memory::{Cell, Failure, FailureKind, Memory, Record, Stage};
use super::plan;
use super::spec::{self, Role};
use super::status::whole_seconds;

/// The scheme of container identities.
const SCHEME: &str = "wasm";

/// The status of one container.
pub fn status(
    pod: &Pod,
    memory: &Memory,
    role: Role,
    container: &Container,
    now: Timestamp,
) -> ContainerStatus {
    let cell = memory.cells.get(&container.name);
    let newest = cell.and_then(Cell::newest);
    let (state, last_state) = states(pod, memory, role, container, cell, now);
    let running = state.running.is_some();
    let completed = state.terminated.as_ref().is_some_and(|terminated| terminated.exit_code == 0);
    let (ready, started) = match role {
        Role::Init => (completed, false),
        Role::Sidecar | Role::Main => (running, running),
    };
    ContainerStatus {
        name: container.name.clone(),
        image: newest
            .map_or_else(|| container.image.clone().unwrap_or_default(), |record| record.image.clone()),
        image_id: newest.map(|record| record.image_id.clone()).unwrap_or_default(),
        container_id: newest.map(container_id),
        ready,
        started: Some(started),
        restart_count: newest
            .map_or_else(|| cell.map_or(0, |cell| cell.first_attempt), |record| record.attempt)
            .try_into()
            .unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last_state),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.clone())
            .filter(|_| newest.is_some()),
        resources: container
            .resources
            .clone()
            .filter(|r| *r != ResourceRequirements::default() && newest.is_some()),
        volume_mounts: volume_mounts(container),
        ..Default::default()
    }
}

/// A container's identity as the API spells it.
pub fn container_id(record: &Record) -> String {
    format!("{SCHEME}://{}", record.id.0)
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    Some(
        mounts
            .iter()
            .map(|mount| VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: mount.read_only.filter(|read_only| *read_only),
                recursive_read_only: (mount.read_only == Some(true))
                    .then(|| mount.recursive_read_only.clone().unwrap_or_else(|| "Disabled".into())),
            })
            .collect(),
    )
}

fn states(
    pod: &Pod,
    memory: &Memory,
    role: Role,
    container: &Container,
    cell: Option<&Cell>,
    now: Timestamp,
) -> (ContainerState, ContainerState) {
    let newest = cell.and_then(Cell::newest);
    let previous = cell.and_then(Cell::previous).map(terminated).unwrap_or_default();
    let Some((cell, record)) = cell.zip(newest) else {
        let failure = cell.and_then(|cell| cell.failure.as_ref());
        return (waiting(pod, memory, role, container, failure, now), ContainerState::default());
    };
    match &record.stage {
        Stage::Created => (waiting(pod, memory, role, container, cell.failure.as_ref(), now), previous),
        Stage::Running { started_at } => (
            ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(whole_seconds(*started_at))) }),
                ..Default::default()
            },
            previous,
        ),
        Stage::Exited(exit) => {
            let restarts = !memory.is_ending()
                && !spec::is_deleted(pod)
                && plan::wants_restart(pod, role, container, record);
            if restarts {
                let paused = cell.charged.as_ref() != Some(&record.id) && !record.interrupted;
                let until = cell.crash.wait_until(exit.finished_at).filter(|until| paused && *until > now);
                if let Some((_, delay)) = until.zip(cell.crash.delay()) {
                    return (crash_loop(pod, container, delay), terminated(record));
                }
                if let Some(failure) = &cell.failure {
                    return (waiting(pod, memory, role, container, Some(failure), now), terminated(record));
                }
            }
            (terminated(record), previous)
        }
    }
}

fn crash_loop(pod: &Pod, container: &Container, delay: std::time::Duration) -> ContainerState {
    wait(
        "CrashLoopBackOff",
        Some(format!(
            "back-off {} restarting failed container={} pod={}",
            short(delay),
            container.name,
            spec::format(pod)
        )),
    )
}

/// A duration of whole seconds as messages spell it: `10s`, `2m40s`.
fn short(delay: std::time::Duration) -> String {
    let seconds = delay.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

fn waiting(
    pod: &Pod,
    memory: &Memory,
    role: Role,
    container: &Container,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ContainerState {
    if let Some(failure) = failure {
        let shown = later(failure.at, std::time::Duration::from_secs(1));
        if failure.kind == FailureKind::Pull && now >= shown {
            let image = container.image.as_deref().unwrap_or_default();
            return wait(
                "ImagePullBackOff",
                Some(format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message)),
            );
        }
        return wait(failure.kind.reason(), Some(failure.message.clone()));
    }
    let has_init = spec::init_containers(pod).next().is_some();
    let initializing = has_init && (role != Role::Main || !memory.initialized);
    wait(if initializing { "PodInitializing" } else { "ContainerCreating" }, None)
}

fn wait(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message }),
        ..Default::default()
    }
}

fn terminated(record: &Record) -> ContainerState {
    let Stage::Exited(exit) = &record.stage else { return ContainerState::default() };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(record)),
            exit_code: exit.code,
            reason: Some(exit.reason.clone()).filter(|reason| !reason.is_empty()),
            message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
            signal: None,
            started_at: exit.started_at.map(whole_seconds).map(Time),
            finished_at: Some(Time(whole_seconds(exit.finished_at))),
        }),
        ..Default::default()
    }
}
