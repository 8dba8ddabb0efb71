//! The node agent as a whole: made, run until it is told to stop, stopped in order.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::runtime::watcher;
use parking_lot::{Mutex, RwLock};
use sampan_client::{ApiLink, Change, Informer, Recorder};
use sampan_cri::{ContainerEvent, ContainerId, SandboxStatus};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::Context;
use crate::manager::{Found, Manager};
use crate::node::{NodeController, describe, lease};
use crate::objects::Objects;
use crate::orphans::Leftovers;
use crate::paths::Paths;
use crate::pod::admission::NodeView;
use crate::pod::resources;
use crate::status::StatusManager;
use crate::volumes::Volumes;
use crate::volumes::tokens::Tokens;
use crate::{server, size_limits};

/// What pods' ends may take beyond their grace: what is killed must still be noted.
const SLACK: Duration = Duration::from_secs(5);

/// Why the agent could not start or run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// The runtime does not say what it holds.
    #[error("the container runtime cannot be listed")]
    Runtime(#[from] sampan_cri::RuntimeError),
    /// A directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The node agent.
#[derive(Debug)]
pub struct Kubelet {
    manager: Arc<Manager>,
    ready: watch::Sender<bool>,
}

impl Kubelet {
    /// Makes the agent: looks at what the runtime holds from an earlier run, touches nothing yet.
    /// Must be called inside a tokio runtime.
    pub async fn new(config: Config) -> Result<Self, KubeletError> {
        let paths = Paths::new(&config.data_dir);
        for path in [paths.pods(), paths.logs()] {
            std::fs::create_dir_all(&path).map_err(|source| KubeletError::Directory { path, source })?;
        }
        let sandboxes = config.runtime.list_sandboxes().await?;
        let containers = config.runtime.list_containers(None).await?;
        let interrupted = read_interrupted(&paths);
        let former = claim_addresses(&config, &sandboxes);
        // Objects are told of by the manager that is made from them: the loop is closed last.
        let closed: Arc<OnceLock<std::sync::Weak<Manager>>> = Arc::default();
        let later = closed.clone();
        let objects = Arc::new(Objects::new(
            &config.client,
            Arc::new(move |uids: &HashSet<String>| {
                if let Some(manager) = later.get().and_then(std::sync::Weak::upgrade) {
                    manager.references_changed(uids);
                }
            }),
        ));
        let allocatable =
            resources::amounts(Some(&describe::allocatable(&config, &describe::capacity(&config))));
        let tokens = Tokens::new(config.client.clone());
        let context = Context {
            recorder: Recorder::new(config.client.clone(), "kubelet", &config.node_name),
            statuses: StatusManager::new(config.client.clone()),
            volumes: Volumes::new(paths.clone(), objects.clone(), tokens, allocatable.clone()),
            objects,
            node: RwLock::new(NodeView {
                name: config.node_name.clone(),
                labels: describe::labels(&config),
                taints: config.node_taints.clone(),
                allocatable: allocatable.clone(),
            }),
            allocatable,
            ledger: Mutex::default(),
            interrupted,
            former_addresses: Mutex::new(former),
            paths,
            config,
        };
        let manager = Manager::new(Arc::new(context), Found::new(sandboxes, containers));
        closed.set(Arc::downgrade(&manager)).ok();
        Ok(Self { manager, ready: watch::Sender::new(false) })
    }

    /// The agent's server, to be served in process or over the network.
    pub fn server(&self) -> axum::Router {
        server::router(self.manager.clone())
    }

    /// Becomes true when the node is registered and has reported itself ready.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Runs until `shutdown`; then asks all pods to end, waits for them within the configured
    /// time, and returns. The pods' objects stay: the next run takes them up again.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), KubeletError> {
        let context = self.manager.context().clone();
        let (config, background) = (&context.config, CancellationToken::new());
        let _stop_background = background.clone().drop_guard();
        let nodes = NodeController::new(context.clone());
        let Some(node) = nodes.register(&shutdown).await else { return Ok(()) };
        note_node(&context, &node);
        tokio::spawn(lease::run(
            config.client.clone(),
            node.clone(),
            config.periods.lease,
            background.clone(),
        ));
        tokio::spawn(self.node_informer().run(background.clone()));
        tokio::spawn(follow_runtime(self.manager.clone(), background.clone()));
        if let Some(link) = config.link.clone() {
            tokio::spawn(background.clone().run_until_cancelled_owned(follow_link(context.clone(), link)));
        }
        tokio::spawn(background.clone().run_until_cancelled_owned(self.manager.clone().run_timers()));
        tokio::spawn(size_limits::run(self.manager.clone(), config.periods.volume_usage, background.clone()));
        let objects = context.objects.clone();
        let (period, token) = (config.periods.objects, background.clone());
        tokio::spawn(async move { objects.run(period, token).await });
        let leftovers = Leftovers::find(&context.paths);
        let pods = self.pod_informer();
        let reader = pods.reader();
        tokio::spawn(pods.run(background.clone()));
        let manager = self.manager.clone();
        tokio::spawn(background.clone().run_until_cancelled_owned(async move {
            if reader.synced().await {
                manager.remove_orphans(leftovers);
            }
        }));
        let ready = self.ready.clone();
        nodes
            .run(
                &node,
                move || {
                    ready.send_replace(true);
                },
                shutdown,
            )
            .await;
        self.stop(&nodes).await;
        Ok(())
    }

    fn node_informer(&self) -> Informer<Node> {
        let context = self.manager.context().clone();
        let only = watcher::Config::default().fields(&format!("metadata.name={}", context.config.node_name));
        let mut informer = Informer::new(Api::all(context.config.client.clone()), only);
        informer.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                note_node(&context, change.object());
            }
        });
        informer
    }

    fn pod_informer(&self) -> Informer<Pod> {
        let config = &self.manager.context().config;
        let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", config.node_name));
        let manager = self.manager.clone();
        let mut informer = Informer::new(Api::<Pod>::all(config.client.clone()), ours).trim(|pod| {
            // Kept once for each pod, read by nobody here.
            pod.metadata.managed_fields = None;
        });
        informer.on_change(move |change| match change {
            Change::Added(pod) | Change::Updated { new: pod, .. } => manager.upsert(pod.clone()),
            Change::Deleted(pod) => manager.gone(pod),
        });
        informer
    }

    /// Ends all pods, within the configured time.
    async fn stop(&self, nodes: &NodeController) {
        let context = self.manager.context();
        let grace = context.config.shutdown_grace;
        let deadline = Timestamp::now().checked_add(grace).unwrap_or(Timestamp::MAX);
        let halt = async {
            self.manager.halt(deadline).await;
        };
        let report = nodes.report_stop();
        let both = async { tokio::join!(halt, report) };
        if tokio::time::timeout(grace + SLACK, both).await.is_err() {
            tracing::warn!("some pods did not end in time");
        }
        let interrupted: Vec<ContainerId> =
            self.manager.all().iter().flat_map(|slot| slot.interrupted()).collect();
        write_interrupted(&context.paths, &interrupted);
    }
}

/// Notes what admission needs of the node's object.
fn note_node(context: &Context, node: &Node) {
    let mut view = context.node.write();
    view.labels = node.metadata.labels.clone().unwrap_or_default();
    view.taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
}

/// Keeps the addresses of former sandboxes for their pods.
fn claim_addresses(config: &Config, sandboxes: &[SandboxStatus]) -> HashMap<String, IpAddr> {
    let mut kept = HashMap::new();
    for sandbox in sandboxes {
        for address in &sandbox.addresses {
            let IpAddr::V4(v4) = address else { continue };
            if config.network.claim(*v4) && !sandbox.ready {
                kept.insert(sandbox.pod.uid.clone(), *address);
            }
        }
    }
    kept
}

/// Hands the runtime's news to the pods.
async fn follow_runtime(manager: Arc<Manager>, shutdown: CancellationToken) {
    let runtime = manager.context().config.runtime.clone();
    let mut events = runtime.events();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            // A start is reported by whoever started.
            Some(ContainerEvent::Started { .. }) => {}
            Some(ContainerEvent::Exited { container, .. }) => {
                let manager = manager.clone();
                tokio::spawn(async move {
                    let runtime = &manager.context().config.runtime;
                    if let Ok(status) = runtime.container_status(&container).await {
                        manager.container_changed(status).await;
                    }
                });
            }
            Some(ContainerEvent::Lagged) => match runtime.list_containers(None).await {
                Ok(all) => {
                    for status in all {
                        manager.container_changed(status).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "containers cannot be listed"),
            },
        }
    }
}

/// Writes what could not be written whenever the API can be reached anew.
async fn follow_link(context: Arc<Context>, mut link: watch::Receiver<ApiLink>) {
    let mut seen = *link.borrow_and_update();
    while link.changed().await.is_ok() {
        let now = *link.borrow_and_update();
        if now.generation > seen.generation {
            if now.cached_before > seen.generation {
                context.statuses.resend();
            } else {
                context.statuses.retry();
            }
        }
        seen = now;
    }
}

/// The containers that ended only because the node was stopped the last time.
fn read_interrupted(paths: &Paths) -> HashSet<ContainerId> {
    let text = std::fs::read(paths.interrupted()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write_interrupted(paths: &Paths, ids: &[ContainerId]) {
    let path = paths.interrupted();
    let written = if ids.is_empty() {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    } else {
        serde_json::to_vec(ids).map_err(std::io::Error::other).and_then(|text| std::fs::write(&path, text))
    };
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "interrupted containers were not noted");
    }
}
