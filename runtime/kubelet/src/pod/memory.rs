//! What the node knows of a pod beyond its object: sandbox, containers, volumes, and how far
//! its end has come. Plain data; only [`super::event`] and [`super::plan`] change it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use sampan_cri::{ContainerId, SandboxId};

use super::backoff::Backoff;

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, …
    pub reason: String,
    /// What the container left as its last words, else the runtime's.
    pub message: String,
    /// When it started, if it did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Made, not started.
    Created,
    /// Running since.
    Running {
        /// When it started.
        started_at: Timestamp,
    },
    /// Ended.
    Exited(Exit),
}

/// One container that the runtime holds or held.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its identity in the runtime.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// How many came before it under this name.
    pub attempt: u32,
    /// The image as the user named it.
    pub image: String,
    /// The image's identity.
    pub image_id: String,
    /// Its log file.
    pub log_path: PathBuf,
    /// Where it is in its life.
    pub stage: Stage,
    /// Whether it ended only because the node was stopped.
    pub interrupted: bool,
}

impl Record {
    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.stage {
            Stage::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }
}

/// What is going on with a container right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is being started; whether that was called off.
    Starting {
        /// Called off.
        cancelled: bool,
    },
    /// It is being stopped, and killed at this time.
    Stopping {
        /// When it is killed.
        deadline: Timestamp,
    },
}

/// The kinds of failure to start a container; [`FailureKind::reason`] is Kubernetes' word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The image could not be fetched.
    Pull,
    /// The image is not there and may not be fetched.
    NeverPull,
    /// The image's name makes no sense.
    ImageName,
    /// The image cannot be run here.
    ImageInspect,
    /// Something that the container refers to is missing.
    Config,
    /// The runtime would not make it.
    Create,
    /// The runtime would not start it.
    Run,
}

impl FailureKind {
    /// The waiting reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Pull => "ErrImagePull",
            Self::NeverPull => "ErrImageNeverPull",
            Self::ImageName => "InvalidImageName",
            Self::ImageInspect => "ImageInspectError",
            Self::Config => "CreateContainerConfigError",
            Self::Create => "CreateContainerError",
            Self::Run => "RunContainerError",
        }
    }
}

/// Why the last try to start a container failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// For the user.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
    /// When to try again.
    pub retry_at: Timestamp,
    /// Whether the pause before the next try was told.
    pub told: bool,
}

/// Everything known of the containers of one name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Containers that the runtime holds, oldest first.
    pub records: Vec<Record>,
    /// What is going on.
    pub op: Option<Op>,
    /// Why the last try to start failed.
    pub failure: Option<Failure>,
    /// Pauses between restarts.
    pub crash: Backoff,
    /// Pauses between image pulls.
    pub pull: Backoff,
    /// The record whose end was already paid for with a step of `crash`.
    pub charged: Option<ContainerId>,
    /// The record whose pause was already told.
    pub told: Option<ContainerId>,
    /// The attempt to begin with, where the runtime lost what it knew.
    pub first_attempt: u32,
}

impl Cell {
    /// The newest container.
    pub fn newest(&self) -> Option<&Record> {
        self.records.last()
    }

    /// The one before the newest.
    pub fn previous(&self) -> Option<&Record> {
        self.records.len().checked_sub(2).and_then(|index| self.records.get(index))
    }

    /// Whether nothing of it runs or is about to.
    pub fn is_still(&self) -> bool {
        self.op.is_none() && self.newest().is_none_or(|record| record.exit().is_some())
    }

    /// Adds or replaces a record, keeping the order of attempts.
    pub fn put(&mut self, record: Record) {
        if let Some(known) = self.records.iter_mut().find(|known| known.id == record.id) {
            // Late news of an earlier moment does not undo an end.
            if known.exit().is_none() {
                *known = Record { interrupted: known.interrupted || record.interrupted, ..record };
            }
            return;
        }
        let at = self.records.partition_point(|known| known.attempt <= record.attempt);
        self.records.insert(at, record);
    }
}

/// A sandbox that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxFacts {
    /// Its identity.
    pub id: SandboxId,
    /// How many came before it.
    pub attempt: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sandbox {
    /// There is none.
    #[default]
    Absent,
    /// It is being made.
    Creating,
    /// Making it failed; when to try again.
    Failed {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// Containers can run in it.
    Ready(SandboxFacts),
    /// It is being stopped.
    Stopping(SandboxFacts),
    /// It was stopped.
    Stopped(SandboxFacts),
}

impl Sandbox {
    /// The facts of a sandbox that exists, whether or not it still works.
    pub fn facts(&self) -> Option<&SandboxFacts> {
        match self {
            Self::Ready(facts) | Self::Stopping(facts) | Self::Stopped(facts) => Some(facts),
            _ => None,
        }
    }
}

/// How far a pod's volumes are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum VolumeStage {
    /// Not set up.
    #[default]
    Pending,
    /// Being set up.
    Mounting,
    /// Setting up failed; when to try again.
    Failed {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// Set up.
    Mounted,
    /// Being brought up to date.
    Syncing,
    /// Being taken down.
    Releasing,
    /// Taken down.
    Released,
}

/// The pod's volumes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volumes {
    /// How far they are.
    pub stage: VolumeStage,
    /// The pause before the next try to set them up.
    pub delay: Duration,
    /// Whether what they show has changed.
    pub stale: bool,
    /// When something in them expires.
    pub resync_at: Option<Timestamp>,
}

/// The node's word that a pod has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One word, for `status.reason`.
    pub reason: String,
    /// For people, for `status.message`.
    pub message: String,
    /// Whether the pod never got to run at all: its status tells nothing of containers.
    pub rejected: bool,
}

/// The pod is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The grace period it was given.
    pub grace: Duration,
    /// When what still runs is killed.
    pub deadline: Timestamp,
}

/// How far the removal of what the node holds of the pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removal {
    /// Not begun.
    #[default]
    None,
    /// Going on.
    Busy,
    /// Nothing of the pod is left on the node.
    Done,
    /// The API was told.
    Told,
}

/// Everything that the node knows of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// When the node first saw the pod.
    pub started_at: Timestamp,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// Sandboxes of earlier runs of the node that still hold containers.
    pub former_sandboxes: Vec<SandboxId>,
    /// How many sandboxes the pod has had.
    pub sandboxes_made: u32,
    /// Containers by name.
    pub cells: BTreeMap<String, Cell>,
    /// Volumes.
    pub volumes: Volumes,
    /// Whether its init containers are through.
    pub initialized: bool,
    /// Whether its containers have run to their end.
    pub completed: bool,
    /// Whether the node has failed it.
    pub verdict: Option<Verdict>,
    /// Whether it is ending.
    pub ending: Option<Ending>,
    /// Whether its object is gone from the API.
    pub gone: bool,
    /// Whether the node is stopping, and until when pods may take.
    pub halting: Option<Timestamp>,
    /// Whether the API already holds its final state.
    pub settled: bool,
    /// How far its removal is.
    pub removal: Removal,
}

impl Memory {
    /// A pod that the node has just met.
    pub fn new(started_at: Timestamp) -> Self {
        Self {
            started_at,
            sandbox: Sandbox::Absent,
            former_sandboxes: Vec::new(),
            sandboxes_made: 0,
            cells: BTreeMap::new(),
            volumes: Volumes::default(),
            initialized: false,
            completed: false,
            verdict: None,
            ending: None,
            gone: false,
            halting: None,
            settled: false,
            removal: Removal::None,
        }
    }

    /// A container's cell, made if need be.
    pub fn cell_mut(&mut self, name: &str) -> &mut Cell {
        self.cells.entry(name.to_owned()).or_default()
    }

    /// The newest container of a name.
    pub fn newest(&self, name: &str) -> Option<&Record> {
        self.cells.get(name).and_then(Cell::newest)
    }

    /// The newest container of a name, if it belongs to the present sandbox.
    pub fn current(&self, name: &str) -> Option<&Record> {
        let sandbox = self.sandbox.facts()?;
        self.newest(name).filter(|record| record.sandbox == sandbox.id)
    }

    /// Whether no container runs or is about to.
    pub fn is_still(&self) -> bool {
        self.cells.values().all(Cell::is_still)
    }

    /// Whether the pod is on its way out, for whatever reason.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some() || self.completed || self.verdict.is_some() || self.gone
    }

    /// What must hold at all times; the text says what does not.
    pub fn validate(&self) -> Result<(), String> {
        for (name, cell) in &self.cells {
            let in_order = cell.records.is_sorted_by_key(|record| record.attempt);
            if !in_order {
                return Err(format!("{name}: attempts out of order"));
            }
            let alive = cell.records.iter().filter(|record| record.exit().is_none()).count();
            if alive > 1 {
                return Err(format!("{name}: {alive} containers at once"));
            }
        }
        if self.removal != Removal::None && !self.is_still() {
            return Err("removed while something runs".into());
        }
        Ok(())
    }
}
