//! Every namespace has a ConfigMap `kube-root-ca.crt` with the CA that serves the API, so that
//! pods can check whom they talk to.

use std::collections::BTreeMap;
use std::future::Future;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use sampan_client::workqueue::{Next, run_workers};
use sampan_client::{Informer, ObjectKey, WorkQueue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{ControllerError, is_active, settled};

/// The ConfigMap's name.
pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";

/// What the controller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the ConfigMap.
    Create,
    /// Put the certificate back.
    Repair,
}

/// What to do about a namespace, given it and its ConfigMap.
pub fn plan(namespace: Option<&Namespace>, published: Option<&ConfigMap>, root_ca: &str) -> Option<Action> {
    if !namespace.is_some_and(is_active) {
        return None;
    }
    let Some(published) = published else { return Some(Action::Create) };
    let held = published.data.as_ref().and_then(|data| data.get(KEY));
    (held.map(String::as_str) != Some(root_ca)).then_some(Action::Repair)
}

/// Adds the controller's handlers; the future is the controller.
pub(crate) fn run(
    client: kube::Client,
    mut root_ca: watch::Receiver<String>,
    namespaces: &mut Informer<Namespace>,
    published: &mut Informer<ConfigMap>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let queue = WorkQueue::<String>::new();
    let sender = queue.clone();
    namespaces.on_change(move |change| sender.add(change.key().name));
    let sender = queue.clone();
    published.on_change(move |change| sender.add(change.key().namespace));
    let (namespaces, published) = (namespaces.reader(), published.reader());
    async move {
        if !(namespaces.synced().await && published.synced().await) {
            return;
        }
        let (all, again, now) = (namespaces.clone(), queue.clone(), root_ca.clone());
        let changes = async move {
            while root_ca.changed().await.is_ok() {
                all.list().iter().for_each(|namespace| again.add(namespace.name_any()));
            }
            // Whoever knew of changes is gone; the workers go on.
            std::future::pending::<()>().await;
        };
        let workers = run_workers("root-ca", queue, 1, shutdown, move |name: String| {
            let (client, root_ca) = (client.clone(), now.borrow().clone());
            let namespace = namespaces.get(&ObjectKey::new("", &name));
            let held = published.get(&ObjectKey::new(&name, NAME));
            async move {
                if let Some(action) = plan(namespace.as_deref(), held.as_deref(), &root_ca) {
                    act(action, client, &name, &root_ca).await?;
                }
                Ok::<_, ControllerError>(Next::Wait)
            }
        });
        tokio::select! {
            () = workers => {}
            () = changes => {}
        }
    }
}

async fn act(
    action: Action,
    client: kube::Client,
    namespace: &str,
    root_ca: &str,
) -> Result<(), ControllerError> {
    let api = Api::<ConfigMap>::namespaced(client, namespace);
    let data = BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]);
    let result = match action {
        Action::Create => {
            let map = ConfigMap {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..Default::default() },
                data: Some(data),
                ..Default::default()
            };
            api.create(&PostParams::default(), &map).await
        }
        Action::Repair => {
            let patch = Patch::Merge(serde_json::json!({"data": data}));
            api.patch(NAME, &PatchParams::default(), &patch).await
        }
    };
    settled(result).map_err(ControllerError::api(format!("publishing the root CA in {namespace}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_certificate_is_published_and_repaired() {
        let active: Namespace = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let map = |text: &str| ConfigMap {
            data: Some(BTreeMap::from([(KEY.to_owned(), text.to_owned())])),
            ..Default::default()
        };
        assert_eq!(plan(Some(&active), None, "pem"), Some(Action::Create));
        assert_eq!(plan(Some(&active), Some(&map("pem")), "pem"), None);
        assert_eq!(plan(Some(&active), Some(&map("old")), "pem"), Some(Action::Repair));
        assert_eq!(plan(Some(&active), Some(&ConfigMap::default()), "pem"), Some(Action::Repair));
        assert_eq!(plan(None, None, "pem"), None);
    }
}
