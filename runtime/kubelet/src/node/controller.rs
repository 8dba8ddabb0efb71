//! Registers the node and keeps its status true.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use sampan_client::ApiLink;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::conditions::{self, Measured};
use super::{describe, machine};
use crate::context::Context;
use crate::pod::status::whole_seconds;

/// The pause between tries to register.
const RETRY: Duration = Duration::from_millis(200);
/// So many tries may fail before it is worth a warning.
const PATIENCE: u32 = 10;

/// The node's own object. One per agent.
pub struct NodeController {
    context: Arc<Context>,
    nodes: Api<Node>,
}

impl std::fmt::Debug for NodeController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeController").finish_non_exhaustive()
    }
}

impl NodeController {
    /// A controller of the agent's node.
    pub fn new(context: Arc<Context>) -> Self {
        let nodes = Api::all(context.config.client.clone());
        Self { context, nodes }
    }

    /// Registers the node, trying until it works or `shutdown`.
    pub async fn register(&self, shutdown: &CancellationToken) -> Option<Node> {
        let mut tries = 0_u32;
        loop {
            tries = tries.saturating_add(1);
            match self.try_register().await {
                Ok(node) => return Some(node),
                Err(error) => {
                    let error = crate::objects::explain(&error);
                    // Told once as a warning: an API that is still starting is no news.
                    if tries == PATIENCE {
                        tracing::warn!(error, "the node cannot be registered; it is retried");
                    } else {
                        tracing::debug!(error, "the node was not registered");
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn try_register(&self) -> Result<Node, kube::Error> {
        let config = &self.context.config;
        let name = &config.node_name;
        let labels = describe::labels(config);
        let net = config.network.net().to_string();
        if let Some(known) = self.nodes.get_opt(name).await? {
            // Taints are set once; whoever changed them since had a reason.
            let held = known.metadata.labels.as_ref();
            let same_labels =
                labels.iter().all(|(key, value)| held.and_then(|held| held.get(key)) == Some(value));
            let same_range = known.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()) == Some(&net);
            if same_labels && same_range {
                return Ok(known);
            }
            let patch =
                json!({ "metadata": { "labels": labels }, "spec": { "podCIDR": net, "podCIDRs": [net] } });
            return self.nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        }
        let taints = config.node_taints.clone();
        let node = Node {
            metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..Default::default() },
            spec: Some(NodeSpec {
                pod_cidr: Some(net.clone()),
                pod_cidrs: Some(vec![net]),
                taints: Some(taints).filter(|taints| !taints.is_empty()),
                ..Default::default()
            }),
            status: None,
        };
        self.nodes.create(&PostParams::default(), &node).await
    }

    /// Keeps the status true until `shutdown`. `node` is the node as registered; `ready` is told
    /// when its first status is written.
    pub async fn run(&self, node: &Node, ready: impl FnOnce() + Send, shutdown: CancellationToken) {
        let periods = self.context.config.periods;
        let mut held = node.status.as_ref().map(to_json).unwrap_or(Value::Null);
        let mut known = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let mut written: Option<Instant> = None;
        let mut ready = Some(ready);
        let mut link = self.context.config.link.clone();
        let mut retry = RETRY;
        loop {
            let status = self.status(&known, false).await;
            let wanted = to_json(&status);
            let due = written.is_none_or(|at| at.elapsed() >= periods.node_report);
            if due || without_heartbeats(&held) != without_heartbeats(&wanted) {
                match self.write(&wanted).await {
                    Ok(()) => {
                        written = Some(Instant::now());
                        known = status.conditions.unwrap_or_default();
                        held = wanted;
                        retry = RETRY;
                        if let Some(ready) = ready.take() {
                            ready();
                        }
                    }
                    Err(error) => {
                        tracing::debug!(
                            error = crate::objects::explain(&error),
                            "the node's status was not written"
                        );
                    }
                }
            }
            let pause = if written.is_some() { periods.node_check } else { retry.min(periods.node_check) };
            retry = retry.saturating_mul(2);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = reached_anew(&mut link) => {
                    // The servers may know the node as it was, or not at all.
                    if let Some(node) = self.register(&shutdown).await {
                        held = node.status.as_ref().map(to_json).unwrap_or(Value::Null);
                    }
                    (written, retry) = (None, RETRY);
                }
            }
        }
    }

    /// Says that the node is stopping.
    pub async fn report_stop(&self) {
        let node = match self.nodes.get(&self.context.config.node_name).await {
            Ok(node) => node,
            Err(error) => {
                tracing::debug!(error = crate::objects::explain(&error), "the node's end was not reported");
                return;
            }
        };
        let known = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let status = self.status(&known, true).await;
        if let Err(error) = self.write(&to_json(&status)).await {
            tracing::debug!(error = crate::objects::explain(&error), "the node's end was not reported");
        }
    }

    async fn write(&self, status: &Value) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({ "status": status }));
        self.nodes
            .patch_status(&self.context.config.node_name, &PatchParams::default(), &patch)
            .await
            .map(drop)
    }

    async fn status(
        &self,
        known: &[k8s_openapi::api::core::v1::NodeCondition],
        stopping: bool,
    ) -> NodeStatus {
        let config = &self.context.config;
        let capacity = describe::capacity(config);
        let measured = Measured {
            memory: machine::memory(),
            disk: machine::disk(&config.data_dir),
            pids: machine::pids(),
            stopping,
            clock_skew: config.clock_skew.as_ref().map(|skew| skew()),
        };
        let findings = conditions::find(&measured, &config.pressure);
        let images = config.images.list().await.unwrap_or_default();
        NodeStatus {
            allocatable: Some(describe::allocatable(config, &capacity)),
            capacity: Some(capacity),
            addresses: Some(describe::addresses(config)),
            conditions: Some(conditions::dated(&findings, known, whole_seconds(Timestamp::now()))),
            daemon_endpoints: describe::endpoints(config),
            images: Some(describe::images(images)),
            node_info: Some(describe::system_info(config)),
            ..Default::default()
        }
    }
}

/// Waits until the API can be reached anew.
async fn reached_anew(link: &mut Option<watch::Receiver<ApiLink>>) {
    if let Some(watched) = link {
        if watched.changed().await.is_ok() {
            return;
        }
        // Nobody will tell any more.
        *link = None;
    }
    std::future::pending().await
}

fn to_json(status: &NodeStatus) -> Value {
    serde_json::to_value(status).unwrap_or(Value::Null)
}

/// A status without the times that say only that it was written.
fn without_heartbeats(status: &Value) -> Value {
    let mut status = status.clone();
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastHeartbeatTime");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_alone_is_no_change() {
        let status = |beat: &str, ready: &str| {
            json!({ "capacity": { "cpu": "2" }, "conditions": [
                { "type": "Ready", "status": ready, "lastHeartbeatTime": beat }
            ] })
        };
        assert_eq!(without_heartbeats(&status("1", "True")), without_heartbeats(&status("2", "True")));
        assert_ne!(without_heartbeats(&status("1", "True")), without_heartbeats(&status("1", "False")));
    }
}
