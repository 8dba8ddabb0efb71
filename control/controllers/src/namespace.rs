//! Ending namespaces: everything in a namespace that is being deleted goes, and then the
//! namespace's own finalizer, as Kubernetes' namespace controller does it.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use sampan_api::scheme::{self, Resource, Verb};
use sampan_client::workqueue::{Next, run_workers};
use sampan_client::{Change, Informer, ObjectKey, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::ControllerError;

/// The finalizer that this controller takes away.
const FINALIZER: &str = "kubernetes";
/// How soon to look again while objects are still ending.
const RECHECK: Duration = Duration::from_secs(1);

/// What is left in a namespace of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// The resource.
    pub resource: &'static Resource,
    /// How many objects there are.
    pub objects: usize,
    /// Finalizers that hold them, and how many objects each.
    pub finalizers: Vec<(String, usize)>,
}

/// What the controller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Delete what is there of this resource.
    DeleteAll(&'static Resource),
    /// Say in the status what still holds the namespace.
    Report(Vec<(&'static str, &'static str, &'static str, String)>),
    /// Take the finalizer away: nothing is left.
    Finalize,
}

/// What to do about a namespace, given what is left in it.
pub fn plan(namespace: &Namespace, remaining: &[Remaining]) -> Vec<Action> {
    let held = namespace
        .spec
        .as_ref()
        .and_then(|s| s.finalizers.as_ref())
        .is_some_and(|f| f.iter().any(|f| f == FINALIZER));
    if namespace.metadata.deletion_timestamp.is_none() || !held {
        return Vec::new();
    }
    if remaining.is_empty() {
        return vec![Action::Finalize];
    }
    let mut actions: Vec<Action> = remaining.iter().map(|r| Action::DeleteAll(r.resource)).collect();
    actions.push(Action::Report(conditions(remaining)));
    actions
}

/// Conditions: type, status, reason, message.
fn conditions(remaining: &[Remaining]) -> Vec<(&'static str, &'static str, &'static str, String)> {
    let resources: Vec<String> = remaining
        .iter()
        .map(|r| format!("{} has {} resource instances", r.resource.qualified(), r.objects))
        .collect();
    let mut finalizers: Vec<String> = Vec::new();
    for (name, count) in remaining.iter().flat_map(|r| &r.finalizers) {
        finalizers.push(format!("{name} in {count} resource instances"));
    }
    let deleted = "All content successfully deleted, may be waiting on finalization";
    let mut all = vec![
        (
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered".to_owned(),
        ),
        ("NamespaceDeletionContentFailure", "False", "ContentDeleted", deleted.to_owned()),
        (
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", resources.join(", ")),
        ),
    ];
    all.push(if finalizers.is_empty() {
        (
            "NamespaceFinalizersRemaining",
            "False",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".to_owned(),
        )
    } else {
        (
            "NamespaceFinalizersRemaining",
            "True",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")),
        )
    });
    all
}

/// Adds the controller's handlers; the future is the controller.
pub(crate) fn run(
    client: kube::Client,
    namespaces: &mut Informer<Namespace>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let queue = WorkQueue::<String>::new();
    let sender = queue.clone();
    namespaces.on_change(move |change| {
        let ending = change.object().metadata.deletion_timestamp.is_some();
        if ending && !matches!(change, Change::Deleted(_)) {
            sender.add(change.key().name);
        }
    });
    let namespaces = namespaces.reader();
    async move {
        if !namespaces.synced().await {
            return;
        }
        run_workers("namespace", queue, 4, shutdown, move |name: String| {
            let (client, namespaces) = (client.clone(), namespaces.clone());
            async move {
                let Some(namespace) = namespaces.get(&ObjectKey::new("", &name)) else {
                    return Ok(Next::Wait);
                };
                let remaining = observe(&client, &name).await?;
                let actions = plan(&namespace, &remaining);
                let again = actions.iter().any(|action| matches!(action, Action::DeleteAll(_)));
                for action in actions {
                    act(action, &client, &namespace, &name).await?;
                }
                Ok::<_, ControllerError>(if again { Next::After(RECHECK) } else { Next::Wait })
            }
        })
        .await;
    }
}

/// The resources whose objects a namespace may hold, each kind once.
fn contents() -> impl Iterator<Item = &'static Resource> {
    let mut seen = Vec::new();
    scheme::resources()
        .iter()
        .filter(|r| r.namespaced && r.storage.is_some() && r.serves(Verb::List) && r.serves(Verb::Delete))
        .filter(move |r| {
            let new = !seen.contains(&r.storage);
            seen.push(r.storage);
            new
        })
}

fn api(client: &kube::Client, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
    let described = ApiResource {
        group: resource.group.to_owned(),
        version: resource.version.to_owned(),
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        plural: resource.plural.to_owned(),
    };
    Api::namespaced_with(client.clone(), namespace, &described)
}

async fn observe(client: &kube::Client, namespace: &str) -> Result<Vec<Remaining>, ControllerError> {
    let mut remaining = Vec::new();
    for resource in contents() {
        let found = api(client, resource, namespace)
            .list_metadata(&ListParams::default())
            .await
            .map_err(ControllerError::api(format!("listing {} of namespace {namespace}", resource.plural)))?;
        if found.items.is_empty() {
            continue;
        }
        let mut finalizers: Vec<(String, usize)> = Vec::new();
        for object in &found.items {
            for finalizer in object.metadata.finalizers.iter().flatten() {
                match finalizers.iter_mut().find(|(name, _)| name == finalizer) {
                    Some((_, count)) => *count += 1,
                    None => finalizers.push((finalizer.clone(), 1)),
                }
            }
        }
        remaining.push(Remaining { resource, objects: found.items.len(), finalizers });
    }
    Ok(remaining)
}

async fn act(
    action: Action,
    client: &kube::Client,
    namespace: &Namespace,
    name: &str,
) -> Result<(), ControllerError> {
    match action {
        Action::DeleteAll(resource) => api(client, resource, name)
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .await
            .map(drop)
            .map_err(ControllerError::api(format!("deleting the {} of namespace {name}", resource.plural))),
        Action::Report(conditions) => report(client, namespace, name, conditions).await,
        Action::Finalize => finalize(client, namespace, name).await,
    }
}

async fn report(
    client: &kube::Client,
    namespace: &Namespace,
    name: &str,
    conditions: Vec<(&'static str, &'static str, &'static str, String)>,
) -> Result<(), ControllerError> {
    let held = namespace.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let same = |kind: &str, status: &str, message: &str| {
        held.iter().any(|c| c.type_ == kind && c.status == status && c.message.as_deref() == Some(message))
    };
    if conditions.iter().all(|(kind, status, _, message)| same(kind, status, message)) {
        return Ok(());
    }
    let now = Time(Timestamp::now());
    let conditions: Vec<NamespaceCondition> = conditions
        .into_iter()
        .map(|(kind, status, reason, message)| NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: held
                .iter()
                .find(|c| c.type_ == kind && c.status == status)
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        })
        .collect();
    let patch = Patch::Merge(serde_json::json!({"status": {"conditions": conditions}}));
    let result =
        Api::<Namespace>::all(client.clone()).patch_status(name, &PatchParams::default(), &patch).await;
    gone_is_fine(result.map(drop)).map_err(ControllerError::api(format!("reporting on namespace {name}")))
}

async fn finalize(client: &kube::Client, namespace: &Namespace, name: &str) -> Result<(), ControllerError> {
    let mut object = namespace.clone();
    if let Some(finalizers) = object.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    let api = Api::<Namespace>::all(client.clone());
    let result = api.replace_subresource("finalize", name, &PostParams::default(), &object).await;
    gone_is_fine(result.map(drop)).map_err(ControllerError::api(format!("finalizing namespace {name}")))
}

fn gone_is_fine(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(ending: bool, finalizers: &[&str]) -> Namespace {
        let mut object = json!({"metadata": {"name": "n"}, "spec": {"finalizers": finalizers}});
        if ending {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(object).unwrap()
    }

    fn pods() -> Remaining {
        let resource = scheme::by_gvr("", "v1", "pods").unwrap();
        Remaining { resource, objects: 2, finalizers: vec![("x.io/f".to_owned(), 1)] }
    }

    #[test]
    fn a_namespace_that_stays_is_left_alone() {
        assert_eq!(plan(&namespace(false, &["kubernetes"]), &[pods()]), []);
        assert_eq!(plan(&namespace(true, &[]), &[pods()]), []);
    }

    #[test]
    fn an_empty_namespace_is_finalized() {
        assert_eq!(plan(&namespace(true, &["kubernetes"]), &[]), [Action::Finalize]);
    }

    #[test]
    fn contents_are_deleted_and_reported() {
        let actions = plan(&namespace(true, &["kubernetes"]), &[pods()]);
        assert!(matches!(&actions[..], [Action::DeleteAll(r), Action::Report(_)] if r.plural == "pods"));
        let Some(Action::Report(conditions)) = actions.last() else { unreachable!() };
        let message = |kind| conditions.iter().find(|c| c.0 == kind).map(|c| c.3.as_str());
        assert_eq!(
            message("NamespaceContentRemaining"),
            Some("Some resources are remaining: pods has 2 resource instances")
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            Some("Some content in the namespace has finalizers remaining: x.io/f in 1 resource instances")
        );
    }

    #[test]
    fn kinds_served_twice_are_emptied_once() {
        assert_eq!(contents().filter(|r| r.kind == "Event").count(), 1);
    }
}
