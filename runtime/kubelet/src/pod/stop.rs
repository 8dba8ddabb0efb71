//! A pod's end, as part of the pure lifecycle: containers first, sidecars after them in reverse
//! order, then the sandbox, the volumes, and (for a deleted pod) everything that was kept.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::backoff::later;
use super::memory::{Ending, Memory, Op, Removal, Sandbox, Stage, VolumeStage};
use super::plan::{Action, Plan};
use super::spec::{self, Role};

/// The least time between asking a container to end and ending it.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// Brings an ending pod one step on.
pub(super) fn plan(pod: &Pod, memory: &mut Memory, now: Timestamp, plan: &mut Plan) {
    let deadline = deadline(pod, memory, now);
    if !stop_containers(pod, memory, deadline, now, plan) {
        return;
    }
    match &memory.sandbox {
        Sandbox::Ready(facts) => {
            let facts = facts.clone();
            plan.push(Action::StopSandbox(facts.clone()));
            memory.sandbox = Sandbox::Stopping(facts);
            return;
        }
        Sandbox::Creating | Sandbox::Stopping(_) => return,
        Sandbox::Absent | Sandbox::Failed { .. } | Sandbox::Stopped(_) => {}
    }
    // A node that stops keeps what its pods need to come back.
    let leaves = memory.gone || spec::is_deleted(pod);
    if memory.halting.is_some() && !leaves {
        return;
    }
    match memory.volumes.stage {
        VolumeStage::Mounting | VolumeStage::Syncing | VolumeStage::Releasing => return,
        VolumeStage::Released => {}
        VolumeStage::Pending | VolumeStage::Failed { .. } | VolumeStage::Mounted => {
            memory.volumes.stage = VolumeStage::Releasing;
            plan.push(Action::ReleaseVolumes);
            return;
        }
    }
    if !leaves {
        return;
    }
    match memory.removal {
        Removal::None => {
            memory.removal = Removal::Busy;
            plan.push(Action::RemovePod);
        }
        Removal::Done => {
            memory.removal = Removal::Told;
            plan.push(Action::Finish);
        }
        Removal::Busy | Removal::Told => {}
    }
}

/// When what still runs is killed. A second request may shorten the time, never lengthen it.
fn deadline(pod: &Pod, memory: &mut Memory, now: Timestamp) -> Timestamp {
    let grace = spec::grace_period(pod);
    let ending = memory.ending.get_or_insert(Ending { grace, deadline: later(now, grace) });
    if grace < ending.grace {
        ending.deadline = ending.deadline.min(later(now, grace));
        ending.grace = grace;
    }
    if let Some(halt) = memory.halting {
        ending.deadline = ending.deadline.min(halt);
    }
    ending.deadline
}

/// Orders the containers' end; true when all have ended.
fn stop_containers(
    pod: &Pod,
    memory: &mut Memory,
    deadline: Timestamp,
    now: Timestamp,
    plan: &mut Plan,
) -> bool {
    for (name, cell) in &mut memory.cells {
        if let Some(Op::Starting { cancelled: cancelled @ false }) = &mut cell.op {
            *cancelled = true;
            plan.push(Action::CancelStart { name: name.clone() });
        }
    }
    let (sidecars, rest): (Vec<&str>, Vec<&str>) = roles(pod, memory);
    for name in &rest {
        stop_container(memory, name, deadline, now, plan);
    }
    let still =
        |memory: &Memory, name: &str| memory.cells.get(name).is_none_or(super::memory::Cell::is_still);
    if !rest.iter().all(|name| still(memory, name)) {
        return false;
    }
    if let Some(last) = sidecars.iter().rev().find(|name| !still(memory, name)) {
        stop_container(memory, last, deadline, now, plan);
        return false;
    }
    memory.is_still()
}

/// The pod's sidecars in order, and all its other containers.
fn roles<'a>(pod: &'a Pod, memory: &Memory) -> (Vec<&'a str>, Vec<&'a str>) {
    let known = spec::containers(pod).filter(|(_, container)| memory.cells.contains_key(&container.name));
    let (sidecars, rest): (Vec<_>, Vec<_>) = known.partition(|(role, _)| *role == Role::Sidecar);
    let names = |list: Vec<(Role, &'a k8s_openapi::api::core::v1::Container)>| {
        list.into_iter().map(|(_, container)| container.name.as_str()).collect()
    };
    (names(sidecars), names(rest))
}

/// Asks one container to end, or hurries one that was asked before.
fn stop_container(memory: &mut Memory, name: &str, deadline: Timestamp, now: Timestamp, plan: &mut Plan) {
    let Some(cell) = memory.cells.get_mut(name) else { return };
    let Some(record) = cell.records.last() else { return };
    let hurried = match cell.op {
        Some(Op::Starting { .. }) => return,
        Some(Op::Stopping { deadline: before }) if before <= deadline => return,
        Some(Op::Stopping { .. }) => true,
        None => false,
    };
    let grace = match record.stage {
        Stage::Exited(_) => return,
        Stage::Created => Duration::ZERO,
        Stage::Running { .. } => remaining(deadline, now),
    };
    let (id, name) = (record.id.clone(), name.to_owned());
    cell.op = Some(Op::Stopping { deadline });
    if !hurried {
        plan.push(Action::Tell {
            container: Some(name.clone()),
            kind: sampan_client::EventType::Normal,
            reason: "Killing",
            message: format!("Stopping container {name}"),
        });
    }
    plan.push(Action::Stop { name, id, grace });
}

fn remaining(deadline: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(deadline.duration_since(now)).unwrap_or(Duration::ZERO).max(LEAST_GRACE)
}
