//! The vocabulary of the seam: sandboxes, containers, their configuration and state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// A sandbox's identity, chosen by the runtime; unique over the life of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub String);

/// A container's identity with the runtime's scheme left off; unique over the life of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

/// Which pod a sandbox belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
}

/// What a sandbox is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The pod.
    pub pod: PodRef,
    /// How often the pod's sandbox was made before.
    pub attempt: u32,
    /// The pod's host name.
    pub hostname: String,
    /// The pod's addresses, first the primary one (allocated by the kubelet's network; the
    /// node's own for host-network pods).
    pub addresses: Vec<IpAddr>,
    /// Whether the pod shares the node's network (binds are not rewritten to the pod's address).
    pub host_network: bool,
    /// Directory for the pod's container logs.
    pub log_directory: PathBuf,
    /// `/etc/hosts` entries beyond the pod's own (`hostAliases`): address and names.
    pub host_aliases: Vec<(IpAddr, Vec<String>)>,
}

/// The state of a sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxStatus {
    /// Its identity.
    pub id: SandboxId,
    /// Its pod.
    pub pod: PodRef,
    /// See [`SandboxConfig::attempt`].
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// When it was made.
    pub created_at: SystemTime,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A path of the host that a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub container_path: String,
    /// Absolute path on the node: a directory or a single file.
    pub host_path: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A container's resource limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerResources {
    /// `limits.cpu` in thousandths of a core; `None` is the node's default share.
    pub cpu_limit_millis: Option<u64>,
    /// `requests.cpu` in thousandths of a core: the weight among containers without a limit.
    pub cpu_request_millis: Option<u64>,
    /// `limits.memory` in bytes; `None` is no limit but the node's own.
    pub memory_limit_bytes: Option<u64>,
}

/// A port that the container says it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    /// The port's name, if any.
    pub name: Option<String>,
    /// The port in the pod.
    pub container_port: u16,
    /// The port of the node that leads to it, if any.
    pub host_port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// What a container is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Its name in the pod.
    pub name: String,
    /// How often this container was made before in the pod (the restart count).
    pub attempt: u32,
    /// The image's identity, as [`crate::ImageInfo::id`] gave it.
    pub image_id: String,
    /// The image as the user named it.
    pub image: String,
    /// `command`, `$(VAR)` already expanded; empty: the image's entrypoint (argument 0 is the module's name).
    pub command: Vec<String>,
    /// `args`, already expanded; empty with an empty `command`: the image's own.
    pub args: Vec<String>,
    /// Environment in order; a later entry of the same name wins. The image's own come before.
    pub env: Vec<(String, String)>,
    /// Working directory; `None`: the image's, else `/`.
    pub working_dir: Option<String>,
    /// What it sees of the node's files.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: ContainerResources,
    /// Its ports.
    pub ports: Vec<ContainerPort>,
    /// Whether standard input stays open for attach; else it is at its end from the start.
    pub stdin: bool,
    /// Whether its root directory may not be written (`readOnlyRootFilesystem`).
    pub read_only_root: bool,
    /// The log file, relative to the sandbox's log directory: `<container>/<attempt>.log`, CRI log format.
    pub log_path: PathBuf,
    /// The pod's annotations under `sampan.dev/`, for runtime settings without a field of their own.
    pub annotations: BTreeMap<String, String>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running since.
    Running {
        /// When it was started.
        started_at: SystemTime,
    },
    /// Ended.
    Exited(ContainerExit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerExit {
    /// Exit code; 137 for killed and out of memory, 143 for ended by the stop request, 134 for a
    /// trap, 139 for a stack overflow, 255 for not known.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun` or `Unknown`.
    pub reason: String,
    /// For the user: the trap's text, or why it could not run. Often empty.
    pub message: String,
    /// When it started; `None` if it never ran.
    pub started_at: Option<SystemTime>,
    /// When it ended.
    pub finished_at: SystemTime,
}

/// A container as the runtime sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// Its identity.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Its pod.
    pub pod: PodRef,
    /// Its name in the pod.
    pub name: String,
    /// See [`ContainerConfig::attempt`].
    pub attempt: u32,
    /// The image as the user named it.
    pub image: String,
    /// The image's identity.
    pub image_id: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Its log file on the node; it may not be there before the first line.
    pub log_path: PathBuf,
}

/// What a container used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// CPU time, in nanoseconds, since it started.
    pub cpu_nanos: u64,
    /// Memory in use now, in bytes.
    pub memory_bytes: u64,
    /// The most memory in use at one time, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes of its log files on disk.
    pub log_bytes: u64,
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// It runs.
    Started {
        /// Its pod.
        pod: PodRef,
        /// The container.
        container: ContainerId,
    },
    /// It ended.
    Exited {
        /// Its pod.
        pod: PodRef,
        /// The container.
        container: ContainerId,
    },
    /// Some events were lost: list again.
    Lagged,
}
