//! Writing statuses: one task per pod while there is something to write.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{Notify, Semaphore};

use super::diff;
use crate::pod::spec;

/// At most this many writes at once.
const WRITERS: usize = 64;
/// How long a first, uninteresting status waits for a better one.
const PATIENCE: Duration = Duration::from_millis(20);
/// The first pause after a failed write; it doubles.
const RETRY: Duration = Duration::from_millis(200);
/// The longest pause between tries.
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Entry {
    namespace: String,
    name: String,
    /// What the API held when we last heard of it.
    held: Map<String, Value>,
    /// The version of the object that `held` is from.
    version: u64,
    wanted: Map<String, Value>,
    /// Whether `wanted` can wait a moment for something better.
    patient: bool,
    /// Delete the object when `wanted` is written.
    finished: bool,
    busy: bool,
    /// Told when something better has come.
    better: Arc<Notify>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    entries: Mutex<HashMap<String, Entry>>,
    writers: Semaphore,
    /// Told when what failed is worth another try at once.
    again: Notify,
}

/// A client that can be shown.
struct Client(kube::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// The writer of pods' statuses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StatusManager {
    shared: Arc<Shared>,
}

/// What there is to do for a pod.
enum Task {
    Write { namespace: String, name: String, patch: Value, wanted: Map<String, Value> },
    Delete { namespace: String, name: String },
    Nothing,
}

impl StatusManager {
    /// A writer that knows no pods yet.
    pub fn new(client: kube::Client) -> Self {
        let shared = Shared {
            client: Client(client),
            entries: Mutex::default(),
            writers: Semaphore::new(WRITERS),
            again: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Notes what the API holds of a pod. A status that somebody else changed is put right.
    pub fn observe(&self, pod: &Pod) {
        let uid = spec::uid(pod);
        let version = version(pod);
        let mut entries = self.shared.entries.lock();
        let held = || pod.status.as_ref().map(diff::to_json).unwrap_or_default();
        match entries.get_mut(uid) {
            None => {
                entries.insert(
                    uid.to_owned(),
                    Entry {
                        namespace: spec::namespace(pod).into(),
                        name: spec::name(pod).into(),
                        held: held(),
                        version,
                        wanted: Map::new(),
                        patient: false,
                        finished: false,
                        busy: false,
                        better: Arc::default(),
                    },
                );
            }
            // Echoes of our own writes, and of what came before them, say nothing new.
            Some(entry) if version > entry.version && !entry.busy => {
                entry.held = held();
                entry.version = version;
                if !entry.wanted.is_empty() {
                    self.start(uid, entry);
                }
            }
            Some(_) => {}
        }
    }

    /// Says what a pod's status is to be. Pods that were not observed are left alone.
    pub fn set(&self, uid: &str, status: &PodStatus) {
        let mut entries = self.shared.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        entry.patient = entry.wanted.is_empty() && is_preliminary(status);
        entry.wanted = diff::to_json(status);
        if !entry.patient {
            entry.better.notify_one();
        }
        self.start(uid, entry);
    }

    /// Says that nothing of a pod is left: its object is deleted after its last status.
    pub fn finish(&self, uid: &str) {
        let mut entries = self.shared.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        entry.finished = true;
        self.start(uid, entry);
    }

    /// The API can be reached again: what failed is tried at once.
    pub fn retry(&self) {
        self.shared.again.notify_waiters();
    }

    /// What the API was believed to hold may be wrong: all statuses are written in full.
    pub fn resend(&self) {
        let mut entries = self.shared.entries.lock();
        for (uid, entry) in entries.iter_mut() {
            entry.held = Map::new();
            entry.version = 0;
            if !entry.wanted.is_empty() {
                self.start(uid, entry);
            }
        }
        drop(entries);
        self.retry();
    }

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.shared.entries.lock().remove(uid);
    }

    fn start(&self, uid: &str, entry: &mut Entry) {
        if !entry.busy {
            entry.busy = true;
            tokio::spawn(self.clone().write(uid.to_owned()));
        }
    }

    /// Writes until there is nothing more to write.
    async fn write(self, uid: String) {
        let mut pause = RETRY;
        loop {
            let patient =
                self.shared.entries.lock().get(&uid).filter(|e| e.patient).map(|e| e.better.clone());
            if let Some(better) = patient {
                // Either way it is written now.
                let _ = tokio::time::timeout(PATIENCE, better.notified()).await;
            }
            let done = match self.task(&uid) {
                Task::Nothing => return,
                Task::Write { namespace, name, patch, wanted } => {
                    self.patch(&uid, &namespace, &name, patch, wanted).await
                }
                Task::Delete { namespace, name } => self.delete(&uid, &namespace, &name).await,
            };
            match done {
                Ok(()) => pause = RETRY,
                Err(error) => {
                    let error = crate::objects::explain(&error);
                    tracing::debug!(uid, error, "a pod's status was not written; it is retried");
                    pause = self.wait(&uid, pause).await;
                }
            }
        }
    }

    /// Waits after a failure: for `pause`, or less where the API is reachable again or there is a
    /// newer status to write. The next pause.
    async fn wait(&self, uid: &str, pause: Duration) -> Duration {
        let better = self.shared.entries.lock().get(uid).map(|entry| entry.better.clone());
        let again = self.shared.again.notified();
        tokio::time::sleep(RETRY.min(pause)).await;
        let newer = async {
            match better {
                Some(better) => better.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.saturating_sub(RETRY)) => pause.saturating_mul(2).min(RETRY_MAX),
            () = again => RETRY,
            () = newer => pause,
        }
    }

    fn task(&self, uid: &str) -> Task {
        let mut entries = self.shared.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return Task::Nothing };
        entry.patient = false;
        let (namespace, name) = (entry.namespace.clone(), entry.name.clone());
        let patch =
            (!entry.wanted.is_empty()).then(|| diff::patch(&entry.held, &entry.wanted, uid)).flatten();
        if let Some(patch) = patch {
            return Task::Write { namespace, name, patch, wanted: entry.wanted.clone() };
        }
        if entry.finished {
            return Task::Delete { namespace, name };
        }
        entry.busy = false;
        Task::Nothing
    }

    async fn patch(
        &self,
        uid: &str,
        namespace: &str,
        name: &str,
        patch: Value,
        wanted: Map<String, Value>,
    ) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.0.clone(), namespace);
        let result = {
            let _permit = self.shared.writers.acquire().await;
            api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await
        };
        match result {
            Ok(pod) => {
                if let Some(entry) = self.shared.entries.lock().get_mut(uid) {
                    entry.version = entry.version.max(version(&pod));
                    // What was asked for counts as held, so that a server which words something
                    // differently is not asked for it again and again.
                    entry.held = wanted;
                }
                Ok(())
            }
            Err(error) if is_gone(&error) => {
                self.forget(uid);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, uid: &str, namespace: &str, name: &str) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.0.clone(), namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..Default::default()
        };
        let result = {
            let _permit = self.shared.writers.acquire().await;
            api.delete(name, &params).await
        };
        match result {
            Ok(_) => {
                self.forget(uid);
                Ok(())
            }
            Err(error) if is_gone(&error) => {
                self.forget(uid);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the object is gone: deleted, or another one has its name.
fn is_gone(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.code == 404 || (status.code == 409 && status.message.to_ascii_lowercase().contains("uid"))
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Whether a status only says that the pod is being set up.
fn is_preliminary(status: &PodStatus) -> bool {
    let uneventful = |reason: Option<&str>| matches!(reason, Some("ContainerCreating" | "PodInitializing"));
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    status.phase.as_deref() == Some("Pending")
        && all.into_iter().all(|container| {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.is_some_and(|waiting| uneventful(waiting.reason.as_deref()))
        })
}
