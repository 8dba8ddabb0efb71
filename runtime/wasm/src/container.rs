//! One container: its configuration, accounts, log and state.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use sampan_cri::{
    ContainerConfig, ContainerResources, ContainerState, ContainerStats, ContainerStatus, RuntimeError,
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::cpu::{CpuAccount, Turns};
use crate::exit::Ended;
use crate::fs::{self, Plan};
use crate::launch::{Launch, defaults};
use crate::logs::Log;
use crate::memory::MemoryAccount;
use crate::net::PodNet;
use crate::program::Program;
use crate::record::{ContainerRecord, Records};

/// A container of this run of the node.
pub(crate) struct Container {
    /// What is kept of it on disk.
    record: Mutex<ContainerRecord>,
    /// What it was made from.
    pub config: ContainerConfig,
    /// Its pod's network.
    pub net: Arc<PodNet>,
    /// Its log.
    pub log: Log,
    /// Its memory.
    pub memory: Arc<MemoryAccount>,
    /// Its CPU time.
    pub cpu: Arc<CpuAccount>,
    /// Fires when it is asked to end.
    pub stop: CancellationToken,
    /// Fires when it is ended by force.
    pub kill: CancellationToken,
    /// Fires when it has ended.
    pub ended: CancellationToken,
    state: Mutex<ContainerState>,
    plan: Plan,
    program: Mutex<Option<Arc<Program>>>,
    launch: OnceCell<Arc<Launch>>,
    default_memory: u64,
}

/// What a container is made with beside its configuration.
pub(crate) struct Making {
    /// Its record.
    pub record: ContainerRecord,
    /// Its pod's network.
    pub net: Arc<PodNet>,
    /// Its log.
    pub log: Log,
    /// Its linked image.
    pub program: Arc<Program>,
    /// Its view of the node's files.
    pub plan: Plan,
    /// The node's dealer of turns.
    pub turns: Arc<Turns>,
    /// The memory limit where it has none of its own.
    pub default_memory: u64,
}

impl Container {
    /// A container, not started.
    #[must_use]
    pub(crate) fn new(config: ContainerConfig, making: Making) -> Self {
        let limit = config.resources.memory_limit_bytes.unwrap_or(making.default_memory);
        Self {
            memory: Arc::new(MemoryAccount::new(limit)),
            cpu: Arc::new(CpuAccount::new(&config.resources, making.turns)),
            record: Mutex::new(making.record),
            config,
            net: making.net,
            log: making.log,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            ended: CancellationToken::new(),
            state: Mutex::new(ContainerState::Created),
            plan: making.plan,
            program: Mutex::new(Some(making.program)),
            launch: OnceCell::new(),
            default_memory: making.default_memory,
        }
    }

    /// Its state.
    #[must_use]
    pub(crate) fn state(&self) -> ContainerState {
        self.state.lock().clone()
    }

    /// Its state, with its names.
    #[must_use]
    pub(crate) fn status(&self) -> ContainerStatus {
        self.record.lock().status(self.state())
    }

    /// What is kept of it.
    #[must_use]
    pub(crate) fn record(&self) -> ContainerRecord {
        self.record.lock().clone()
    }

    /// What it used.
    #[must_use]
    pub(crate) fn stats(&self) -> ContainerStats {
        ContainerStats {
            cpu_nanos: self.cpu.used(),
            memory_bytes: self.memory.used(),
            memory_peak_bytes: self.memory.peak(),
            log_bytes: self.log.bytes_on_disk(),
        }
    }

    /// Changes its limits.
    pub(crate) fn limit(&self, resources: &ContainerResources) {
        self.cpu.set(resources);
        self.memory.set_limit(resources.memory_limit_bytes.unwrap_or(self.default_memory));
    }

    /// Its linked image, while it has not ended.
    #[must_use]
    pub(crate) fn program(&self) -> Option<Arc<Program>> {
        self.program.lock().clone()
    }

    /// Takes it from created to running; an error where it was anything else.
    ///
    /// # Errors
    /// When it runs already or has ended.
    pub(crate) fn begin(&self) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        match *state {
            ContainerState::Created => {
                *state = ContainerState::Running { started_at: SystemTime::now() };
                Ok(())
            }
            ContainerState::Running { .. } => {
                Err(RuntimeError::Start { why: "the container runs already".into() })
            }
            ContainerState::Exited(_) => Err(RuntimeError::Start { why: "the container has ended".into() }),
        }
    }

    /// What its instances are started with; makes its files on the first call.
    ///
    /// # Errors
    /// When its files cannot be made, with the path.
    pub(crate) async fn launch(&self, records: &Records, program: &Program) -> std::io::Result<Arc<Launch>> {
        let make = async {
            let working_dir = crate::command_line::working_directory(&self.config, defaults(&program.config));
            let (plan, own, empty) =
                (self.plan.clone(), records.files_of(&self.record.lock().id), records.empty());
            let files =
                tokio::task::spawn_blocking(move || fs::materialise(&plan, &working_dir, &own, &empty));
            let files = files.await.map_err(std::io::Error::other)??;
            Ok(Arc::new(Launch::new(&self.config, &program.config, self.net.hostname(), files)))
        };
        self.launch.get_or_try_init(|| make).await.cloned()
    }

    /// Records its end: log, files, state, disk. The caller tells others.
    pub(crate) async fn finish(&self, ended: Ended, records: &Records) {
        if let Some(text) = ended.log_line() {
            self.log.line(text);
        }
        self.log.close().await;
        self.program.lock().take();
        let launch = self.launch.get().cloned();
        let exit = ended.record(self.started_at(), SystemTime::now());
        let record = {
            let mut record = self.record.lock();
            record.exit = Some((&exit).into());
            record.clone()
        };
        let records = records.clone();
        let saved = tokio::task::spawn_blocking(move || {
            if let Some(launch) = launch {
                fs::write_back(&launch.files);
            }
            records.save_container(&record)
        });
        if let Ok(Err(error)) = saved.await {
            tracing::warn!(%error, "a container's end was not recorded");
        }
        *self.state.lock() = ContainerState::Exited(exit);
        self.ended.cancel();
    }

    fn started_at(&self) -> Option<SystemTime> {
        match *self.state.lock() {
            ContainerState::Running { started_at } => Some(started_at),
            _ => None,
        }
    }

    /// Waits until the container has to end; gives how. A guest that can notice the request
    /// keeps its grace period, any other ends with the request.
    pub(crate) async fn must_end(&self, notices: impl Fn() -> bool) -> Ended {
        tokio::select! {
            biased;
            () = self.kill.cancelled() => Ended::Killed,
            () = self.stop.cancelled() => {
                if !notices() {
                    return Ended::Stopped;
                }
                self.kill.cancelled().await;
                Ended::Killed
            }
        }
    }
}
