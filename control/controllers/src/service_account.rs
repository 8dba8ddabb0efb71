//! Every namespace has a service account `default`; pods that name none use it.

use std::future::Future;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use sampan_client::workqueue::{Next, run_workers};
use sampan_client::{Change, Informer, ObjectKey, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::{ControllerError, is_active, settled};

/// What the controller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the account.
    Create,
}

/// What to do about a namespace, given it and its default account.
pub fn plan(namespace: Option<&Namespace>, account: Option<&ServiceAccount>) -> Option<Action> {
    (namespace.is_some_and(is_active) && account.is_none()).then_some(Action::Create)
}

/// Adds the controller's handlers; the future is the controller.
pub(crate) fn run(
    client: kube::Client,
    namespaces: &mut Informer<Namespace>,
    accounts: &mut Informer<ServiceAccount>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let queue = WorkQueue::<String>::new();
    let sender = queue.clone();
    namespaces.on_change(move |change| sender.add(change.key().name));
    let sender = queue.clone();
    accounts.on_change(move |change| {
        if let Change::Deleted(_) = change {
            sender.add(change.key().namespace);
        }
    });
    let (namespaces, accounts) = (namespaces.reader(), accounts.reader());
    async move {
        if !(namespaces.synced().await && accounts.synced().await) {
            return;
        }
        run_workers("service-account", queue, 1, shutdown, move |name: String| {
            let (client, namespaces, accounts) = (client.clone(), namespaces.clone(), accounts.clone());
            async move {
                let namespace = namespaces.get(&ObjectKey::new("", &name));
                let account = accounts.get(&ObjectKey::new(&name, "default"));
                if let Some(Action::Create) = plan(namespace.as_deref(), account.as_deref()) {
                    create(client, &name).await?;
                }
                Ok::<_, ControllerError>(Next::Wait)
            }
        })
        .await;
    }
}

async fn create(client: kube::Client, namespace: &str) -> Result<(), ControllerError> {
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some("default".to_owned()), ..Default::default() },
        ..Default::default()
    };
    let api = Api::<ServiceAccount>::namespaced(client, namespace);
    settled(api.create(&PostParams::default(), &account).await)
        .map_err(ControllerError::api(format!("creating the default service account of {namespace}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn active_namespaces_get_the_account_once() {
        let active: Namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let ending: Namespace = serde_json::from_value(
            json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        )
        .unwrap();
        let account = ServiceAccount::default();
        assert_eq!(plan(Some(&active), None), Some(Action::Create));
        assert_eq!(plan(Some(&active), Some(&account)), None);
        assert_eq!(plan(Some(&ending), None), None);
        assert_eq!(plan(None, None), None);
    }
}
