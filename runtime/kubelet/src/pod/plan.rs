//! What to do next for a pod: the lifecycle, as a pure function.
//!
//! [`plan`] looks at the pod's object and at the node's [`Memory`] of it and says which actions
//! to carry out and when to look again. It marks in the memory what it has ordered, so that
//! nothing is ordered twice; each action ends in an [`super::Event`]. Order of a pod's life:
//! volumes, sandbox, init containers one after the other, then the rest at once; at its end
//! (see [`super::stop`]) containers, sandbox, volumes, and everything that was kept.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_client::EventType;
use sampan_cri::{ContainerId, SandboxId};

use super::backoff::later;
use super::memory::{Cell, FailureKind, Memory, Op, Record, Sandbox, SandboxFacts, Verdict, VolumeStage};
use super::restart;
use super::spec::{self, Role};
use super::stop;

/// How long a failed pull shows as such before it shows as a pause.
const PULL_FAILURE_SHOWN: Duration = Duration::from_secs(1);

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Set the pod's volumes up.
    MountVolumes,
    /// Bring what they show up to date.
    SyncVolumes,
    /// Take them down.
    ReleaseVolumes,
    /// Make the sandbox.
    CreateSandbox {
        /// How many came before.
        attempt: u32,
    },
    /// Stop the sandbox.
    StopSandbox(SandboxFacts),
    /// Remove a sandbox of an earlier run, with nothing left in it.
    RemoveSandbox(SandboxId),
    /// Fetch the image, make the container, start it.
    Start {
        /// The container's name.
        name: String,
        /// How many came before.
        attempt: u32,
    },
    /// Call a start off, if it has not come too far.
    CancelStart {
        /// The container's name.
        name: String,
    },
    /// Ask a container to end, and end it after `grace`.
    Stop {
        /// The container's name.
        name: String,
        /// Which one.
        id: ContainerId,
        /// How long it may take.
        grace: Duration,
    },
    /// Remove an ended container and its log.
    RemoveContainer {
        /// The container's name.
        name: String,
        /// Its record.
        record: Box<Record>,
    },
    /// Remove everything that the node holds of the pod.
    RemovePod,
    /// Tell the API that nothing of the pod is left.
    Finish,
    /// Tell people.
    Tell {
        /// The container that it is about; `None`: the pod.
        container: Option<String>,
        /// Ordinary or not.
        kind: EventType,
        /// One word.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// What [`plan`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do, in order; all may run at once.
    pub actions: Vec<Action>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

impl Plan {
    pub(super) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |known| known.min(time)));
    }
}

/// Decides what to do for a pod now.
pub fn plan(pod: &Pod, memory: &mut Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !memory.completed && !memory.settled && is_completed(pod, memory) {
        memory.completed = true;
    }
    check_deadline(pod, memory, now, &mut plan);
    let ends = memory.is_ending() || memory.settled || memory.halting.is_some() || spec::is_deleted(pod);
    if ends {
        stop::plan(pod, memory, now, &mut plan);
    } else {
        advance(pod, memory, now, &mut plan);
    }
    if memory.removal == super::memory::Removal::None && memory.halting.is_none() {
        trim(memory, &mut plan);
    }
    plan
}

/// Fails a pod that has run for longer than it may.
fn check_deadline(pod: &Pod, memory: &mut Memory, now: Timestamp, plan: &mut Plan) {
    let Some(seconds) = spec::spec(pod).and_then(|spec| spec.active_deadline_seconds) else {
        return;
    };
    if memory.is_ending() || memory.settled || memory.halting.is_some() || spec::is_deleted(pod) {
        return;
    }
    let deadline = later(memory.started_at, Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    if now < deadline {
        plan.wake_at(deadline);
        return;
    }
    let message = "Pod was active on the node longer than the specified deadline".to_owned();
    plan.push(Action::Tell {
        container: None,
        kind: EventType::Normal,
        reason: "DeadlineExceeded",
        message: message.clone(),
    });
    memory.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message, rejected: false });
}

/// Whether the pod's containers have run to their end.
fn is_completed(pod: &Pod, memory: &Memory) -> bool {
    let init_failed = !memory.initialized
        && spec::init_containers(pod).any(|(role, container)| {
            role == Role::Init
                && memory.newest(&container.name).is_some_and(|record| {
                    record.exit().is_some_and(|exit| exit.code != 0)
                        && !wants_restart(pod, role, container, record)
                        && no_op(memory, &container.name)
                })
        });
    init_failed || {
        let mut any = false;
        let all = spec::main_containers(pod).all(|container| {
            any = true;
            memory.newest(&container.name).is_some_and(|record| {
                record.exit().is_some()
                    && no_op(memory, &container.name)
                    && !wants_restart(pod, Role::Main, container, record)
            })
        });
        any && all
    }
}

fn no_op(memory: &Memory, name: &str) -> bool {
    memory.cells.get(name).is_none_or(|cell| cell.op.is_none())
}

/// Whether an ended container is to run again.
pub(super) fn wants_restart(pod: &Pod, role: Role, container: &Container, record: &Record) -> bool {
    let Some(exit) = record.exit() else { return false };
    if is_outdated(container, record) {
        return role != Role::Init;
    }
    if record.interrupted {
        return restart::container_policy(pod, role, container) != restart::Policy::Never;
    }
    restart::restarts(pod, role, container, exit.code)
}

/// Whether a container was made from another image than the pod names now.
fn is_outdated(container: &Container, record: &Record) -> bool {
    container.image.as_ref().is_some_and(|image| *image != record.image)
}

/// Ends a running container whose image was changed; it starts again with the new one.
fn replace_outdated(pod: &Pod, memory: &mut Memory, container: &Container, now: Timestamp, plan: &mut Plan) {
    let Some(cell) = memory.cells.get_mut(&container.name) else { return };
    let Some(record) = cell.records.last() else { return };
    if cell.op.is_some() || !record.is_running() || !is_outdated(container, record) {
        return;
    }
    let grace = spec::grace_period(pod);
    let name = container.name.clone();
    let id = record.id.clone();
    cell.op = Some(Op::Stopping { deadline: later(now, grace) });
    plan.push(Action::Tell {
        container: Some(name.clone()),
        kind: EventType::Normal,
        reason: "Killing",
        message: format!("Container {name} definition changed, will be restarted"),
    });
    plan.push(Action::Stop { name, id, grace });
}

/// Brings a living pod one step on.
fn advance(pod: &Pod, memory: &mut Memory, now: Timestamp, plan: &mut Plan) {
    if !volumes_ready(memory, now, plan) || !sandbox_ready(memory, now, plan) {
        return;
    }
    if !memory.initialized && !initialize(pod, memory, now, plan) {
        return;
    }
    memory.initialized = true;
    for (role, container) in spec::containers(pod) {
        let runs_now = match role {
            Role::Init => continue,
            Role::Sidecar => true,
            Role::Main => memory
                .newest(&container.name)
                .is_none_or(|record| record.exit().is_none() || wants_restart(pod, role, container, record)),
        };
        if runs_now {
            replace_outdated(pod, memory, container, now, plan);
            start_if_still(pod, memory, container, now, plan);
        }
    }
}

fn volumes_ready(memory: &mut Memory, now: Timestamp, plan: &mut Plan) -> bool {
    let volumes = &mut memory.volumes;
    match volumes.stage {
        VolumeStage::Pending => {
            volumes.stage = VolumeStage::Mounting;
            volumes.stale = false;
            plan.push(Action::MountVolumes);
            false
        }
        VolumeStage::Failed { retry_at } if retry_at <= now => {
            volumes.stage = VolumeStage::Mounting;
            volumes.stale = false;
            plan.push(Action::MountVolumes);
            false
        }
        VolumeStage::Failed { retry_at } => {
            plan.wake_at(retry_at);
            false
        }
        VolumeStage::Mounted => {
            let due = volumes.resync_at.is_some_and(|at| at <= now);
            if volumes.stale || due {
                volumes.stage = VolumeStage::Syncing;
                volumes.stale = false;
                volumes.resync_at = None;
                plan.push(Action::SyncVolumes);
            } else if let Some(at) = volumes.resync_at {
                plan.wake_at(at);
            }
            true
        }
        VolumeStage::Syncing => true,
        VolumeStage::Mounting | VolumeStage::Releasing | VolumeStage::Released => false,
    }
}

fn sandbox_ready(memory: &mut Memory, now: Timestamp, plan: &mut Plan) -> bool {
    match &memory.sandbox {
        Sandbox::Ready(_) => true,
        Sandbox::Failed { retry_at } if *retry_at > now => {
            plan.wake_at(*retry_at);
            false
        }
        Sandbox::Absent | Sandbox::Failed { .. } => {
            memory.sandbox = Sandbox::Creating;
            plan.push(Action::CreateSandbox { attempt: memory.sandboxes_made });
            false
        }
        Sandbox::Creating | Sandbox::Stopping(_) | Sandbox::Stopped(_) => false,
    }
}

/// Runs init containers in order; true when all are through (and sidecars run).
fn initialize(pod: &Pod, memory: &mut Memory, now: Timestamp, plan: &mut Plan) -> bool {
    let mut through = true;
    for (role, container) in spec::init_containers(pod) {
        let done = match (role, memory.current(&container.name).map(|record| &record.stage)) {
            (Role::Sidecar, Some(stage)) => matches!(stage, super::memory::Stage::Running { .. }),
            (_, Some(super::memory::Stage::Exited(exit))) => exit.code == 0,
            _ => false,
        };
        // Sidecars that started earlier are kept running while later ones are awaited.
        if done && (role == Role::Init || no_op(memory, &container.name)) {
            continue;
        }
        let started_before = role == Role::Sidecar && memory.current(&container.name).is_some();
        if through || started_before {
            start_if_still(pod, memory, container, now, plan);
        }
        through = false;
    }
    through
}

/// Starts a container that neither runs nor is about to, unless it must wait first.
fn start_if_still(pod: &Pod, memory: &mut Memory, container: &Container, now: Timestamp, plan: &mut Plan) {
    let cell = memory.cell_mut(&container.name);
    if !cell.is_still() || must_wait(pod, cell, container, now, plan) {
        return;
    }
    let attempt = cell.newest().map_or(cell.first_attempt, |record| record.attempt.saturating_add(1));
    cell.op = Some(Op::Starting { cancelled: false });
    plan.push(Action::Start { name: container.name.clone(), attempt });
}

/// Whether a container's next start lies in the future; then tells so, once.
fn must_wait(pod: &Pod, cell: &mut Cell, container: &Container, now: Timestamp, plan: &mut Plan) -> bool {
    if let Some(failure) = &mut cell.failure
        && failure.retry_at > now
    {
        plan.wake_at(failure.retry_at);
        if failure.kind == FailureKind::Pull && !failure.told {
            let shown = later(failure.at, PULL_FAILURE_SHOWN);
            if now < shown {
                plan.wake_at(shown);
            } else {
                failure.told = true;
                tell_pull_pause(container, plan);
            }
        }
        return true;
    }
    let Some(record) = cell.records.last() else { return false };
    let Some(exit) = record.exit() else { return false };
    let paid = cell.charged.as_ref() == Some(&record.id);
    if record.interrupted || paid || is_outdated(container, record) {
        return false;
    }
    if let Some(until) = cell.crash.wait_until(exit.finished_at)
        && until > now
    {
        plan.wake_at(until);
        if cell.told.as_ref() != Some(&record.id) {
            cell.told = Some(record.id.clone());
            plan.push(Action::Tell {
                container: Some(container.name.clone()),
                kind: EventType::Warning,
                reason: "BackOff",
                message: format!(
                    "Back-off restarting failed container {} in pod {}",
                    container.name,
                    spec::format(pod)
                ),
            });
        }
        return true;
    }
    cell.crash.advance(exit.finished_at, now);
    cell.charged = Some(record.id.clone());
    false
}

fn tell_pull_pause(container: &Container, plan: &mut Plan) {
    let image = container.image.as_deref().unwrap_or_default();
    plan.push(Action::Tell {
        container: Some(container.name.clone()),
        kind: EventType::Normal,
        reason: "BackOff",
        message: format!("Back-off pulling image \"{image}\""),
    });
    plan.push(Action::Tell {
        container: Some(container.name.clone()),
        kind: EventType::Warning,
        reason: "Failed",
        message: "Error: ImagePullBackOff".into(),
    });
}

/// Lets go of all but the newest two containers of each name, and of former sandboxes in which
/// nothing is left.
fn trim(memory: &mut Memory, plan: &mut Plan) {
    for (name, cell) in &mut memory.cells {
        while cell.records.len() > 2 && cell.records.first().is_some_and(|oldest| oldest.exit().is_some()) {
            let record = Box::new(cell.records.remove(0));
            plan.push(Action::RemoveContainer { name: name.clone(), record });
        }
    }
    let held: Vec<SandboxId> =
        memory.cells.values().flat_map(|cell| &cell.records).map(|record| record.sandbox.clone()).collect();
    memory.former_sandboxes.retain(|sandbox| {
        let keep = held.contains(sandbox);
        if !keep {
            plan.push(Action::RemoveSandbox(sandbox.clone()));
        }
        keep
    });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
