//! Making and starting containers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use sampan_cri::{ContainerConfig, ContainerEvent, ContainerId, Mount, RuntimeError, SandboxId};

use super::{Inner, Known, not_found, random_id};
use crate::command;
use crate::container::{Container, Making};
use crate::exit::Ended;
use crate::fs::{Kind, Plan, plan};
use crate::handler::{Handler, listen};
use crate::host_ports;
use crate::launch::Launch;
use crate::logs::Log;
use crate::program::{Program, Run};
use crate::record::ContainerRecord;

/// Counts running commands; each takes memory maps, which the machine limits.
#[derive(Default)]
pub(super) struct Running(AtomicUsize);

impl Running {
    fn enter(self: &Arc<Self>, max: u64) -> Result<Place, RuntimeError> {
        let entered = self.0.fetch_update(Relaxed, Relaxed, |running| {
            (running as u64).checked_add(1).filter(|wanted| *wanted <= max).map(|_| running + 1)
        });
        entered.map(|_| Place(self.clone())).map_err(|running| RuntimeError::Exhausted {
            why: format!("{running} containers run, the most that this machine's memory maps allow"),
        })
    }
}

/// A running command's place.
struct Place(Arc<Running>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

impl Inner {
    pub(super) async fn create(
        self: &Arc<Self>,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let (sandbox, net) = {
            let tables = self.tables.lock();
            let found = tables.sandboxes.get(sandbox).ok_or_else(|| not_found("sandbox", &sandbox.0))?;
            if !found.ready {
                return Err(RuntimeError::Invalid { why: "the sandbox has been stopped".into() });
            }
            (found.record.clone(), found.net.clone())
        };
        host_ports::check(&config).map_err(|why| RuntimeError::Invalid { why })?;
        let program = self.program(&config).await?;
        let mounts = config.mounts.clone();
        let read_only_root = config.read_only_root;
        let planned = self
            .blocking("looking at a container's mounts", move || Ok(plan_mounts(&mounts, read_only_root)))
            .await?;
        let plan = planned.map_err(|why| RuntimeError::Invalid { why })?;

        let id = ContainerId(random_id()?);
        let record = ContainerRecord::new(&id, &sandbox, &config, SystemTime::now());
        let log = Log::new(record.log_path().to_owned(), self.config.rotation, self.threads.batch().clone());
        let (records, saved) = (self.records.clone(), record.clone());
        self.blocking("recording a container", move || records.save_container(&saved)).await?;
        let making = Making {
            record,
            net,
            log,
            program,
            plan,
            turns: self.turns.clone(),
            default_memory: self.default_memory,
        };
        let container = Arc::new(Container::new(config, making));
        self.tables.lock().containers.insert(id.clone(), Known::Here(container));
        Ok(id)
    }

    /// The container's image, loaded and linked.
    async fn program(&self, config: &ContainerConfig) -> Result<Arc<Program>, RuntimeError> {
        if let Some(program) = self.programs.linked(&config.image_id) {
            return Ok(program);
        }
        let artifact = self.artifacts.artifact(&config.image_id).await;
        let artifact = artifact.map_err(|why| RuntimeError::Invalid { why })?;
        let linked = self.programs.link(&config.image_id, &artifact);
        linked.map_err(|error| RuntimeError::Invalid { why: format!("image {}: {error:#}", config.image) })
    }

    pub(super) async fn start(self: &Arc<Self>, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let Some(program) = container.program() else {
            return Err(RuntimeError::Start { why: "the container has ended".into() });
        };
        match &program.run {
            Run::Command(_) => self.start_command(id, container, program).await,
            Run::Handler(_) => self.start_handler(id, container, program).await,
        }
    }

    async fn start_command(
        self: &Arc<Self>,
        id: &ContainerId,
        container: Arc<Container>,
        program: Arc<Program>,
    ) -> Result<(), RuntimeError> {
        let place = self.running.enter(self.facts.max_pods)?;
        let launch = match self.launch(&container, &program).await {
            Ok(launch) => launch,
            Err(why) => return self.cannot_run(id, &container, why).await,
        };
        let forwarded =
            host_ports::of_command(&container.config.ports, &container.net, &self.config.host_addresses);
        let forwarded = {
            let _entered = self.threads.http().enter();
            host_ports::forward(&forwarded)
        };
        let forwarded = match forwarded {
            Ok(forwarded) => forwarded,
            Err(error) => return self.cannot_run(id, &container, error.to_string()).await,
        };
        container.begin()?;
        self.tell(id, &container, Happened::Started);
        let (inner, id) = (self.clone(), id.clone());
        self.threads.batch().spawn(async move {
            // The log is there from the start, however silent the guest.
            let log = container.log.clone();
            let _ = tokio::task::spawn_blocking(move || log.touch()).await;
            let ended = match &program.run {
                Run::Command(pre) => command::run(&container, pre, program.hears_stop, launch).await,
                Run::Handler(_) => Ended::CannotRun("the image is no command".to_owned()),
            };
            drop(program);
            drop(place);
            forwarded.end().await;
            inner.ended(&id, &container, ended).await;
        });
        Ok(())
    }

    async fn launch(
        &self,
        container: &Arc<Container>,
        program: &Arc<Program>,
    ) -> Result<Arc<Launch>, String> {
        let (container, program, records) = (container.clone(), program.clone(), self.records.clone());
        let made = self.threads.batch().spawn(async move { container.launch(&records, &program).await });
        match made.await {
            Ok(Ok(launch)) => Ok(launch),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn start_handler(
        self: &Arc<Self>,
        id: &ContainerId,
        container: Arc<Container>,
        program: Arc<Program>,
    ) -> Result<(), RuntimeError> {
        let addresses =
            host_ports::of_handler(&container.config.ports, &container.net, &self.config.host_addresses);
        if addresses.is_empty() {
            return self.cannot_run(id, &container, "the pod has no address".to_owned()).await;
        }
        // Sockets belong to the runtime on which they are made.
        let listeners = {
            let _entered = self.threads.http().enter();
            listen(&addresses)
        };
        let listeners = match listeners {
            Ok(listeners) => listeners,
            Err(error) => return self.cannot_run(id, &container, error.to_string()).await,
        };
        let handler = Handler::new(
            container.clone(),
            program,
            self.records.clone(),
            self.handlers.clone(),
            self.slots.clone(),
        );
        let handler = match handler {
            Ok(handler) => Arc::new(handler),
            Err(why) => return self.cannot_run(id, &container, why).await,
        };
        container.begin()?;
        self.tell(id, &container, Happened::Started);
        let (inner, id) = (self.clone(), id.clone());
        self.threads.http().spawn(async move {
            let ended = handler.run(listeners).await;
            inner.ended(&id, &container, ended).await;
        });
        Ok(())
    }

    /// A container that cannot start has ended.
    async fn cannot_run(
        self: &Arc<Self>,
        id: &ContainerId,
        container: &Arc<Container>,
        why: String,
    ) -> Result<(), RuntimeError> {
        container.begin()?;
        let (inner, container, id, ended) =
            (self.clone(), container.clone(), id.clone(), Ended::CannotRun(why.clone()));
        let _ = self.threads.batch().spawn(async move { inner.ended(&id, &container, ended).await }).await;
        Err(RuntimeError::Start { why })
    }

    async fn ended(self: &Arc<Self>, id: &ContainerId, container: &Arc<Container>, ended: Ended) {
        container.finish(ended, &self.records).await;
        self.tell(id, container, Happened::Exited);
    }

    fn tell(&self, id: &ContainerId, container: &Container, happened: Happened) {
        let (pod, container) = (container.record().pod().clone(), id.clone());
        // Nobody may be listening.
        let _ = self.events.send(match happened {
            Happened::Started => ContainerEvent::Started { pod, container },
            Happened::Exited => ContainerEvent::Exited { pod, container },
        });
    }
}

enum Happened {
    Started,
    Exited,
}

/// Looks at what the mounts are, then plans. Blocking.
fn plan_mounts(mounts: &[Mount], read_only_root: bool) -> Result<Plan, String> {
    let mut kinds = Vec::with_capacity(mounts.len());
    for mount in mounts {
        kinds.push((mount.clone(), kind(&mount.host_path)?));
    }
    plan(&kinds, read_only_root).map_err(|error| error.to_string())
}

fn kind(path: &Path) -> Result<Kind, String> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(Kind::Directory),
        Ok(found) if found.is_file() => Ok(Kind::File),
        Ok(_) => Err(format!("mount source {} is neither a directory nor a regular file", path.display())),
        Err(error) => Err(format!("mount source {}: {error}", path.display())),
    }
}
