//! A node for tests: a runtime with images made from text.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sampan_cri::*;
use sampan_wasm::artifact::{Artifact, ArtifactKind, Flavor, ImageConfig, detect};
use sampan_wasm::engine::Engines;
use sampan_wasm::{ArtifactSource, RuntimeConfig, WasmRuntime};
use wasmtime::Module;
use wasmtime::component::Component;

/// Nothing here takes this long; a hung test fails rather than hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Images(Mutex<HashMap<String, Arc<Artifact>>>);

#[async_trait::async_trait]
impl ArtifactSource for Images {
    async fn artifact(&self, image_id: &str) -> Result<Arc<Artifact>, String> {
        self.0.lock().unwrap().get(image_id).cloned().ok_or_else(|| format!("no image {image_id}"))
    }
}

pub(crate) struct Node {
    pub(crate) runtime: WasmRuntime,
    images: Arc<Images>,
    directory: Arc<tempfile::TempDir>,
    serial: AtomicU64,
}

/// A pod's sandbox on a node.
pub(crate) struct Pod<'a> {
    pub(crate) node: &'a Node,
    pub(crate) sandbox: SandboxId,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        Self::at(Arc::new(tempfile::tempdir().unwrap()), change)
    }

    /// A node around a runtime with images of its own.
    pub(crate) fn around(runtime: WasmRuntime) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self { runtime, images: Arc::default(), directory, serial: AtomicU64::new(0) }
    }

    fn at(directory: Arc<tempfile::TempDir>, change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let mut config = RuntimeConfig::new(directory.path().join("runtime"));
        config.tune_host = false;
        change(&mut config);
        let images = Arc::new(Images::default());
        let runtime = WasmRuntime::new(config, Engines::new().unwrap(), images.clone()).unwrap();
        Self { runtime, images, directory, serial: AtomicU64::new(0) }
    }

    /// The node as it comes back after it ended without a word.
    pub(crate) fn restarted(&self) -> Self {
        Self::at(self.directory.clone(), |_| {})
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Compiles text into an image; gives its identity.
    pub(crate) fn image(&self, flavor: Flavor, text: &str) -> String {
        self.compile(flavor, &wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")))
    }

    /// The guest of `modules/` that does what its arguments say.
    pub(crate) fn testguest(&self) -> String {
        self.guest("testguest.wasm")
    }

    /// A guest of `modules/`, by its file's name.
    pub(crate) fn guest(&self, file: &str) -> String {
        let bytes = std::fs::read(modules().join(file)).unwrap();
        self.compile(detect(&bytes).unwrap(), &bytes)
    }

    fn compile(&self, flavor: Flavor, bytes: &[u8]) -> String {
        let engine = self.runtime.engines().get(flavor.engine_class());
        let kind = match flavor {
            Flavor::CoreP1 => ArtifactKind::CoreCommand(Module::new(engine, bytes).unwrap()),
            _ => ArtifactKind::Component(Component::new(engine, bytes).unwrap()),
        };
        let id = format!("sha256:{}", self.serial.fetch_add(1, Relaxed));
        let config = ImageConfig { entrypoint: vec!["/guest.wasm".into()], ..Default::default() };
        self.images.0.lock().unwrap().insert(id.clone(), Arc::new(Artifact { kind, flavor, config }));
        id
    }

    pub(crate) async fn pod(&self, address: &str) -> Pod<'_> {
        let config = SandboxConfig {
            pod: PodRef { namespace: "default".into(), name: "pod".into(), uid: "uid".into() },
            attempt: 0,
            hostname: "pod".into(),
            addresses: vec![address.parse::<IpAddr>().unwrap()],
            host_network: false,
            log_directory: self.path("logs"),
            host_aliases: vec![],
        };
        Pod { node: self, sandbox: self.runtime.run_sandbox(config).await.unwrap() }
    }

    /// Waits until a container has ended.
    pub(crate) async fn ended(&self, id: &ContainerId) -> ContainerExit {
        let wait = async {
            loop {
                if let ContainerState::Exited(exit) = self.runtime.container_status(id).await.unwrap().state {
                    return exit;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the container ends")
    }

    /// The container's log as the guest wrote it: stream and text.
    pub(crate) async fn log(&self, id: &ContainerId) -> Vec<(String, String)> {
        let path = self.runtime.container_status(id).await.unwrap().log_path;
        read_log(&path)
    }

    /// Waits until the log holds this line.
    pub(crate) async fn logged(&self, id: &ContainerId, line: &str) {
        self.logs(id, |text| text == line).await;
    }

    /// Waits until the log holds such a line.
    pub(crate) async fn logs(&self, id: &ContainerId, such: impl Fn(&str) -> bool) {
        let wait = async {
            while !self.log(id).await.iter().any(|(_, text)| such(text)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the line appears");
    }
}

/// Where the compiled guests are: those that are committed, or freshly built ones.
pub(crate) fn modules() -> PathBuf {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../modules/dist");
    std::env::var_os("SAMPAN_MODULES_DIST").map_or_else(|| committed.into(), PathBuf::from)
}

pub(crate) fn read_log(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may still be being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let parts: Vec<_> = line.splitn(4, ' ').collect();
        (parts[1].to_owned(), parts[3].to_owned())
    };
    whole.lines().map(line).collect()
}

pub(crate) fn container(image_id: &str) -> ContainerConfig {
    ContainerConfig {
        name: "guest".into(),
        attempt: 0,
        image_id: image_id.into(),
        image: "docker.io/test/guest:latest".into(),
        command: vec![],
        args: vec![],
        env: vec![],
        working_dir: None,
        mounts: vec![],
        resources: ContainerResources::default(),
        ports: vec![],
        stdin: false,
        read_only_root: false,
        log_path: "guest/0.log".into(),
        annotations: BTreeMap::new(),
    }
}

impl Pod<'_> {
    pub(crate) async fn start(&self, config: ContainerConfig) -> ContainerId {
        let id = self.node.runtime.create_container(&self.sandbox, config).await.unwrap();
        self.node.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Starts a container and waits for its end.
    pub(crate) async fn run(&self, config: ContainerConfig) -> (ContainerId, ContainerExit) {
        let id = self.start(config).await;
        let exit = self.node.ended(&id).await;
        (id, exit)
    }
}
