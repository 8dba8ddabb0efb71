//! What is kept on disk of sandboxes and containers, so that a node that starts again knows
//! what ran before. One small file each, written when it is made and when it ends, whole or
//! not at all, never forced to the disk: a record lost with the power is a container forgotten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sampan_cri::{
    ContainerConfig, ContainerExit, ContainerId, ContainerState, ContainerStatus, PodRef, SandboxConfig,
    SandboxId, SandboxStatus,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Millis(u64);

impl From<SystemTime> for Millis {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Millis> for SystemTime {
    fn from(millis: Millis) -> Self {
        Self::UNIX_EPOCH + Duration::from_millis(millis.0)
    }
}

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    /// Its identity.
    pub id: SandboxId,
    /// What it was made from.
    pub config: SandboxConfig,
    /// When.
    pub created_at: Millis,
}

impl SandboxRecord {
    /// Its state, which the record does not know by itself.
    #[must_use]
    pub(crate) fn status(&self, ready: bool) -> SandboxStatus {
        SandboxStatus {
            id: self.id.clone(),
            pod: self.config.pod.clone(),
            attempt: self.config.attempt,
            ready,
            created_at: self.created_at.into(),
            addresses: self.config.addresses.clone(),
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    code: i32,
    reason: String,
    message: String,
    started_at: Option<Millis>,
    finished_at: Millis,
}

impl From<&ContainerExit> for ExitRecord {
    fn from(exit: &ContainerExit) -> Self {
        Self {
            code: exit.code,
            reason: exit.reason.clone(),
            message: exit.message.clone(),
            started_at: exit.started_at.map(Millis::from),
            finished_at: exit.finished_at.into(),
        }
    }
}

/// A container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    /// Its identity.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    pod: PodRef,
    name: String,
    attempt: u32,
    image: String,
    image_id: String,
    created_at: Millis,
    log_path: PathBuf,
    /// How it ended; missing while it lives, and for ever where the node ended first.
    pub exit: Option<ExitRecord>,
}

impl ContainerRecord {
    /// The record of a container.
    #[must_use]
    pub(crate) fn new(
        id: &ContainerId,
        sandbox: &SandboxRecord,
        config: &ContainerConfig,
        created_at: SystemTime,
    ) -> Self {
        Self {
            id: id.clone(),
            sandbox: sandbox.id.clone(),
            pod: sandbox.config.pod.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.clone(),
            image_id: config.image_id.clone(),
            created_at: created_at.into(),
            log_path: sandbox.config.log_directory.join(&config.log_path),
            exit: None,
        }
    }

    /// Where the container's log is.
    #[must_use]
    pub(crate) fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// Its pod.
    #[must_use]
    pub(crate) fn pod(&self) -> &PodRef {
        &self.pod
    }

    /// The container in a state.
    #[must_use]
    pub(crate) fn status(&self, state: ContainerState) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            pod: self.pod.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            created_at: self.created_at.into(),
            state,
            log_path: self.log_path.clone(),
        }
    }

    /// How it ended, as a later run of the node sees it.
    #[must_use]
    pub(crate) fn past_exit(&self, node_started_at: SystemTime) -> ContainerExit {
        match &self.exit {
            Some(exit) => ContainerExit {
                code: exit.code,
                reason: exit.reason.clone(),
                message: exit.message.clone(),
                started_at: exit.started_at.map(SystemTime::from),
                finished_at: exit.finished_at.into(),
            },
            None => ContainerExit {
                code: 255,
                reason: "Unknown".to_owned(),
                message: "the node ended while the container was there".to_owned(),
                started_at: Some(self.created_at.into()),
                finished_at: node_started_at,
            },
        }
    }
}

/// The directory of all records and of containers' private files.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        for name in ["sandboxes", "containers", "files"] {
            fs::create_dir_all(directory.join(name))?;
        }
        Ok(Self { directory })
    }

    /// The private directory of a container; not there until it is needed.
    #[must_use]
    pub(crate) fn files_of(&self, id: &ContainerId) -> PathBuf {
        self.directory.join("files").join(&id.0)
    }

    /// The node's one empty directory.
    #[must_use]
    pub(crate) fn empty(&self) -> PathBuf {
        self.directory.join("empty")
    }

    fn sandbox_path(&self, id: &SandboxId) -> PathBuf {
        self.directory.join("sandboxes").join(format!("{}.json", id.0))
    }

    fn container_path(&self, id: &ContainerId) -> PathBuf {
        self.directory.join("containers").join(format!("{}.json", id.0))
    }

    /// Writes a sandbox's record.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn save_sandbox(&self, record: &SandboxRecord) -> io::Result<()> {
        save(&self.sandbox_path(&record.id), record)
    }

    /// Writes a container's record.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn save_container(&self, record: &ContainerRecord) -> io::Result<()> {
        save(&self.container_path(&record.id), record)
    }

    /// Forgets a sandbox.
    pub(crate) fn remove_sandbox(&self, id: &SandboxId) {
        let _ = fs::remove_file(self.sandbox_path(id));
    }

    /// Forgets a container and its private files.
    pub(crate) fn remove_container(&self, id: &ContainerId) {
        let _ = fs::remove_file(self.container_path(id));
        let files = self.files_of(id);
        if let Err(error) = fs::remove_dir_all(&files)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %files.display(), %error, "a container's files are left behind");
        }
    }

    /// Everything that was kept.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub(crate) fn load(&self) -> io::Result<(Vec<SandboxRecord>, Vec<ContainerRecord>)> {
        Ok((load(&self.directory.join("sandboxes"))?, load(&self.directory.join("containers"))?))
    }
}

fn save<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let partial = path.with_extension("tmp");
    fs::write(&partial, serde_json::to_vec(record)?)?;
    fs::rename(partial, path)
}

fn load<T: DeserializeOwned>(directory: &Path) -> io::Result<Vec<T>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "json") {
            // What a write left behind that never came to its end.
            let _ = fs::remove_file(&path);
            continue;
        }
        match serde_json::from_slice(&fs::read(&path)?) {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a record cannot be read and is dropped");
                let _ = fs::remove_file(&path);
            }
        }
    }
    Ok(records)
}
