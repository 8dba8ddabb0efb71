//! The node's pods by UID and by name, and what was found of them when the agent started.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::{Mutex, RwLock};
use sampan_cri::{ContainerId, ContainerState, ContainerStatus, SandboxId, SandboxStatus};
use tokio_util::sync::CancellationToken;

use crate::act::record::timestamp;
use crate::pod::memory::{Exit, Memory, Record, Sandbox, SandboxFacts, Stage};
use crate::pod::spec;
use crate::volumes::MountedVolumes;

/// A pod on the node.
#[derive(Debug)]
pub struct Slot {
    /// Its UID.
    pub uid: String,
    pub(super) inner: Mutex<Inner>,
}

/// What a pod's lock protects.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) pod: Arc<Pod>,
    pub(super) memory: Memory,
    pub(super) volumes: Arc<MountedVolumes>,
    /// How to call a start off, by container.
    pub(super) cancels: HashMap<String, CancellationToken>,
    /// The status that was last handed on.
    pub(super) reported: Option<PodStatus>,
    /// The containers that ran when the node began to stop.
    pub(super) interrupted: Vec<ContainerId>,
}

impl Slot {
    /// The pod's object.
    pub fn pod(&self) -> Arc<Pod> {
        self.inner.lock().pod.clone()
    }

    /// A container's newest record, or the one before it.
    pub fn record(&self, container: &str, previous: bool) -> Option<Record> {
        let inner = self.inner.lock();
        let cell = inner.memory.cells.get(container)?;
        if previous { cell.previous().cloned() } else { cell.newest().cloned() }
    }

    /// All containers that run, by name.
    pub fn running(&self) -> Vec<(String, Record)> {
        let inner = self.inner.lock();
        let newest = inner.memory.cells.iter().filter_map(|(name, cell)| Some((name, cell.newest()?)));
        newest
            .filter(|(_, record)| record.is_running())
            .map(|(name, record)| (name.clone(), record.clone()))
            .collect()
    }

    /// The status that was last handed on, else the one that the API holds.
    pub fn status(&self) -> Option<PodStatus> {
        let inner = self.inner.lock();
        inner.reported.clone().or_else(|| inner.pod.status.clone())
    }

    /// The pod's volumes.
    pub fn volumes(&self) -> Arc<MountedVolumes> {
        self.inner.lock().volumes.clone()
    }

    /// The containers that ran when the node began to stop.
    pub fn interrupted(&self) -> Vec<ContainerId> {
        self.inner.lock().interrupted.clone()
    }

    /// Whether something of the pod runs, or its sandbox is up.
    pub fn is_busy(&self) -> bool {
        let inner = self.inner.lock();
        let memory = &inner.memory;
        !memory.is_still()
            || matches!(memory.sandbox, Sandbox::Ready(_) | Sandbox::Creating | Sandbox::Stopping(_))
    }

    /// Whether the pod has ended, or is about to.
    pub fn is_ending(&self) -> bool {
        let inner = self.inner.lock();
        inner.memory.is_ending() || inner.memory.settled || spec::is_deleted(&inner.pod)
    }

    /// What the runtime holds of the pod.
    pub(super) fn holdings(&self) -> (Vec<Record>, Vec<SandboxId>) {
        let inner = self.inner.lock();
        let memory = &inner.memory;
        let records = memory.cells.values().flat_map(|cell| cell.records.iter().cloned()).collect();
        let current = memory.sandbox.facts().map(|facts| facts.id.clone());
        (records, memory.former_sandboxes.iter().cloned().chain(current).collect())
    }
}

/// All slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_uid: HashMap<String, Arc<Slot>>,
    by_name: HashMap<(String, String), Arc<Slot>>,
}

impl Slots {
    pub(super) fn insert(&self, pod: Arc<Pod>, memory: Memory) -> Arc<Slot> {
        let key = (spec::namespace(&pod).to_owned(), spec::name(&pod).to_owned());
        let slot = Arc::new(Slot {
            uid: spec::uid(&pod).to_owned(),
            inner: Mutex::new(Inner {
                pod,
                memory,
                volumes: Arc::default(),
                cancels: HashMap::new(),
                reported: None,
                interrupted: Vec::new(),
            }),
        });
        let mut tables = self.tables.write();
        tables.by_name.insert(key, slot.clone());
        tables.by_uid.insert(slot.uid.clone(), slot.clone());
        slot
    }

    pub(super) fn get(&self, uid: &str) -> Option<Arc<Slot>> {
        self.tables.read().by_uid.get(uid).cloned()
    }

    pub(super) fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Slot>> {
        self.tables.read().by_name.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        self.tables.read().by_uid.values().cloned().collect()
    }

    pub(super) fn uids(&self) -> HashSet<String> {
        self.tables.read().by_uid.keys().cloned().collect()
    }

    pub(super) fn remove(&self, slot: &Arc<Slot>) {
        let pod = slot.pod();
        let key = (spec::namespace(&pod).to_owned(), spec::name(&pod).to_owned());
        let mut tables = self.tables.write();
        tables.by_uid.remove(&slot.uid);
        // The name may be another pod's by now.
        if tables.by_name.get(&key).is_some_and(|holder| holder.uid == slot.uid) {
            tables.by_name.remove(&key);
        }
    }
}

/// What the runtime held when the agent started, by pod UID.
#[derive(Debug, Default)]
pub struct Found {
    sandboxes: HashMap<String, Vec<SandboxStatus>>,
    containers: HashMap<String, Vec<ContainerStatus>>,
}

impl Found {
    /// Sorts what the runtime listed.
    pub fn new(sandboxes: Vec<SandboxStatus>, containers: Vec<ContainerStatus>) -> Self {
        let mut found = Self::default();
        for sandbox in sandboxes {
            found.sandboxes.entry(sandbox.pod.uid.clone()).or_default().push(sandbox);
        }
        for container in containers {
            found.containers.entry(container.pod.uid.clone()).or_default().push(container);
        }
        found
    }

    /// Moves what was found of a pod into its memory. Returns whether there was anything.
    pub(super) fn take(
        &mut self,
        uid: &str,
        memory: &mut Memory,
        pod: &Pod,
        interrupted: &HashSet<ContainerId>,
    ) -> bool {
        let mut sandboxes = self.sandboxes.remove(uid).unwrap_or_default();
        let containers = self.containers.remove(uid).unwrap_or_default();
        let known = !sandboxes.is_empty() || !containers.is_empty();
        sandboxes.sort_by_key(|sandbox| sandbox.attempt);
        memory.sandboxes_made = sandboxes.last().map_or(0, |last| last.attempt.saturating_add(1));
        for sandbox in sandboxes {
            let facts =
                SandboxFacts { id: sandbox.id, attempt: sandbox.attempt, addresses: sandbox.addresses };
            if sandbox.ready {
                memory.sandbox = Sandbox::Ready(facts);
            } else {
                memory.former_sandboxes.push(facts.id);
            }
        }
        for container in containers {
            let (name, record) = (container.name.clone(), plain_record(container, interrupted));
            memory.cell_mut(&name).put(record);
        }
        // A container of the pod itself that was made shows that its init containers were through.
        memory.initialized = spec::main_containers(pod).any(|main| memory.current(&main.name).is_some());
        known
    }

    /// The sandboxes of pods that nobody took.
    pub(super) fn rest(&mut self) -> Vec<SandboxId> {
        self.containers.clear();
        std::mem::take(&mut self.sandboxes).into_values().flatten().map(|sandbox| sandbox.id).collect()
    }
}

/// A record without the container's last words: those were reported by the run before.
fn plain_record(status: ContainerStatus, interrupted: &HashSet<ContainerId>) -> Record {
    Record {
        interrupted: interrupted.contains(&status.id),
        id: status.id,
        sandbox: status.sandbox,
        attempt: status.attempt,
        image: status.image,
        image_id: status.image_id,
        log_path: status.log_path,
        stage: match status.state {
            ContainerState::Created => Stage::Created,
            ContainerState::Running { started_at } => Stage::Running { started_at: timestamp(started_at) },
            ContainerState::Exited(exit) => Stage::Exited(Exit {
                code: exit.code,
                reason: exit.reason,
                message: exit.message,
                started_at: exit.started_at.map(timestamp),
                finished_at: timestamp(exit.finished_at),
            }),
        },
    }
}
