//! Pods of nodes that are gone: nobody is left to end them, so they are ended here, once the
//! node has been away for a while.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use sampan_client::workqueue::{Next, run_workers};
use sampan_client::{Change, Informer, ObjectKey, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::ControllerError;

/// How long a node must be gone before its pods go: it may be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// What the controller may do about a pod of a node that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Mark it failed: it did not end by itself.
    Fail,
    /// Delete it at once.
    Delete,
}

/// What to do about a pod whose node is gone.
pub fn plan(pod: &Pod) -> Vec<Action> {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        vec![Action::Delete]
    } else {
        vec![Action::Fail, Action::Delete]
    }
}

/// Adds the controller's handlers; the future is the controller.
pub(crate) fn run(
    client: kube::Client,
    nodes: &mut Informer<Node>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let queue = WorkQueue::<String>::new();
    let sender = queue.clone();
    nodes.on_change(move |change| {
        if let Change::Deleted(_) = change {
            sender.add_after(change.key().name, QUARANTINE);
        }
    });
    let nodes = nodes.reader();
    async move {
        if !nodes.synced().await {
            return;
        }
        // Nodes deleted while nobody watched left pods behind: one look at all pods finds them.
        match nodes_of_pods(&client).await {
            Ok(named) => named.into_iter().for_each(|node| queue.add_after(node, QUARANTINE)),
            Err(error) => tracing::warn!(%error, "pods of nodes deleted meanwhile are not collected"),
        }
        run_workers("pod-gc", queue, 1, shutdown, move |node: String| {
            let (client, nodes) = (client.clone(), nodes.clone());
            async move {
                if nodes.get(&ObjectKey::new("", &node)).is_none() {
                    collect(&client, &node).await?;
                }
                Ok::<_, ControllerError>(Next::Wait)
            }
        })
        .await;
    }
}

async fn nodes_of_pods(client: &kube::Client) -> Result<BTreeSet<String>, kube::Error> {
    let mut names = BTreeSet::new();
    let mut page = ListParams::default().limit(500);
    loop {
        let pods = Api::<Pod>::all(client.clone()).list(&page).await?;
        names.extend(pods.items.into_iter().filter_map(|pod| pod.spec?.node_name).filter(|n| !n.is_empty()));
        match pods.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            _ => return Ok(names),
        }
    }
}

async fn collect(client: &kube::Client, node: &str) -> Result<(), ControllerError> {
    let of_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = Api::<Pod>::all(client.clone())
        .list(&of_node)
        .await
        .map_err(ControllerError::api(format!("listing the pods of node {node}")))?;
    for pod in pods {
        for action in plan(&pod) {
            act(action, client, &pod).await?;
        }
    }
    Ok(())
}

async fn act(action: Action, client: &kube::Client, pod: &Pod) -> Result<(), ControllerError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let result = match action {
        Action::Fail => {
            let patch = Patch::Merge(serde_json::json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"phase": "Failed", "reason": "NodeLost", "message": "PodGC: node no longer exists"},
            }));
            api.patch_status(name, &PatchParams::default(), &patch).await.map(drop)
        }
        Action::Delete => {
            let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
            let now = DeleteParams::default().grace_period(0).preconditions(preconditions);
            api.delete(name, &now).await.map(drop)
        }
    };
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        result => result.map_err(ControllerError::api(format!("collecting pod {namespace}/{name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_had_not_ended_is_marked_failed_first() {
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {}, "status": {"phase": phase}})).unwrap()
        };
        assert_eq!(plan(&pod("Running")), [Action::Fail, Action::Delete]);
        assert_eq!(plan(&pod("Succeeded")), [Action::Delete]);
    }
}
