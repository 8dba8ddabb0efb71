//! [`WasmRuntime`]: the container runtime of WebAssembly, in process.

mod start;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use sampan_cri::{
    ContainerConfig, ContainerEvent, ContainerId, ContainerResources, ContainerRuntime, ContainerState,
    ContainerStats, ContainerStatus, EventStream, RuntimeError, SandboxConfig, SandboxId, SandboxStatus,
};
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use crate::artifact::Artifact;
use crate::container::Container;
use crate::cpu::Turns;
use crate::engine::{Engines, HANDLER_INSTANCES};
use crate::exit::Ended;
use crate::handler::HandlerSettings;
use crate::logs::Rotation;
use crate::net::{HostNetwork, PodNet, PodNetwork};
use crate::node::{self, NodeFacts};
use crate::program::Programs;
use crate::record::{ContainerRecord, Records, SandboxRecord};
use crate::threads::GuestThreads;

/// The version of wasmtime that is linked in; a test holds it against the lock file.
const WASMTIME: &str = "48.0.8";

/// Where the runtime gets compiled images.
#[async_trait]
pub trait ArtifactSource: Send + Sync + 'static {
    /// The compiled image of an identity (as `ImageInfo::id` gives it).
    ///
    /// # Errors
    /// A text for the user: not on the node, or not to be compiled.
    async fn artifact(&self, image_id: &str) -> Result<Arc<Artifact>, String>;
}

/// How a runtime is set up.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// Where records and containers' private files are kept.
    pub directory: PathBuf,
    /// When logs are rotated.
    pub rotation: Rotation,
    /// How handlers are run.
    pub handlers: HandlerSettings,
    /// Names and reach of pods.
    pub network: Arc<dyn PodNetwork>,
    /// The node's own addresses, on which host ports are served.
    pub host_addresses: Vec<IpAddr>,
    /// Threads of each guest runtime.
    pub threads: usize,
    /// Whether limits of the machine (`vm.max_map_count`) may be raised.
    pub tune_host: bool,
}

impl RuntimeConfig {
    /// The defaults, for records under `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            rotation: Rotation::default(),
            handlers: HandlerSettings::default(),
            network: Arc::new(HostNetwork::default()),
            host_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            tune_host: true,
        }
    }
}

/// A sandbox of this run of the node.
struct Sandbox {
    record: SandboxRecord,
    net: Arc<PodNet>,
    ready: bool,
}

/// What the runtime knows of a container.
enum Known {
    /// It belongs to this run of the node.
    Here(Arc<Container>),
    /// It was left by an earlier one.
    Past(Box<ContainerRecord>),
}

#[derive(Default)]
struct Tables {
    sandboxes: HashMap<SandboxId, Sandbox>,
    containers: HashMap<ContainerId, Known>,
}

struct Inner {
    config: RuntimeConfig,
    handlers: Arc<HandlerSettings>,
    engines: Engines,
    programs: Programs,
    artifacts: Arc<dyn ArtifactSource>,
    records: Records,
    threads: GuestThreads,
    turns: Arc<Turns>,
    slots: Arc<Semaphore>,
    running: Arc<start::Running>,
    tables: Mutex<Tables>,
    events: broadcast::Sender<ContainerEvent>,
    facts: NodeFacts,
    default_memory: u64,
    started_at: SystemTime,
}

/// The runtime. Clones share it; dropping the last one ends what runs.
#[derive(Clone)]
pub struct WasmRuntime {
    inner: Arc<Inner>,
    _end: Arc<EndOnDrop>,
}

/// Ends what runs when the last handle goes. The running containers themselves keep the rest
/// of the runtime until they have ended.
struct EndOnDrop(Arc<Inner>);

impl WasmRuntime {
    /// Sets the runtime up and reads what an earlier run of the node left.
    ///
    /// # Errors
    /// When the directory cannot be used or threads cannot be made.
    pub fn new(
        config: RuntimeConfig,
        engines: Engines,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Self, RuntimeError> {
        let records =
            Records::open(config.directory.clone()).map_err(io_error("opening the runtime's directory"))?;
        let (sandboxes, containers) = records.load().map_err(io_error("reading the runtime's records"))?;
        let network = config.network.clone();
        let earlier = sandboxes.into_iter().map(|record| {
            let net = Arc::new(PodNet::new(&record.config, network.clone()));
            (record.id.clone(), Sandbox { record, net, ready: false })
        });
        let past = containers.into_iter().map(|record| (record.id.clone(), Known::Past(Box::new(record))));
        let tables = Tables { sandboxes: earlier.collect(), containers: past.collect() };
        let programs = Programs::new(&engines)
            .map_err(|error| RuntimeError::Start { why: format!("wasmtime: {error:#}") })?;
        let threads =
            GuestThreads::start(config.threads).map_err(io_error("starting the guests' threads"))?;
        let facts = node::prepare(config.tune_host);
        let inner = Inner {
            handlers: Arc::new(config.handlers.clone()),
            engines,
            programs,
            artifacts,
            records,
            threads,
            turns: Arc::default(),
            slots: Arc::new(Semaphore::new(HANDLER_INSTANCES as usize)),
            running: Arc::default(),
            tables: Mutex::new(tables),
            events: broadcast::channel(1024).0,
            facts,
            default_memory: total_memory(),
            started_at: SystemTime::now(),
            config,
        };
        let inner = Arc::new(inner);
        Ok(Self { _end: Arc::new(EndOnDrop(inner.clone())), inner })
    }

    /// What this machine allows.
    #[must_use]
    pub fn facts(&self) -> &NodeFacts {
        &self.inner.facts
    }

    /// The engines, for whoever loads artifacts.
    #[must_use]
    pub fn engines(&self) -> &Engines {
        &self.inner.engines
    }
}

impl Inner {
    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, RuntimeError> {
        match self.tables.lock().containers.get(id) {
            Some(Known::Here(container)) => Ok(container.clone()),
            Some(Known::Past(_)) => Err(RuntimeError::Start { why: "the container has ended".into() }),
            None => Err(not_found("container", &id.0)),
        }
    }

    fn containers_of(&self, sandbox: &SandboxId) -> Vec<(ContainerId, Option<Arc<Container>>)> {
        let tables = self.tables.lock();
        let of = |known: &Known| match known {
            Known::Here(container) => container.record().sandbox == *sandbox,
            Known::Past(record) => record.sandbox == *sandbox,
        };
        let found = tables.containers.iter().filter(|(_, known)| of(known));
        found
            .map(|(id, known)| match known {
                Known::Here(container) => (id.clone(), Some(container.clone())),
                Known::Past(_) => (id.clone(), None),
            })
            .collect()
    }

    fn status(&self, known: &Known) -> ContainerStatus {
        match known {
            Known::Here(container) => container.status(),
            Known::Past(record) => record.status(ContainerState::Exited(record.past_exit(self.started_at))),
        }
    }

    /// Ends a container: by force after `grace`.
    async fn end(self: &Arc<Self>, container: &Arc<Container>, grace: Duration) {
        match container.state() {
            ContainerState::Exited(_) => return,
            ContainerState::Created => {
                // It never ran: nothing to ask.
                container.finish(Ended::Stopped, &self.records).await;
                return;
            }
            ContainerState::Running { .. } => {}
        }
        if !grace.is_zero() {
            container.stop.cancel();
            if tokio::time::timeout(grace, container.ended.cancelled()).await.is_ok() {
                return;
            }
        }
        container.kill.cancel();
        container.ended.cancelled().await;
    }

    /// Runs something that blocks, away from the caller's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let done = self.threads.batch().spawn_blocking(work).await;
        done.map_err(std::io::Error::other).flatten().map_err(io_error(doing))
    }
}

#[async_trait]
impl ContainerRuntime for WasmRuntime {
    fn version(&self) -> String {
        format!("wasmtime://{}", WASMTIME)
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId(random_id()?);
        let record = SandboxRecord { id: id.clone(), config, created_at: SystemTime::now().into() };
        let net = Arc::new(PodNet::new(&record.config, self.inner.config.network.clone()));
        let (records, saved) = (self.inner.records.clone(), record.clone());
        self.inner.blocking("recording a sandbox", move || records.save_sandbox(&saved)).await?;
        self.inner.tables.lock().sandboxes.insert(id.clone(), Sandbox { record, net, ready: true });
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        {
            let mut tables = self.inner.tables.lock();
            let Some(sandbox) = tables.sandboxes.get_mut(id) else { return Ok(()) };
            sandbox.ready = false;
        }
        let here = self.inner.containers_of(id).into_iter().filter_map(|(_, container)| container);
        let ends = here.map(|container| {
            let inner = self.inner.clone();
            async move { inner.end(&container, Duration::ZERO).await }
        });
        futures::future::join_all(ends).await;
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_sandbox(id).await?;
        let gone: Vec<_> = self.inner.containers_of(id).into_iter().map(|(id, _)| id).collect();
        {
            let mut tables = self.inner.tables.lock();
            gone.iter().for_each(|id| drop(tables.containers.remove(id)));
            if tables.sandboxes.remove(id).is_none() {
                return Ok(());
            }
        }
        let (records, id) = (self.inner.records.clone(), id.clone());
        self.inner
            .blocking("removing a sandbox", move || {
                gone.iter().for_each(|id| records.remove_container(id));
                records.remove_sandbox(&id);
                Ok(())
            })
            .await
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let tables = self.inner.tables.lock();
        Ok(tables.sandboxes.values().map(|sandbox| sandbox.record.status(sandbox.ready)).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.inner.create(sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.start(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        if let Some(Known::Past(_)) | None = self.inner.tables.lock().containers.get(id) {
            return Ok(());
        }
        let container = self.inner.container(id)?;
        self.inner.end(&container, grace).await;
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let known = match self.inner.tables.lock().containers.get(id) {
            None => return Ok(()),
            Some(Known::Here(container)) => Some(container.clone()),
            Some(Known::Past(_)) => None,
        };
        if let Some(container) = known {
            self.inner.end(&container, Duration::ZERO).await;
        }
        self.inner.tables.lock().containers.remove(id);
        let (records, id) = (self.inner.records.clone(), id.clone());
        self.inner
            .blocking("removing a container", move || {
                records.remove_container(&id);
                Ok(())
            })
            .await
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let tables = self.inner.tables.lock();
        let known = tables.containers.get(id).ok_or_else(|| not_found("container", &id.0))?;
        Ok(self.inner.status(known))
    }

    async fn list_containers(
        &self,
        sandbox: Option<&SandboxId>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let tables = self.inner.tables.lock();
        let all = tables.containers.values().map(|known| self.inner.status(known));
        Ok(all.filter(|status| sandbox.is_none_or(|sandbox| status.sandbox == *sandbox)).collect())
    }

    async fn update_resources(
        &self,
        id: &ContainerId,
        resources: ContainerResources,
    ) -> Result<(), RuntimeError> {
        self.inner.container(id)?.limit(&resources);
        Ok(())
    }

    async fn container_stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError> {
        match self.inner.tables.lock().containers.get(id) {
            Some(Known::Here(container)) => Ok(container.stats()),
            Some(Known::Past(_)) => Ok(ContainerStats::default()),
            None => Err(not_found("container", &id.0)),
        }
    }

    fn events(&self) -> EventStream {
        let events = BroadcastStream::new(self.inner.events.subscribe());
        let events = events.map(|event| event.unwrap_or(ContainerEvent::Lagged));
        Box::pin(events) as Pin<Box<dyn futures::Stream<Item = ContainerEvent> + Send>>
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        for known in self.0.tables.lock().containers.values() {
            if let Known::Here(container) = known {
                container.kill.cancel();
            }
        }
    }
}

fn io_error(doing: &str) -> impl FnOnce(std::io::Error) -> RuntimeError + use<> {
    let doing = doing.to_owned();
    move |source| RuntimeError::Io { doing, source }
}

fn not_found(kind: &str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { what: format!("{kind} {id:?}") }
}

/// 32 bytes of chance, as hexadecimal digits.
fn random_id() -> Result<String, RuntimeError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| RuntimeError::Exhausted { why: error.to_string() })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The machine's memory: the limit of containers that have none.
fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_reported_is_the_one_linked_in() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"")));
    }
}
