//! Events: what controllers, scheduler and kubelet tell people about objects.
//!
//! [`Recorder::event`] never blocks and never fails its caller; a background task writes.
//! As in client-go, repeats of one event raise its count instead of making a new object,
//! many similar events are folded into one, and a source that floods one object is throttled.

mod correlate;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

use correlate::{Correlator, Decision, Occurrence};

/// Events that wait to be written; beyond this many, new ones are dropped.
const QUEUE: usize = 4096;
/// How often a write is tried.
const TRIES: u32 = 4;

/// Whether an event tells of the ordinary or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The ordinary course of things.
    Normal,
    /// Something went wrong.
    Warning,
}

impl EventType {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events of one component. Cheap to clone. Must be made inside a tokio runtime.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

impl Recorder {
    /// A recorder for `component` (as `kubelet`) on `host` (empty where it is bound to none).
    pub fn new(client: kube::Client, component: &str, host: &str) -> Self {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            source: EventSource {
                component: Some(component.to_owned()),
                host: (!host.is_empty()).then(|| host.to_owned()),
            },
            instance: if host.is_empty() { component.to_owned() } else { host.to_owned() },
        };
        tokio::spawn(writer.run(occurrences));
        Self { queue }
    }

    /// Tells of something that happened to `object`.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let occurrence = Occurrence {
            object: object.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.queue.try_send(occurrence).is_err() {
            tracing::debug!(reason, "event dropped: the queue is full or closed");
        }
    }
}

/// The background half of a recorder.
struct Writer {
    client: kube::Client,
    source: EventSource,
    instance: String,
}

impl Writer {
    async fn run(self, mut occurrences: mpsc::Receiver<Occurrence>) {
        let mut correlator = Correlator::default();
        while let Some(occurrence) = occurrences.recv().await {
            let decision = correlator.observe(&occurrence);
            self.carry_out(occurrence, decision, &mut correlator).await;
        }
    }

    async fn carry_out(&self, occurrence: Occurrence, decision: Decision, correlator: &mut Correlator) {
        match decision {
            Decision::Drop => {}
            Decision::Create { message } => self.create(&occurrence, message, correlator).await,
            Decision::Repeat { name, message, count } => {
                let patch = Patch::Merge(serde_json::json!({
                    "message": message,
                    "count": count,
                    "lastTimestamp": Time(seconds(occurrence.at)),
                }));
                let api = self.api(&occurrence.object);
                let params = PatchParams::default();
                let result = attempt(|| api.patch(&name, &params, &patch)).await;
                // The event expired, or its namespace is being emptied: tell it anew.
                if matches!(&result, Err(kube::Error::Api(status)) if status.code == 404) {
                    self.create(&occurrence, message, correlator).await;
                }
            }
        }
    }

    async fn create(&self, occurrence: &Occurrence, message: String, correlator: &mut Correlator) {
        let event = self.build(occurrence, message);
        let api = self.api(&occurrence.object);
        let params = PostParams::default();
        match attempt(|| api.create(&params, &event)).await {
            Ok(made) => correlator.created(occurrence, made.metadata.name.unwrap_or_default()),
            Err(error) => {
                tracing::debug!(reason = occurrence.reason, error = %crate::informer::chain(&error), "event lost");
            }
        }
    }

    fn api(&self, object: &ObjectReference) -> Api<Event> {
        Api::namespaced(self.client.clone(), namespace(object))
    }

    fn build(&self, occurrence: &Occurrence, message: String) -> Event {
        let object = &occurrence.object;
        let nanos = occurrence.at.as_nanosecond();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{nanos:x}", object.name.as_deref().unwrap_or_default())),
                namespace: Some(namespace(object).to_owned()),
                ..Default::default()
            },
            involved_object: object.clone(),
            type_: Some(occurrence.kind.as_str().to_owned()),
            reason: Some(occurrence.reason.clone()),
            message: Some(message),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.instance.clone()),
            count: Some(1),
            first_timestamp: Some(Time(seconds(occurrence.at))),
            last_timestamp: Some(Time(seconds(occurrence.at))),
            ..Default::default()
        }
    }
}

/// Events of cluster-scoped objects live in the namespace `default`.
fn namespace(object: &ObjectReference) -> &str {
    object.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or("default")
}

/// Event times have whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Tries a write a few times while the server cannot take it.
async fn attempt<T, Fut>(mut write: impl FnMut() -> Fut) -> Result<T, kube::Error>
where
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let mut delay = Duration::from_millis(100);
    let mut tries = 1;
    loop {
        match write().await {
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                return Err(kube::Error::Api(status));
            }
            Err(_) if tries < TRIES => {
                tokio::time::sleep(delay).await;
                delay *= 3;
                tries += 1;
            }
            result => return result,
        }
    }
}
