//! Running containers: the trait that a runtime implements.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;

use crate::types::{
    ContainerConfig, ContainerEvent, ContainerId, ContainerResources, ContainerStats, ContainerStatus,
    SandboxConfig, SandboxId, SandboxStatus,
};

/// Why a runtime refused.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such sandbox or container (it may be gone already).
    #[error("{what} not found")]
    NotFound {
        /// The kind and the identity.
        what: String,
    },
    /// The request cannot be met as it stands (`CreateContainerConfigError`, `CreateContainerError`):
    /// the text is for the user.
    #[error("{why}")]
    Invalid {
        /// What is wrong, for the user.
        why: String,
    },
    /// Starting failed (`RunContainerError`, `StartError`): the text is for the user.
    #[error("{why}")]
    Start {
        /// What is wrong, for the user.
        why: String,
    },
    /// The node ran out of something (addresses, memory maps, files).
    #[error("{why}")]
    Exhausted {
        /// What is wrong, for the user.
        why: String,
    },
    /// Input or output failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Changes of containers, as they happen. A lagging reader gets [`ContainerEvent::Lagged`] and lists again.
pub type EventStream = Pin<Box<dyn Stream<Item = ContainerEvent> + Send>>;

/// A container runtime. All calls are idempotent where CRI's are: stopping a stopped
/// container and removing a missing one succeed.
#[async_trait]
pub trait ContainerRuntime: Send + Sync + 'static {
    /// Name and version, as in a node's `containerRuntimeVersion`: `wasmtime://48.0.8`.
    fn version(&self) -> String;

    /// Makes a pod's sandbox: its place for logs and records, its address.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError>;

    /// Ends every container of the sandbox at once and gives its network back.
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes a stopped sandbox and its records.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// All sandboxes, those of an earlier run of the node included (as not ready).
    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;

    /// Prepares a container; its image must be on the node.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;

    /// Starts a created container. Returns when it runs (a handler: when it listens).
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Asks a container to end (the runtime's SIGTERM: standard input ends, listeners close and
    /// drain, the shutdown pollable fires), and ends it after `grace`. Returns when it has ended.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes an ended container and its record; its log stays until the sandbox goes.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// One container.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError>;

    /// All containers, or those of one sandbox. Containers that ran when an earlier run of the
    /// node ended without stopping them are listed as exited with code 255, reason `Unknown`.
    async fn list_containers(
        &self,
        sandbox: Option<&SandboxId>,
    ) -> Result<Vec<ContainerStatus>, RuntimeError>;

    /// Changes a running container's limits.
    async fn update_resources(
        &self,
        id: &ContainerId,
        resources: ContainerResources,
    ) -> Result<(), RuntimeError>;

    /// What a container used.
    async fn container_stats(&self, id: &ContainerId) -> Result<ContainerStats, RuntimeError>;

    /// What happens to containers from now on.
    fn events(&self) -> EventStream;
}
