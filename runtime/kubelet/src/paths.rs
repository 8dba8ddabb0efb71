//! Where the node keeps what belongs to pods.
//!
//! `DATA/pods/UID/` holds volumes and termination messages, `DATA/logs/NS_NAME_UID/` logs.
//! What must not reach the disk (secrets, tokens, `medium: Memory`) lies in a tmpfs where the
//! machine has one with room.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use sha2::{Digest, Sha256};

use crate::pod::spec;

/// A tmpfs with less room than this is left alone.
const LEAST_ROOM: u64 = 32 << 20;

/// The node's directories.
#[derive(Clone, Debug)]
pub struct Paths {
    data: PathBuf,
    memory: Option<PathBuf>,
}

impl Paths {
    /// Directories under `data`, and in a tmpfs if the machine has one.
    pub fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), memory: find_tmpfs().map(|root| root.join(memory_name(data))) }
    }

    /// Directories under `data` only.
    pub fn on_disk_only(data: &Path) -> Self {
        Self { data: data.to_owned(), memory: None }
    }

    /// All pods' directories.
    pub fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// All pods' directories in memory, if there is a tmpfs.
    pub fn memory_pods(&self) -> Option<PathBuf> {
        self.memory.as_ref().map(|root| root.join("pods"))
    }

    /// All pods' logs.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The note about containers that ended because the node was stopped.
    pub fn interrupted(&self) -> PathBuf {
        self.data.join("interrupted.json")
    }

    /// A pod's directory.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// A pod's log directory.
    pub fn pod_logs(&self, pod: &Pod) -> PathBuf {
        self.logs().join(format!("{}_{}_{}", spec::namespace(pod), spec::name(pod), spec::uid(pod)))
    }

    /// A volume's directory.
    pub fn volume(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(volume)
    }

    /// A volume's directory in memory, if there is a tmpfs with room or it is there already.
    pub fn memory_volume(&self, uid: &str, plugin: &str, volume: &str) -> Option<PathBuf> {
        let root = self.memory.as_ref()?;
        let path = root.join("pods").join(uid).join(plugin).join(volume);
        let parent = root.parent().unwrap_or(root);
        (path.exists() || room(parent) >= LEAST_ROOM).then_some(path)
    }

    /// Where what a container mounts of a part of a volume is kept as it was.
    pub fn subpath(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.pod(uid).join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }

    /// The file that a container writes its last words to.
    pub fn termination_message(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// Removes a pod's directories, those of volumes in memory included.
    pub fn remove_pod(&self, uid: &str) -> std::io::Result<()> {
        for directory in std::iter::once(self.pod(uid)).chain(self.memory_pods().map(|pods| pods.join(uid))) {
            remove_tree(&directory)?;
        }
        Ok(())
    }

    /// Removes a pod's volumes and what was kept of their parts. The content of hostPath volumes
    /// lies elsewhere and stays.
    pub fn remove_volumes(&self, uid: &str) -> std::io::Result<()> {
        let pod = self.pod(uid);
        remove_tree(&pod.join("volumes"))?;
        remove_tree(&pod.join("volume-subpaths"))?;
        self.memory_pods().map_or(Ok(()), |pods| remove_tree(&pods.join(uid)))
    }
}

/// Removes a directory with all that is in it; one that is not there is fine.
pub fn remove_tree(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A name in the tmpfs of our own, different for each data directory.
fn memory_name(data: &Path) -> String {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let digest = Sha256::digest(absolute.as_os_str().as_encoded_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("sampan-{hex}")
}

fn find_tmpfs() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let root = rustix::process::geteuid().is_root().then(|| PathBuf::from("/run"));
    let candidates = root.into_iter().chain(runtime).chain([PathBuf::from("/dev/shm")]);
    candidates.into_iter().find(|path| is_tmpfs(path) && is_writable(path) && room(path) >= LEAST_ROOM)
}

fn is_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    rustix::fs::statfs(path)
        .is_ok_and(|stat| u32::try_from(stat.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC))
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

fn room(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
