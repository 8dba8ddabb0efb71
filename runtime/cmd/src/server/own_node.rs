//! The node of a server's own machine. It starts when the control plane is there; where that takes
//! long because the servers have no quorum, from its sealed copy, at the place that it had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_agent::NodeRouter;
use sampan_apiserver::LocalService;
use sampan_join::NODE_INDEX;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cluster_facts::ClusterFacts;
use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::kubeconfig_file::replace;
use crate::node::{self, Place};
use crate::settings::{Mode, NodeSettings, Settings};

/// So long the control plane is waited for before pods start from the copy.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// About how large the copy's file may become, in bytes.
const COPY_LIMIT: usize = 32 << 20;
/// All pods get their grace period when the node stops; see [`node`].
const PATIENCE: Duration = Duration::from_secs(80);

/// See the module's description.
pub(super) struct OwnNode {
    pub(super) router: NodeRouter,
    /// `None` with `--disable-agent`.
    running: Option<Running>,
}

struct Running {
    components: Components,
    plane: Option<oneshot::Sender<(Place, LocalService)>>,
    started: Option<oneshot::Receiver<Result<(), CommandError>>>,
}

impl OwnNode {
    /// Begins to wait for the control plane.
    pub(super) fn start(settings: &Settings, port: u16) -> Result<Self, CommandError> {
        let router = NodeRouter::new(&settings.node.name);
        if !settings.agent {
            return Ok(Self { router, running: None });
        }
        let directory = settings.node.data_dir.join("agent");
        // A cluster that is alone for good always has its quorum.
        let copy = match settings.mode {
            Mode::Dev => None,
            Mode::Server | Mode::Agent => {
                let copy = sampan_agent::OwnNode::start(
                    &settings.node.name,
                    directory.clone(),
                    FIRST_WAIT,
                    COPY_LIMIT,
                );
                Some(copy.doing(|| "this node's copy of its pods cannot be kept".to_owned())?)
            }
        };
        let (plane, told) = oneshot::channel();
        let (tell, started) = oneshot::channel();
        let task = Task {
            settings: settings.node.clone(),
            port,
            router: router.clone(),
            place: directory.join("place.json"),
            told,
        };
        let mut components = Components::default();
        components.start("node", PATIENCE, |shutdown| task.run(copy, tell, shutdown));
        Ok(Self { router, running: Some(Running { components, plane: Some(plane), started: Some(started) }) })
    }

    /// The control plane is there: where the node is, and how it reaches it. Returns when the node
    /// has started.
    pub(super) async fn attach(&mut self, place: Place, service: LocalService) -> Result<(), CommandError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some(plane) = running.plane.take() {
            // One that has ended says so below.
            drop(plane.send((place, service)));
        }
        match &mut running.started {
            Some(started) => match started.await {
                Ok(outcome) => {
                    running.started = None;
                    outcome
                }
                Err(_) => Err(ended()),
            },
            None => Ok(()),
        }
    }

    /// Waits until the node fails; what there is to say.
    pub(super) async fn failed(&mut self) -> CommandError {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        running.components.failed().await;
        let outcome = running.started.take().and_then(|mut started| started.try_recv().ok());
        match outcome {
            Some(Err(error)) => error,
            _ => ended(),
        }
    }

    /// Ends the pods and writes the copy.
    pub(super) async fn stop(self) {
        if let Some(running) = self.running {
            running.components.stop().await;
        }
    }
}

fn ended() -> CommandError {
    CommandError::new("the node ended by itself; stopping")
}

/// What runs the node.
struct Task {
    settings: NodeSettings,
    port: u16,
    router: NodeRouter,
    /// The file with the place that the node had last.
    place: PathBuf,
    told: oneshot::Receiver<(Place, LocalService)>,
}

impl Task {
    async fn run(
        mut self,
        copy: Option<sampan_agent::OwnNode>,
        started: oneshot::Sender<Result<(), CommandError>>,
        shutdown: CancellationToken,
    ) {
        let mut parts = Components::default();
        let work = self.serve(copy.as_ref(), &mut parts, started);
        shutdown.run_until_cancelled(work).await;
        parts.stop().await;
        if let Some(copy) = copy {
            copy.stop().await;
        }
    }

    /// Runs the node until it fails.
    async fn serve(
        &mut self,
        copy: Option<&sampan_agent::OwnNode>,
        parts: &mut Components,
        started: oneshot::Sender<Result<(), CommandError>>,
    ) {
        let alone = tokio::select! {
            biased;
            told = &mut self.told => match told {
                Ok((place, service)) => Err((place, service)),
                // The server stops.
                Err(_) => return std::future::pending().await,
            },
            place = alone(copy, &self.place, self.port) => Ok(place),
        };
        let is_alone = alone.is_ok();
        let (place, api) = match (alone, copy) {
            (Ok(place), Some(copy)) => (place, node::Api::own(copy)),
            (Err((place, service)), Some(copy)) => {
                self.is_there(copy, &place, service);
                (place, node::Api::own(copy))
            }
            (Err((place, service)), None) => (place, node::Api::local(kube::Client::new(service, "default"))),
            // Nobody starts alone without a copy.
            (Ok(_), None) => return,
        };
        let router = self.router.clone();
        let outcome =
            node::start(parts, &self.settings, &place, api, |kubelet| router.connect(kubelet)).await;
        let failed = outcome.is_err();
        // Whoever would hear it may be stopping.
        drop(started.send(outcome));
        if failed {
            return;
        }
        let late = async {
            if is_alone && let (Ok((place, service)), Some(copy)) = ((&mut self.told).await, copy) {
                self.is_there(copy, &place, service);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = late => {}
            name = parts.failed() => tracing::error!(component = name, "ended by itself"),
        }
    }

    /// The control plane is there.
    fn is_there(&self, copy: &sampan_agent::OwnNode, place: &Place, service: LocalService) {
        if let Err(error) = remember(&self.place, place) {
            tracing::warn!(%error, path = %self.place.display(), "this node cannot start without a quorum");
        }
        copy.attach(service);
    }
}

/// Waits for the control plane; where it does not come and the node can do without, its place.
async fn alone(copy: Option<&sampan_agent::OwnNode>, file: &Path, port: u16) -> Place {
    tokio::time::sleep(FIRST_WAIT).await;
    match copy.filter(|copy| copy.can_start_alone()).and_then(|_| remembered(file, port)) {
        Some(place) => place,
        None => std::future::pending().await,
    }
}

fn remember(file: &Path, place: &Place) -> std::io::Result<()> {
    let facts = ClusterFacts {
        cluster_cidr: place.cluster_cidr,
        service_cidr: place.service_cidr,
        node_prefix: place.prefix,
    };
    let mut map = facts.to_map();
    map.insert(NODE_INDEX.to_owned(), place.index.to_string());
    replace(file, &serde_json::to_string(&map)?, 0o600)
}

fn remembered(file: &Path, port: u16) -> Option<Place> {
    let text = std::fs::read(file).ok()?;
    let map: BTreeMap<String, String> = serde_json::from_slice(&text).ok()?;
    let facts = ClusterFacts::from_map(&map)?;
    Some(Place {
        cluster_cidr: facts.cluster_cidr,
        service_cidr: facts.service_cidr,
        prefix: facts.node_prefix,
        index: map.get(NODE_INDEX)?.parse().ok()?,
        api_port: port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_and_a_damaged_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("place.json");
        assert!(remembered(&file, 1).is_none());
        for prefix in [Some(22), None] {
            let place = Place {
                cluster_cidr: "10.42.0.0/16".parse().unwrap(),
                service_cidr: "10.43.0.0/16".parse().unwrap(),
                prefix,
                index: 7,
                api_port: 6443,
            };
            remember(&file, &place).unwrap();
            assert_eq!(remembered(&file, 6443), Some(place));
        }
        std::fs::write(&file, "{}").unwrap();
        assert!(remembered(&file, 1).is_none());
    }
}
