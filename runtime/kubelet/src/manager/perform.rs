//! Carrying actions out: each in a task of its own that pokes the pod when it ends.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::{Manager, Slot};
use crate::act::start::Start;
use crate::act::{remove, sandbox, start, stop, volumes};
use crate::pod::event::{Event, Started};
use crate::pod::plan::Action;
use crate::pod::spec;

impl Manager {
    /// Begins an action of a pod. Called without the pod's lock.
    pub(super) fn perform(self: &Arc<Self>, slot: &Arc<Slot>, pod: &Arc<Pod>, action: Action) {
        let (manager, slot, pod) = (self.clone(), slot.clone(), pod.clone());
        match action {
            Action::Tell { container, kind, reason, message } => {
                self.context.tell(&pod, container.as_deref(), kind, reason, message);
            }
            Action::CancelStart { name } => {
                if let Some(cancel) = slot.inner.lock().cancels.get(&name) {
                    cancel.cancel();
                }
            }
            Action::Finish => {
                // A pod whose object is gone has nobody to be told to.
                if !slot.inner.lock().memory.gone {
                    self.context.statuses.finish(&slot.uid);
                }
            }
            Action::MountVolumes | Action::SyncVolumes => {
                tokio::spawn(manager.set_volumes_up(slot, pod));
            }
            Action::ReleaseVolumes => {
                tokio::spawn(async move {
                    volumes::release(&manager.context, &pod).await;
                    manager.poke(&slot, Event::VolumesReleased);
                });
            }
            Action::CreateSandbox { attempt } => {
                tokio::spawn(async move {
                    let event = match sandbox::create(&manager.context, &pod, attempt).await {
                        Some(facts) => Event::SandboxCreated(facts),
                        None => Event::SandboxFailed,
                    };
                    manager.poke(&slot, event);
                });
            }
            Action::StopSandbox(facts) => {
                tokio::spawn(async move {
                    sandbox::stop(&manager.context, &pod, &facts).await;
                    manager.poke(&slot, Event::SandboxStopped);
                });
            }
            Action::RemoveSandbox(id) => {
                tokio::spawn(async move { sandbox::remove(&manager.context, &id).await });
            }
            Action::Start { name, attempt } => {
                let cancel = CancellationToken::new();
                slot.inner.lock().cancels.insert(name.clone(), cancel.clone());
                tokio::spawn(manager.start(slot, pod, name, attempt, cancel));
            }
            Action::Stop { name, id, grace } => {
                tokio::spawn(async move {
                    let record = stop::stop(&manager.context, &pod, &id, grace).await;
                    if let Some(record) = record {
                        manager
                            .poke(&slot, Event::Container { name: name.clone(), record: Box::new(record) });
                    }
                    manager.poke(&slot, Event::StopDone { name });
                });
            }
            Action::RemoveContainer { name, record } => {
                tokio::spawn(async move { remove::container(&manager.context, &pod, &name, &record).await });
            }
            Action::RemovePod => {
                tokio::spawn(manager.remove_pod(slot, pod));
            }
        }
    }

    async fn set_volumes_up(self: Arc<Self>, slot: Arc<Slot>, pod: Arc<Pod>) {
        let addresses = {
            let inner = slot.inner.lock();
            inner.memory.sandbox.facts().map(|facts| facts.addresses.clone()).unwrap_or_default()
        };
        let event = match volumes::set_up(&self.context, &pod, &addresses).await {
            Some((mounted, resync_at)) => {
                slot.inner.lock().volumes = Arc::new(mounted);
                Event::VolumesMounted { resync_at }
            }
            None => Event::VolumesFailed,
        };
        self.poke(&slot, event);
    }

    async fn start(
        self: Arc<Self>,
        slot: Arc<Slot>,
        pod: Arc<Pod>,
        name: String,
        attempt: u32,
        cancel: CancellationToken,
    ) {
        let (sandbox, mounted) = {
            let inner = slot.inner.lock();
            (inner.memory.sandbox.facts().cloned(), inner.volumes.clone())
        };
        let found = spec::container(&pod, &name).map(|(_, container)| container);
        let result = match (found, &sandbox) {
            (Some(container), Some(sandbox)) => {
                let wanted = Start { pod: &pod, container, attempt, sandbox, volumes: &mounted };
                start::start(&self.context, wanted, &cancel).await
            }
            _ => Started::Cancelled,
        };
        slot.inner.lock().cancels.remove(&name);
        self.poke(&slot, Event::StartDone { name, result });
    }
}
