//! A container runtime whose containers do what their command says:
//! `run`, `exit CODE`, `print TEXT CODE`, `stubborn`, `cannot-start`, `say TEXT CODE`.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use sampan_cri::*;
use tokio::sync::broadcast;

#[derive(Clone)]
pub struct FakeContainer {
    pub config: ContainerConfig,
    pub status: ContainerStatus,
}

#[derive(Clone)]
pub struct FakeSandbox {
    pub config: SandboxConfig,
    pub status: SandboxStatus,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, FakeSandbox>,
    containers: BTreeMap<ContainerId, FakeContainer>,
    made: u64,
}

pub struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEvent>,
}

impl FakeRuntime {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), events: broadcast::channel(4096).0 })
    }

    /// The runtime as a new run of the node finds it.
    pub fn after_crash(&self) -> Arc<Self> {
        let mut state = self.state.lock();
        let mut state = std::mem::take(&mut *state);
        for sandbox in state.sandboxes.values_mut() {
            sandbox.status.ready = false;
        }
        for container in state.containers.values_mut() {
            if !matches!(container.status.state, ContainerState::Exited(_)) {
                container.status.state = ContainerState::Exited(exit(255, "Unknown"));
            }
        }
        Arc::new(Self { state: Mutex::new(state), events: broadcast::channel(4096).0 })
    }

    pub fn containers(&self) -> Vec<FakeContainer> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// The newest container of a name.
    pub fn newest(&self, name: &str) -> Option<FakeContainer> {
        self.containers().into_iter().filter(|c| c.config.name == name).max_by_key(|c| c.config.attempt)
    }

    pub fn sandboxes(&self) -> Vec<FakeSandbox> {
        self.state.lock().sandboxes.values().cloned().collect()
    }

    /// Ends a container as if by itself.
    pub fn end(&self, id: &ContainerId, code: i32, reason: &str) {
        let pod = {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get_mut(id) else { return };
            if matches!(container.status.state, ContainerState::Exited(_)) {
                return;
            }
            let started = match container.status.state {
                ContainerState::Running { started_at } => Some(started_at),
                _ => None,
            };
            container.status.state =
                ContainerState::Exited(ContainerExit { started_at: started, ..exit(code, reason) });
            container.status.pod.clone()
        };
        self.events.send(ContainerEvent::Exited { pod, container: id.clone() }).ok();
    }

    fn begin(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.state.lock().containers.get(id).cloned().unwrap();
        let command = container.config.command.clone();
        let word = |index: usize| command.get(index).cloned().unwrap_or_default();
        if word(0) == "cannot-start" {
            self.end(id, 128, "ContainerCannotRun");
            return Err(RuntimeError::Start { why: "it cannot be started".into() });
        }
        self.state.lock().containers.get_mut(id).unwrap().status.state =
            ContainerState::Running { started_at: SystemTime::now() };
        let ended = |code: &str| {
            let code: i32 = code.parse().unwrap();
            self.end(id, code, if code == 0 { "Completed" } else { "Error" });
        };
        match word(0).as_str() {
            "exit" => ended(&word(1)),
            "print" => {
                write_log(&container, &word(1));
                ended(&word(2));
            }
            "say" => {
                let message = container
                    .config
                    .mounts
                    .iter()
                    .find(|m| m.container_path == "/dev/termination-log")
                    .unwrap();
                std::fs::write(&message.host_path, word(1)).unwrap();
                ended(&word(2));
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a line to a container's log.
    pub fn print(&self, name: &str, text: &str) {
        write_log(&self.newest(name).unwrap(), text);
    }
}

fn write_log(container: &FakeContainer, text: &str) {
    let path = &container.status.log_path;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{} stdout F {text}\n", jiff::Timestamp::now()).as_bytes()).unwrap();
}

fn exit(code: i32, reason: &str) -> ContainerExit {
    ContainerExit {
        code,
        reason: reason.into(),
        message: String::new(),
        started_at: None,
        finished_at: SystemTime::now(),
    }
}

fn missing(id: &str) -> RuntimeError {
    RuntimeError::NotFound { what: id.into() }
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    fn version(&self) -> String {
        "fake://1".into()
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let mut state = self.state.lock();
        state.made += 1;
        let id = SandboxId(format!("s{}", state.made));
        let status = SandboxStatus {
            id: id.clone(),
            pod: config.pod.clone(),
            attempt: config.attempt,
            ready: true,
            created_at: SystemTime::now(),
            addresses: config.addresses.clone(),
        };
        state.sandboxes.insert(id.clone(), FakeSandbox { config, status });
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let running: Vec<ContainerId> = {
            let mut state = self.state.lock();
            state.sandboxes.get_mut(id).ok_or_else(|| missing(&id.0))?.status.ready = false;
            let of = |c: &&FakeContainer| c.status.sandbox == *id;
            state.containers.values().filter(of).map(|c| c.status.id.clone()).collect()
        };
        for id in running {
            self.end(&id, 137, "Error");
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.sandboxes.remove(id);
        state.containers.retain(|_, container| container.status.sandbox != *id);
        Ok(())
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.state.lock().sandboxes.values().map(|sandbox| sandbox.status.clone()).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let mut state = self.state.lock();
        let home = state
            .sandboxes
            .get(sandbox)
            .filter(|s| s.status.ready)
            .cloned()
            .ok_or_else(|| missing(&sandbox.0))?;
        state.made += 1;
        let id = ContainerId(format!("c{}", state.made));
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            pod: home.config.pod.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.clone(),
            image_id: config.image_id.clone(),
            created_at: SystemTime::now(),
            state: ContainerState::Created,
            log_path: home.config.log_directory.join(&config.log_path),
        };
        state.containers.insert(id.clone(), FakeContainer { config, status });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.begin(id)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Some(container) = self.state.lock().containers.get(id).cloned() else {
            return Err(missing(&id.0));
        };
        if container.config.command.first().is_some_and(|word| word == "stubborn") {
            tokio::time::sleep(grace).await;
            self.end(id, 137, "Error");
        } else if container.config.command.first().is_some_and(|word| word == "polite") {
            self.end(id, 0, "Completed");
        } else {
            self.end(id, 143, "Error");
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.state.lock().containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.state.lock().containers.get(id).map(|c| c.status.clone()).ok_or_else(|| missing(&id.0))
    }

    async fn list_containers(
        &self,
        sandbox: Option<&SandboxId>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let state = self.state.lock();
        let all = state.containers.values().map(|container| container.status.clone());
        Ok(all.filter(|status| sandbox.is_none_or(|sandbox| status.sandbox == *sandbox)).collect())
    }

    async fn update_resources(&self, _: &ContainerId, _: ContainerResources) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn container_stats(&self, _: &ContainerId) -> Result<ContainerStats, RuntimeError> {
        Ok(ContainerStats {
            cpu_nanos: 1_500_000_000,
            memory_bytes: 4096,
            memory_peak_bytes: 8192,
            log_bytes: 7,
        })
    }

    fn events(&self) -> EventStream {
        let stream = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        stream.map(|event| event.unwrap_or(ContainerEvent::Lagged)).boxed()
    }
}

/// Images: all are there but those whose names begin with `missing`, `absent` (there after a
/// pull) or `Wrong`.
#[derive(Default)]
pub struct FakeImages {
    pub pulled: Mutex<Vec<String>>,
}

fn info(name: &str) -> ImageInfo {
    ImageInfo {
        id: format!("sha256:{name}"),
        names: vec![name.into()],
        digests: vec![],
        size_bytes: 42,
        handler: "wasm".into(),
    }
}

#[async_trait]
impl ImageService for FakeImages {
    async fn status(&self, name: &str) -> Result<Option<ImageInfo>, ImageError> {
        if name.starts_with("Wrong") {
            return Err(ImageError::InvalidName { name: name.into(), why: "upper case".into() });
        }
        let there = !name.starts_with("missing")
            && (!name.starts_with("absent") || self.pulled.lock().iter().any(|p| p == name));
        Ok(there.then(|| info(name)))
    }

    async fn pull(&self, name: &str, _: &[PullCredentials]) -> Result<ImageInfo, ImageError> {
        if name.starts_with("missing") {
            return Err(ImageError::Pull { name: name.into(), why: "no such image anywhere".into() });
        }
        self.pulled.lock().push(name.into());
        Ok(info(name))
    }

    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        Ok(vec![info("there:1")])
    }

    async fn remove(&self, _: &str) -> Result<(), ImageError> {
        Ok(())
    }
}
