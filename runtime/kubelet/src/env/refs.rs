//! What a pod refers to by name: ConfigMaps and Secrets, of its environment and its volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume};

use crate::pod::spec;

/// Names that are referred to, in the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

impl Wanted {
    /// Everything that a pod refers to.
    pub fn of_pod(pod: &Pod) -> Self {
        let mut wanted = Self::default();
        for (_, container) in spec::containers(pod) {
            wanted.add_container(container);
        }
        let Some(spec) = spec::spec(pod) else { return wanted };
        for volume in spec.volumes.iter().flatten() {
            wanted.add_volume(volume);
        }
        wanted
            .secrets
            .extend(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
        wanted
    }

    /// What a container's environment refers to.
    pub fn of_container(container: &Container) -> Self {
        let mut wanted = Self::default();
        wanted.add_container(container);
        wanted
    }

    /// What a volume refers to.
    pub fn of_volume(volume: &Volume) -> Self {
        let mut wanted = Self::default();
        wanted.add_volume(volume);
        wanted
    }

    fn add_container(&mut self, container: &Container) {
        for source in container.env_from.iter().flatten() {
            self.config_maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
            self.secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            self.config_maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
            self.secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
        }
    }

    fn add_volume(&mut self, volume: &Volume) {
        self.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        self.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            self.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            self.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
}

/// What the names stand for; `None`: there is no such object.
#[derive(Clone, Debug, Default)]
pub struct Refs {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

impl Refs {
    /// A ConfigMap, or the text that says there is none.
    pub fn config_map(&self, name: &str) -> Result<&ConfigMap, String> {
        self.config_maps
            .get(name)
            .and_then(Option::as_deref)
            .ok_or_else(|| format!("configmap \"{name}\" not found"))
    }

    /// A Secret, or the text that says there is none.
    pub fn secret(&self, name: &str) -> Result<&Secret, String> {
        self.secrets
            .get(name)
            .and_then(Option::as_deref)
            .ok_or_else(|| format!("secret \"{name}\" not found"))
    }
}
