//! Kubernetes' controllers, a file each: a pure plan of what to do about what is observed, and
//! a thin shell that does it. Clients of the API like any other.

pub mod namespace;
pub mod pod_gc;
pub mod root_ca;
pub mod service_account;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, ServiceAccount};
use kube::Api;
use kube::runtime::watcher;
use sampan_client::Informer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the controllers are told at start.
#[derive(Clone, Debug)]
pub struct ControllersConfig {
    /// The authorities that sign the API's certificates, in PEM: published to every namespace, and
    /// again when they change.
    pub root_ca: tokio::sync::watch::Receiver<String>,
}

/// Why a controller could not do what it planned; it tries again.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A call to the API failed.
    #[error("{doing}")]
    Api {
        /// What was being done.
        doing: String,
        /// What the API said.
        #[source]
        source: kube::Error,
    },
}

impl ControllerError {
    fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source }
    }
}

/// Runs all controllers until `shutdown`.
pub async fn run(client: kube::Client, config: ControllersConfig, shutdown: CancellationToken) {
    let all = watcher::Config::default;
    let mut namespaces = Informer::<Namespace>::new(Api::all(client.clone()), all());
    let mut accounts =
        Informer::<ServiceAccount>::new(Api::all(client.clone()), all().fields("metadata.name=default"));
    let name = format!("metadata.name={}", root_ca::NAME);
    let mut certificates = Informer::<ConfigMap>::new(Api::all(client.clone()), all().fields(&name));
    let mut nodes = Informer::<Node>::new(Api::all(client.clone()), all());

    let mut tasks = JoinSet::new();
    tasks.spawn(namespace::run(client.clone(), &mut namespaces, shutdown.clone()));
    tasks.spawn(service_account::run(client.clone(), &mut namespaces, &mut accounts, shutdown.clone()));
    tasks.spawn(root_ca::run(
        client.clone(),
        config.root_ca,
        &mut namespaces,
        &mut certificates,
        shutdown.clone(),
    ));
    tasks.spawn(pod_gc::run(client, &mut nodes, shutdown.clone()));
    tasks.spawn(namespaces.run(shutdown.clone()));
    tasks.spawn(accounts.run(shutdown.clone()));
    tasks.spawn(certificates.run(shutdown.clone()));
    tasks.spawn(nodes.run(shutdown));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller failed");
        }
    }
}

/// Whether a namespace takes new objects.
fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// A create that found the object there already is done; so is one that found the namespace ending or gone.
fn settled<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" || status.code == 404 => Ok(()),
        Err(kube::Error::Api(status))
            if status.code == 403 && status.message.contains("being terminated") =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
