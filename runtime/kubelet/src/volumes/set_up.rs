//! Setting up all volumes of a pod, and bringing them up to date.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, Volume};

use super::payload::{self, DEFAULT_MODE, Payload};
use super::tokens::Tokens;
use super::{Mounted, MountedVolumes, atomic, empty_dir, host_path, source};
use crate::env::field::PodFacts;
use crate::env::{Refs, Wanted};
use crate::objects::Objects;
use crate::paths::Paths;
use crate::pod::resources::Amounts;
use crate::pod::spec;

/// Why a volume could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
pub struct VolumeError {
    /// The volume.
    pub volume: String,
    /// For the user.
    pub why: String,
}

/// What came of setting a pod's volumes up.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The volumes.
    pub mounted: MountedVolumes,
    /// When something in them must be renewed.
    pub resync_at: Option<Timestamp>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What is to be done on the disk for one volume.
enum Work {
    EmptyDir { memory: bool },
    HostPath { path: String, type_: String },
    Files { payload: Payload, plugin: &'static str, secret: bool },
}

/// Sets volumes up. Shared by all pods.
#[derive(Debug)]
pub struct Volumes {
    paths: Paths,
    objects: Arc<Objects>,
    tokens: Tokens,
    allocatable: Amounts,
}

impl Volumes {
    /// Volumes in these directories.
    pub fn new(paths: Paths, objects: Arc<Objects>, tokens: Tokens, allocatable: Amounts) -> Self {
        Self { paths, objects, tokens, allocatable }
    }

    /// Sets the pod's volumes up, or brings them up to date.
    pub async fn set_up(&self, pod: &Pod, facts: &PodFacts) -> Result<Outcome, VolumeError> {
        let used = used_volumes(pod);
        let volumes = spec::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let mut work = Vec::new();
        let mut resync_at = None;
        for volume in volumes.iter().filter(|volume| used.contains(volume.name.as_str())) {
            let (task, due) = self
                .prepare(pod, volume, facts)
                .await
                .map_err(|why| VolumeError { volume: volume.name.clone(), why })?;
            resync_at = [resync_at, due].into_iter().flatten().min();
            work.push((volume.name.clone(), task));
        }
        if work.is_empty() {
            return Ok(Outcome::default());
        }
        let (paths, uid) = (self.paths.clone(), spec::uid(pod).to_owned());
        let written = tokio::task::spawn_blocking(move || carry_out(&paths, &uid, work)).await;
        let mut outcome = written.unwrap_or_else(|error| {
            Err(VolumeError { volume: String::new(), why: format!("writing was interrupted: {error}") })
        })?;
        outcome.resync_at = resync_at;
        Ok(outcome)
    }

    /// Takes the pod's volumes down.
    pub async fn release(&self, uid: &str) -> std::io::Result<()> {
        self.tokens.forget(uid);
        let (paths, uid) = (self.paths.clone(), uid.to_owned());
        tokio::task::spawn_blocking(move || paths.remove_volumes(&uid))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    async fn prepare(
        &self,
        pod: &Pod,
        volume: &Volume,
        facts: &PodFacts,
    ) -> Result<(Work, Option<Timestamp>), String> {
        if let Some(name) = source::unsupported(volume) {
            return Err(format!("volume source \"{name}\" is not supported by this node"));
        }
        if let Some(source) = &volume.empty_dir {
            if let Some(medium) = source.medium.as_deref().filter(|medium| !matches!(*medium, "" | "Memory"))
            {
                return Err(format!("emptyDir medium \"{medium}\" is not supported by this node"));
            }
            return Ok((Work::EmptyDir { memory: empty_dir::in_memory(source) }, None));
        }
        if let Some(source) = &volume.host_path {
            let type_ = source.type_.clone().unwrap_or_default();
            return Ok((Work::HostPath { path: source.path.clone(), type_ }, None));
        }
        let refs = self.objects.fetch(spec::namespace(pod), &Wanted::of_volume(volume)).await?;
        let files = |payload, plugin, secret| Work::Files { payload, plugin, secret };
        if let Some(source) = &volume.config_map {
            let optional = source.optional == Some(true);
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let payload = config_map(&refs, &source.name, source.items.as_deref(), mode, optional)?;
            return Ok((files(payload, "configmap", false), None));
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let optional = source.optional == Some(true);
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let payload = secret(&refs, name, source.items.as_deref(), mode, optional)?;
            return Ok((files(payload, "secret", true), None));
        }
        if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let items = source.items.as_deref().unwrap_or_default();
            let payload = payload::downward(pod, facts, &self.allocatable, items, mode)?;
            return Ok((files(payload, "downward-api", false), None));
        }
        let Some(source) = &volume.projected else {
            return Err("the volume has no source".into());
        };
        let (payload, due) = self.projected(pod, volume, source, facts, &refs).await?;
        Ok((files(payload, "projected", true), due))
    }

    async fn projected(
        &self,
        pod: &Pod,
        volume: &Volume,
        projected: &ProjectedVolumeSource,
        facts: &PodFacts,
        refs: &Refs,
    ) -> Result<(Payload, Option<Timestamp>), String> {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        let mut payload = Payload::new();
        let mut due = None;
        for part in projected.sources.iter().flatten() {
            let files = if let Some(source) = &part.config_map {
                let optional = source.optional == Some(true);
                config_map(refs, &source.name, source.items.as_deref(), mode, optional)?
            } else if let Some(source) = &part.secret {
                secret(refs, &source.name, source.items.as_deref(), mode, source.optional == Some(true))?
            } else if let Some(source) = &part.downward_api {
                let items = source.items.as_deref().unwrap_or_default();
                payload::downward(pod, facts, &self.allocatable, items, mode)?
            } else if let Some(source) = &part.service_account_token {
                let token = self.tokens.get(pod, &volume.name, source).await?;
                due = [due, Some(token.renew_at)].into_iter().flatten().min();
                payload::token(&source.path, &token.text, mode)?
            } else {
                return Err("a projected source of this kind is not supported by this node".into());
            };
            payload.extend(files);
        }
        Ok((payload, due))
    }
}

fn config_map(
    refs: &Refs,
    name: &str,
    items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    match refs.config_map(name) {
        Ok(map) => payload::config_map(map, items, mode, optional),
        Err(_) if optional => Ok(Payload::new()),
        Err(why) => Err(why),
    }
}

fn secret(
    refs: &Refs,
    name: &str,
    items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    match refs.secret(name) {
        Ok(secret) => payload::secret(secret, items, mode, optional),
        Err(_) if optional => Ok(Payload::new()),
        Err(why) => Err(why),
    }
}

/// The volumes that containers mount; others are not set up.
fn used_volumes(pod: &Pod) -> BTreeSet<&str> {
    spec::containers(pod)
        .flat_map(|(_, container)| container.volume_mounts.iter().flatten())
        .map(|mount| mount.name.as_str())
        .collect()
}

/// Does the work on the disk.
fn carry_out(paths: &Paths, uid: &str, work: Vec<(String, Work)>) -> Result<Outcome, VolumeError> {
    let mut outcome = Outcome::default();
    for (volume, task) in work {
        let done = match task {
            Work::EmptyDir { memory } => make_empty_dir(paths, uid, &volume, memory, &mut outcome.warnings),
            Work::HostPath { path, type_ } => host_path::check(&path, &type_).map(|()| Mounted {
                path: PathBuf::from(path),
                read_only: false,
                replaced: false,
            }),
            Work::Files { payload, plugin, secret } => {
                write_files(paths, uid, &volume, &payload, plugin, secret)
            }
        };
        match done {
            Ok(mounted) => outcome.mounted.insert(volume, mounted),
            Err(why) => return Err(VolumeError { volume, why }),
        };
    }
    Ok(outcome)
}

fn make_empty_dir(
    paths: &Paths,
    uid: &str,
    volume: &str,
    memory: bool,
    warnings: &mut Vec<String>,
) -> Result<Mounted, String> {
    let on_disk = paths.volume(uid, "empty-dir", volume);
    // One that exists stays where it is: the room in memory may have changed since.
    let in_memory = paths.memory_volume(uid, "empty-dir", volume).filter(|_| memory && !on_disk.exists());
    if memory && in_memory.is_none() && !on_disk.exists() {
        warnings.push(format!(
            "emptyDir \"{volume}\" with medium Memory lies on disk: this machine has no tmpfs with room for it"
        ));
    }
    let path = in_memory.unwrap_or(on_disk);
    empty_dir::create(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    Ok(Mounted { path, read_only: false, replaced: false })
}

fn write_files(
    paths: &Paths,
    uid: &str,
    volume: &str,
    payload: &Payload,
    plugin: &str,
    secret: bool,
) -> Result<Mounted, String> {
    let on_disk = paths.volume(uid, plugin, volume);
    // What is secret does not touch the disk where it can be helped, and stays where it began.
    let path = match paths.memory_volume(uid, plugin, volume) {
        Some(in_memory) if secret && !on_disk.exists() => in_memory,
        _ => on_disk,
    };
    atomic::write(&path, payload).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(Mounted { path, read_only: true, replaced: true })
}
