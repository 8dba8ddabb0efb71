//! What can happen to a pod on its node, and what that changes in its [`Memory`].

use jiff::Timestamp;
use std::time::Duration;

use super::backoff::later;
use super::memory::{
    Failure, FailureKind, Memory, Op, Record, Removal, Sandbox, SandboxFacts, Verdict, VolumeStage,
};

/// The first pause after a failure to set up volumes; it doubles.
const MOUNT_DELAY: Duration = Duration::from_millis(500);
/// The longest pause between tries to set up volumes.
const MOUNT_DELAY_MAX: Duration = Duration::from_secs(122);
/// The pause after a failure that is not an image's.
const RETRY: Duration = Duration::from_secs(10);

/// What came of starting a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Started {
    /// It runs (or ran: the record says).
    Yes(Box<Record>),
    /// It does not.
    No {
        /// What kind of failure.
        kind: FailureKind,
        /// For the user.
        message: String,
        /// What the runtime holds of it, if it came that far.
        record: Option<Box<Record>>,
    },
    /// The start was called off.
    Cancelled,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The pod's object is new or changed; nothing else to note.
    Changed,
    /// The pod's object is gone from the API.
    Gone,
    /// The node stops; until when pods may take.
    Halt {
        /// When what still runs is killed.
        deadline: Timestamp,
    },
    /// Time has passed.
    Tick,
    /// The node has failed the pod.
    Verdict(Verdict),
    /// What the volumes show (or what containers refer to) has changed.
    ReferencesChanged,
    /// The volumes are set up, or up to date again; when something in them expires.
    VolumesMounted {
        /// When to sync again.
        resync_at: Option<Timestamp>,
    },
    /// Setting the volumes up failed.
    VolumesFailed,
    /// The volumes were taken down.
    VolumesReleased,
    /// The sandbox is there.
    SandboxCreated(SandboxFacts),
    /// There is no sandbox.
    SandboxFailed,
    /// The sandbox was stopped.
    SandboxStopped,
    /// A start has ended one way or the other.
    StartDone {
        /// The container's name.
        name: String,
        /// What came of it.
        result: Started,
    },
    /// A stop has ended.
    StopDone {
        /// The container's name.
        name: String,
    },
    /// A container changed.
    Container {
        /// Its name.
        name: String,
        /// What it is now.
        record: Box<Record>,
    },
    /// Nothing of the pod is left on the node.
    Removed,
}

impl Memory {
    /// Takes note of an event.
    pub fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Changed | Event::Tick => {}
            Event::Gone => self.gone = true,
            Event::Halt { deadline } => self.halting = Some(deadline),
            Event::Verdict(verdict) => {
                if !self.completed {
                    self.verdict.get_or_insert(verdict);
                }
            }
            Event::ReferencesChanged => self.references_changed(now),
            Event::VolumesMounted { resync_at } => {
                self.volumes.stage = VolumeStage::Mounted;
                self.volumes.delay = Duration::ZERO;
                self.volumes.resync_at = resync_at;
            }
            Event::VolumesFailed => self.volumes_failed(now),
            Event::VolumesReleased => self.volumes.stage = VolumeStage::Released,
            Event::SandboxCreated(facts) => {
                self.sandboxes_made = self.sandboxes_made.max(facts.attempt.saturating_add(1));
                self.sandbox = Sandbox::Ready(facts);
                self.initialized = false;
            }
            Event::SandboxFailed => self.sandbox = Sandbox::Failed { retry_at: later(now, RETRY) },
            Event::SandboxStopped => {
                if let Some(facts) = self.sandbox.facts().cloned() {
                    self.sandbox = Sandbox::Stopped(facts);
                }
            }
            Event::StartDone { name, result } => self.start_done(&name, result, now),
            Event::StopDone { name } => {
                let cell = self.cell_mut(&name);
                if matches!(cell.op, Some(Op::Stopping { .. })) {
                    cell.op = None;
                }
            }
            Event::Container { name, record } => self.cell_mut(&name).put(*record),
            Event::Removed => self.removal = Removal::Done,
        }
    }

    fn references_changed(&mut self, now: Timestamp) {
        self.volumes.stale = true;
        if let VolumeStage::Failed { .. } = self.volumes.stage {
            self.volumes.stage = VolumeStage::Failed { retry_at: now };
        }
        for cell in self.cells.values_mut() {
            if let Some(failure) = &mut cell.failure
                && failure.kind == FailureKind::Config
            {
                failure.retry_at = now;
            }
        }
    }

    fn volumes_failed(&mut self, now: Timestamp) {
        let volumes = &mut self.volumes;
        volumes.delay = if volumes.delay.is_zero() {
            MOUNT_DELAY
        } else {
            volumes.delay.saturating_mul(2).min(MOUNT_DELAY_MAX)
        };
        let retry_at = later(now, volumes.delay);
        // What was mounted stays usable while an update fails.
        if volumes.stage == VolumeStage::Syncing {
            volumes.stage = VolumeStage::Mounted;
            volumes.resync_at = Some(retry_at);
        } else {
            volumes.stage = VolumeStage::Failed { retry_at };
        }
    }

    fn start_done(&mut self, name: &str, result: Started, now: Timestamp) {
        let cell = self.cell_mut(name);
        cell.op = None;
        match result {
            Started::Cancelled => {}
            Started::Yes(record) => {
                cell.failure = None;
                cell.pull = Default::default();
                cell.put(*record);
            }
            Started::No { kind, message, record } => {
                let retry_at = match kind {
                    FailureKind::Pull => {
                        cell.pull.advance(now, now);
                        later(now, cell.pull.delay().unwrap_or(RETRY))
                    }
                    // A container that could not run has ended: its restart is paced as any other's.
                    FailureKind::Run if record.is_some() => now,
                    _ => later(now, RETRY),
                };
                cell.failure = Some(Failure { kind, message, at: now, retry_at, told: false });
                if let Some(record) = record {
                    cell.put(*record);
                }
            }
        }
    }
}
