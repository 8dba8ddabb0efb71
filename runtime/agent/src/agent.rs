//! The node's side put together: connection, mirror, the kubelet's client, the local API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::Api;
use sampan_client::ApiLink;
use sampan_transport::{Clock, Endpoint, Skew};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::error::AgentError;
use crate::link::{Link, LinkConfig, LinkState, Timing};
use crate::local_api::LocalApi;
use crate::mirror::{Mirror, MirrorConfig, file};
use crate::offline::NodeApi;
use crate::router::NodeRouter;

/// How an agent is set up.
pub struct AgentConfig {
    /// The node's name, as its certificate has it.
    pub node_name: String,
    /// Where the agent keeps what it keeps; made (0700) where it is missing.
    pub directory: PathBuf,
    /// What dials, with the node's identity.
    pub endpoint: Endpoint,
    /// Servers to begin with, `host:port`. May be empty where an earlier run learned of some.
    pub servers: Vec<String>,
    /// The loopback port of the read-only API for local clients (0: any); none without one.
    pub local_port: Option<u16>,
    /// So long a first connection is waited for before pods are started from the mirror.
    pub first_wait: Duration,
    /// About how large the mirror's file may become, in bytes.
    pub mirror_limit: usize,
    /// The times by which the connection is kept.
    pub timing: Timing,
}

impl AgentConfig {
    /// A configuration with defaults for all that may have one.
    pub fn new(
        node_name: impl Into<String>,
        directory: impl Into<PathBuf>,
        endpoint: Endpoint,
        servers: Vec<String>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            directory: directory.into(),
            endpoint,
            servers,
            local_port: Some(0),
            first_wait: Duration::from_secs(3),
            mirror_limit: 32 << 20,
            timing: Timing::default(),
        }
    }
}

/// A running agent. The kubelet is made by its owner: with [`Agent::client`], [`Agent::api_link`] and
/// [`Agent::clock_skew`]; its server is then handed to [`Agent::router`].
#[derive(Debug)]
pub struct Agent {
    link: Link,
    api: NodeApi,
    mirror: Arc<Mirror>,
    router: NodeRouter,
    local: Option<LocalApi>,
    clock: SkewOf,
    tasks: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
}

/// A clock that can be shown.
#[derive(Clone)]
struct SkewOf(Arc<dyn Clock>);

impl std::fmt::Debug for SkewOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.clock_skew())
    }
}

impl Agent {
    /// Reads the mirror, begins to connect, and serves local clients. Does not wait for a server.
    ///
    /// # Errors
    /// When the directory cannot be used, no server is known, or the local port is taken.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let directory = config.directory;
        file::directory(&directory).map_err(|source| AgentError::File { path: directory.clone(), source })?;
        let (shutdown, router) = (CancellationToken::new(), NodeRouter::new(&config.node_name));
        let mirror = Mirror::open(MirrorConfig {
            directory: directory.clone(),
            node: config.node_name,
            limit: config.mirror_limit,
        })?;
        let local = match config.local_port {
            Some(port) => {
                Some(LocalApi::start(&mirror, router.clone(), &directory, port, shutdown.clone()).await?)
            }
            None => None,
        };
        let clock = SkewOf(Arc::clone(config.endpoint.clock()));
        let link = LinkConfig {
            endpoint: config.endpoint,
            seeds: config.servers,
            directory,
            router: router.clone(),
            timing: config.timing,
        };
        let (link, keeper) = match Link::start(link, shutdown.clone()) {
            Ok(started) => started,
            Err(error) => {
                // Nothing of a failed start goes on.
                shutdown.cancel();
                return Err(error);
            }
        };
        let api = NodeApi::new(&link, Arc::clone(&mirror), config.first_wait);
        let companions = companions(api.client(), Arc::clone(&mirror), link.state());
        let tasks = vec![
            keeper,
            tokio::spawn(Arc::clone(&mirror).run(shutdown.clone())),
            tokio::spawn(drop_output(shutdown.clone().run_until_cancelled_owned(companions))),
        ];
        Ok(Self { link, api, mirror, router, local, clock, tasks, shutdown })
    }

    /// The API for the node's kubelet.
    pub fn client(&self) -> kube::Client {
        self.api.client()
    }

    /// How things stand between that client and the servers: for the kubelet's configuration.
    pub fn api_link(&self) -> watch::Receiver<ApiLink> {
        self.api.link()
    }

    /// How far this machine's clock is behind the servers': for the kubelet's configuration.
    pub fn clock_skew(&self) -> Arc<dyn Fn() -> SignedDuration + Send + Sync> {
        let SkewOf(clock) = self.clock.clone();
        Arc::new(move || skew(clock.clock_skew()))
    }

    /// Where the kubelet's own server is put in, once there is one.
    pub fn router(&self) -> &NodeRouter {
        &self.router
    }

    /// The connection.
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.link.state()
    }

    /// The node's copy of what it needs.
    pub fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    /// The read-only API for local clients, where it was asked for.
    pub fn local_api(&self) -> Option<(SocketAddr, &std::path::Path)> {
        self.local.as_ref().map(|local| (local.address, local.kubeconfig.as_path()))
    }

    /// Writes the mirror and closes the connection. The kubelet is to be stopped before.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            // A panic was reported where it happened.
            drop(task.await);
        }
        if let Some(local) = self.local {
            local.ended().await;
        }
    }
}

pub(crate) async fn drop_output(task: impl Future<Output = Option<()>>) {
    task.await;
}

fn skew(skew: Option<Skew>) -> SignedDuration {
    let signed = |by: Duration| SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    match skew {
        None => SignedDuration::ZERO,
        Some(Skew::Behind(by)) => signed(by),
        Some(Skew::Ahead(by)) => signed(by).checked_neg().unwrap_or(SignedDuration::MIN),
    }
}

/// Reads the namespaces and service accounts that new pods have, which the kubelet does not ask for:
/// the answers pass by the mirror.
pub(crate) async fn companions(
    client: kube::Client,
    mirror: Arc<Mirror>,
    mut link: watch::Receiver<LinkState>,
) {
    let mut pods = mirror.pods_changed();
    // Pods often come several at a time: there is a pause after success, too.
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        if link.wait_for(|state| state.connected.is_some()).await.is_err() {
            return;
        }
        pods.mark_unchanged();
        let mut failed = false;
        for (resource, namespace, name) in mirror.missing_companions() {
            let read = match resource.plural {
                "namespaces" => Api::<Namespace>::all(client.clone()).get_opt(&name).await.map(drop),
                _ => {
                    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &namespace);
                    accounts.get_opt(&name).await.map(drop)
                }
            };
            failed |= read.is_err();
        }
        if !failed {
            backoff.reset();
        }
        tokio::time::sleep(backoff.failed()).await;
        if !failed && pods.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_is_behind_by_less_than_nothing() {
        let second = Duration::from_secs(1);
        assert_eq!(skew(None), SignedDuration::ZERO);
        assert_eq!(skew(Some(Skew::Behind(second))), SignedDuration::from_secs(1));
        assert_eq!(skew(Some(Skew::Ahead(second))), SignedDuration::from_secs(-1));
    }
}
