//! The node's images behind the kubelet's seam: what the library holds, compiled and in memory
//! before anything is started from it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use sampan_cri::{ImageError, ImageInfo, ImageService, PullCredentials};

use super::error::unready;
use super::loaded::Loaded;
use super::{Held, Library, LibraryError, Reference, RegistryClient};
use crate::artifact::{Artifact, ArtifactCache, ArtifactError, Compiler, Digest};
use crate::engine::Engines;
use crate::runtime::ArtifactSource;

/// Why the node's images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The images on disk.
    #[error("the node's images cannot be used")]
    Library(#[from] LibraryError),
    /// The compiled code on disk.
    #[error("the compiled images cannot be used")]
    Cache(#[from] ArtifactError),
}

/// The node's images. Clones share them.
#[derive(Clone)]
pub struct ImageStore {
    library: Arc<Library>,
    cache: ArtifactCache,
    loaded: Arc<Loaded>,
    registry: Option<Arc<dyn RegistryClient>>,
}

impl ImageStore {
    /// Opens the images under a directory, the same as [`Library::open`] takes, and the code
    /// compiled from them beside. Blocks for a moment.
    ///
    /// # Errors
    /// When a directory cannot be used.
    pub fn open(directory: &Path, engines: Engines, compiler: Compiler) -> Result<Self, OpenError> {
        let library = Library::open(directory)?;
        library.clear_pulls()?;
        let cache = ArtifactCache::open(&directory.join("compiled"), engines, compiler)?;
        match library.modules() {
            Ok(modules) => cache.retain(&modules)?,
            // Whoever asks for an image learns it; what is embedded can run nevertheless.
            Err(error) => tracing::error!(error = error.full(), "the list of images cannot be read"),
        }
        Ok(Self { library: Arc::new(library), cache, loaded: Arc::default(), registry: None })
    }

    /// With a client for images that are not on the node.
    #[must_use]
    pub fn with_registry(self, client: Arc<dyn RegistryClient>) -> Self {
        Self { registry: Some(client), ..self }
    }

    /// The images on disk.
    #[must_use]
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// The image of an identity, compiled and in memory.
    ///
    /// # Errors
    /// See [`ArtifactError`].
    pub async fn load(&self, image_id: &str) -> Result<Arc<Artifact>, ArtifactError> {
        let unknown = || ArtifactError::NotFound(image_id.to_owned());
        let id: Digest = image_id.parse().map_err(|_| unknown())?;
        if let Some(artifact) = self.loaded.get(&id) {
            return Ok(artifact);
        }
        let library = self.library.clone();
        let found = blocking(move || library.identified(&id)).await;
        let held = found.map_err(|error| ArtifactError::Damaged(error.full()))?.ok_or_else(unknown)?;
        self.prepare(id, held).await
    }

    async fn prepare(&self, id: Digest, held: Held) -> Result<Arc<Artifact>, ArtifactError> {
        let kind = self.cache.load(&held.module).await?;
        let artifact = Artifact { kind, flavor: held.module.flavor, config: held.config };
        Ok(self.loaded.keep(id, artifact))
    }

    /// Fetches what the node does not hold.
    async fn fetch(&self, reference: &str, credentials: &[PullCredentials]) -> Result<Held, ImageError> {
        let failed = |why: String| ImageError::Pull { name: reference.to_owned(), why };
        let name: Reference = reference.parse().map_err(|source| {
            LibraryError::Name { name: reference.to_owned(), source }.for_kubelet(reference)
        })?;
        let Some(registry) = &self.registry else {
            return Err(failed(
                "registry pulls are not supported yet; import it with `sampan image import NAME FILE`"
                    .to_owned(),
            ));
        };
        let library = self.library.clone();
        let staging =
            blocking(move || library.staging()).await.map_err(|error| error.for_kubelet(reference))?;
        registry.fetch(&name, credentials, staging.path()).await.map_err(failed)?;
        let library = self.library.clone();
        let taken = blocking(move || library.pulled(&name, staging.path())).await;
        taken.map_err(|error| error.for_kubelet(reference))
    }
}

#[async_trait]
impl ArtifactSource for ImageStore {
    async fn artifact(&self, image_id: &str) -> Result<Arc<Artifact>, String> {
        self.load(image_id).await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl ImageService for ImageStore {
    async fn status(&self, reference: &str) -> Result<Option<ImageInfo>, ImageError> {
        let (library, wanted) = (self.library.clone(), reference.to_owned());
        let found = blocking(move || library.find(&wanted)).await;
        Ok(found.map_err(|error| error.for_kubelet(reference))?.map(|held| held.info))
    }

    async fn pull(&self, reference: &str, credentials: &[PullCredentials]) -> Result<ImageInfo, ImageError> {
        let (library, wanted) = (self.library.clone(), reference.to_owned());
        let found = blocking(move || library.find(&wanted)).await;
        let found = found.map_err(|error| error.for_kubelet(reference))?;
        let held = match found.filter(|held| !held.pulled || self.registry.is_none()) {
            Some(held) => held,
            None => self.fetch(reference, credentials).await?,
        };
        let info = held.info.clone();
        let id: Digest =
            info.id.parse().map_err(|error| ImageError::Store(format!("{}: {error}", info.id)))?;
        if self.loaded.get(&id).is_none() {
            self.prepare(id, held).await.map_err(|error| unready(&error, reference))?;
        }
        Ok(info)
    }

    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        let library = self.library.clone();
        let listed = blocking(move || library.list()).await;
        let listed = listed.map_err(|error| ImageError::Store(error.full()))?;
        Ok(listed.into_iter().map(|held| held.info).collect())
    }

    async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        let (library, cache, loaded) = (self.library.clone(), self.cache.clone(), self.loaded.clone());
        let wanted = reference.to_owned();
        let removed = blocking(move || {
            if library.remove(&wanted)? {
                let held = library.list()?;
                loaded.retain(|id| held.iter().any(|held| held.info.id == id.to_string()));
                let modules = held.into_iter().map(|held| held.module.digest).collect();
                if let Err(error) = cache.retain(&modules) {
                    // It is tried again when the node starts.
                    tracing::warn!(%error, "compiled code of a removed image stays");
                }
            }
            Ok(())
        });
        removed.await.map_err(|error| error.for_kubelet(reference))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LibraryError> + Send + 'static,
) -> Result<T, LibraryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(LibraryError::Io {
            doing: "using",
            path: std::path::PathBuf::from("the images"),
            source: std::io::Error::other(error),
        }),
    }
}
