//! The shell around the pure parts: informers feed one task, which owns cache and queue; each
//! decision is bound by a task of its own, so that the next does not wait for it.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use sampan_client::informer::chain;
use sampan_client::{Change, EventType, Informer, Recorder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Framework};
use crate::plugins::default_framework;
use crate::queue::{QueuedPod, SchedulingQueue};
use crate::schedule::{FitError, schedule};

/// What the scheduler is told at start.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Pods with this `schedulerName` are ours.
    pub name: String,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { name: "default-scheduler".to_owned() }
    }
}

/// What reaches the scheduler's task.
enum Message {
    Pod(Change<Pod>),
    Node(Change<Node>),
    BindFailed(QueuedPod),
    /// The pod was gone when it was to be bound.
    Vanished(String),
}

/// See the module.
pub struct Scheduler {
    config: SchedulerConfig,
    client: kube::Client,
    recorder: Recorder,
    framework: Framework,
    cache: Cache,
    queue: SchedulingQueue,
    sender: mpsc::UnboundedSender<Message>,
    messages: mpsc::UnboundedReceiver<Message>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler that talks to the API through `client`. Must be made inside a tokio runtime.
    pub fn new(config: SchedulerConfig, client: kube::Client) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        Self {
            recorder: Recorder::new(client.clone(), &config.name, ""),
            config,
            client,
            framework: default_framework(),
            cache: Cache::default(),
            queue: SchedulingQueue::default(),
            sender,
            messages,
        }
    }

    /// Schedules until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let unfinished = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        let mut pods = Informer::<Pod>::new(Api::all(self.client.clone()), unfinished).trim(drop_unread);
        let mut nodes = Informer::<Node>::new(Api::all(self.client.clone()), watcher::Config::default());
        let sender = self.sender.clone();
        // Sending fails only once the scheduler has ended; then nobody needs the change.
        pods.on_change(move |change| drop(sender.send(Message::Pod(change.clone()))));
        let sender = self.sender.clone();
        nodes.on_change(move |change| drop(sender.send(Message::Node(change.clone()))));
        let (pods_seen, nodes_seen) = (pods.reader(), nodes.reader());
        let informers = [tokio::spawn(pods.run(shutdown.clone())), tokio::spawn(nodes.run(shutdown.clone()))];
        // Until both lists are in, a full node could look empty.
        let synced = async { pods_seen.synced().await && nodes_seen.synced().await };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = synced => self.work(&shutdown).await,
        }
        for informer in informers {
            if let Err(error) = informer.await {
                tracing::error!(%error, "an informer of the scheduler failed");
            }
        }
    }

    async fn work(&mut self, shutdown: &CancellationToken) {
        loop {
            while let Ok(message) = self.messages.try_recv() {
                self.observe(message);
            }
            if let Some(queued) = self.queue.pop(Instant::now()) {
                self.schedule_one(queued);
                continue;
            }
            let timer = async {
                match self.queue.next_timer() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = timer => {}
                message = self.messages.recv() => match message {
                    Some(message) => self.observe(message),
                    None => return,
                },
            }
        }
    }

    fn observe(&mut self, message: Message) {
        match message {
            Message::Pod(change) => self.observe_pod(&change),
            Message::Node(change) => self.observe_node(&change),
            Message::BindFailed(queued) => {
                self.cache.forget(queued.uid());
                self.queue.set_failed(queued, Instant::now());
            }
            Message::Vanished(uid) => self.cache.forget(&uid),
        }
    }

    fn observe_pod(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Change::Deleted(_) = change {
            self.queue.remove(uid);
            if self.cache.remove_pod(uid) {
                self.queue.on_event(ClusterEvent::PodRemoved, &self.framework, Instant::now());
            }
            return;
        }
        match node_of(pod) {
            Some(node) => {
                self.queue.remove(uid);
                self.cache.set_pod(pod, node);
            }
            None if self.is_ours(pod) && !self.cache.is_placed(uid) => {
                self.queue.set(pod.clone(), &self.framework, Instant::now());
            }
            None => self.queue.remove(uid),
        }
    }

    fn observe_node(&mut self, change: &Change<Node>) {
        let now = Instant::now();
        match change {
            Change::Added(node) => {
                self.cache.set_node(node.clone());
                self.queue.on_event(ClusterEvent::NodeAdded, &self.framework, now);
            }
            Change::Updated { old, new } => {
                self.cache.set_node(new.clone());
                for event in node_events(old, new) {
                    self.queue.on_event(event, &self.framework, now);
                }
            }
            Change::Deleted(node) => {
                self.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    /// Whether a pod without a node is for us to place, now.
    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let name = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        name == self.config.name
            && pod.metadata.deletion_timestamp.is_none()
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
    }

    fn schedule_one(&mut self, queued: QueuedPod) {
        let pod = queued.pod.clone();
        match schedule(&pod, &self.cache, &self.framework, rand::random_range(0..usize::MAX)) {
            Ok(node) => {
                let node = node.name().to_owned();
                self.cache.assume(&pod, &node);
                metrics::counter!("scheduler_schedule_attempts_total", "result" => "scheduled").increment(1);
                self.bind(queued, node);
            }
            Err(error) => {
                metrics::counter!("scheduler_schedule_attempts_total", "result" => "unschedulable")
                    .increment(1);
                self.report(&pod, &error);
                let refused_by = error.plugins.into_iter().collect();
                self.queue.set_unschedulable(queued, refused_by, Instant::now());
            }
        }
    }

    fn bind(&self, queued: QueuedPod, node: String) {
        let (client, recorder, sender) = (self.client.clone(), self.recorder.clone(), self.sender.clone());
        tokio::spawn(async move {
            let pod = queued.pod.clone();
            match bind(client, &pod, &node).await {
                Ok(()) => {
                    let (namespace, name) = names(&pod);
                    let message = format!("Successfully assigned {namespace}/{name} to {node}");
                    recorder.event(&reference(&pod), EventType::Normal, "Scheduled", message);
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    drop(sender.send(Message::Vanished(queued.uid().to_owned())));
                }
                Err(error) => {
                    let message = format!("binding rejected: {}", chain(&error));
                    recorder.event(&reference(&pod), EventType::Warning, "FailedScheduling", message);
                    drop(sender.send(Message::BindFailed(queued)));
                }
            }
        });
    }

    /// Tells the pod, in an event and a condition, why it has no node.
    fn report(&self, pod: &Arc<Pod>, error: &FitError) {
        let message = error.to_string();
        self.recorder.event(&reference(pod), EventType::Warning, "FailedScheduling", message.clone());
        let known = conditions(pod).iter().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.message.as_deref() == Some(message.as_str())
        });
        if known {
            return;
        }
        let (client, pod) = (self.client.clone(), pod.clone());
        tokio::spawn(async move {
            if let Err(error) = set_unschedulable(client, &pod, message).await {
                tracing::debug!(error = %chain(&error), "the pod's PodScheduled condition was not written");
            }
        });
    }
}

async fn bind(client: kube::Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let (namespace, name) = names(pod);
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..Default::default()
        },
    };

    let api = Api::<Pod>::namespaced(client, namespace);
    let _: serde_json::Value =
        api.create_subresource("binding", name, &PostParams::default(), &binding).await?;
    Ok(())
}

async fn set_unschedulable(client: kube::Client, pod: &Pod, message: String) -> Result<(), kube::Error> {
    let (namespace, name) = names(pod);
    let since = conditions(pod)
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .and_then(|condition| condition.last_transition_time.clone())
        .unwrap_or_else(|| Time(Timestamp::now()));
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message),
        last_transition_time: Some(since),
        ..Default::default()
    };
    let patch = serde_json::json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"conditions": [condition]},
    });
    let api = Api::<Pod>::namespaced(client, namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// What changed about a node that may matter to pods that wait.
fn node_events(old: &Node, new: &Node) -> Vec<ClusterEvent> {
    let mut events = Vec::new();
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    if allocatable(old) != allocatable(new) {
        events.push(ClusterEvent::NodeAllocatableChanged);
    }
    if old.metadata.labels != new.metadata.labels {
        events.push(ClusterEvent::NodeLabelsChanged);
    }
    let taints = |node: &Node| node.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
    if taints(old) != taints(new) {
        events.push(ClusterEvent::NodeTaintsChanged);
    }
    events
}

/// Drops from a pod what no plugin looks at: ten thousand pods stand in this cache.
fn drop_unread(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            container.env = None;
            container.env_from = None;
            container.volume_mounts = None;
            container.command = None;
            container.args = None;
        }
    }
    if let Some(status) = &mut pod.status {
        status.container_statuses = None;
        status.init_container_statuses = None;
        status.conditions.iter_mut().for_each(|all| all.retain(|c| c.type_ == "PodScheduled"));
    }
}

fn conditions(pod: &Pod) -> &[PodCondition] {
    pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|name| !name.is_empty())
}

fn names(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_changes_that_matter_wake_waiting_pods() {
        let node = |spec, labels, cpu| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": "n", "labels": labels},
                "spec": spec,
                "status": {"allocatable": {"cpu": cpu}, "conditions": []},
            }))
            .unwrap()
        };
        let base = node(json!({}), json!({}), "1");
        assert_eq!(node_events(&base, &base), []);
        assert_eq!(
            node_events(&base, &node(json!({}), json!({"a": "b"}), "1")),
            [ClusterEvent::NodeLabelsChanged]
        );
        assert_eq!(
            node_events(&base, &node(json!({"unschedulable": true}), json!({}), "2")),
            [ClusterEvent::NodeAllocatableChanged, ClusterEvent::NodeTaintsChanged]
        );
    }
}
