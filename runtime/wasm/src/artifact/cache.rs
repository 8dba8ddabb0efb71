//! Compiled code for whoever runs a module: from the disk if it was compiled before, else from
//! the compiler. However many ask for one module at a time, it is compiled once; however many
//! modules are asked for, few are compiled at a time, so that a burst of pods does not starve
//! the node.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _, Shared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::entries::{Entries, engine_name};
use super::{ArtifactError, ArtifactKind, Compiler, Digest, Flavor};
use crate::engine::{EngineClass, Engines};

/// Where a module's bytes are.
#[derive(Clone, Debug)]
pub enum ModuleBytes {
    /// In this program.
    Embedded(&'static [u8]),
    /// In a file that does not change.
    File(PathBuf),
}

impl ModuleBytes {
    /// The bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self) -> io::Result<Cow<'static, [u8]>> {
        match self {
            Self::Embedded(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => std::fs::read(path).map(Cow::Owned),
        }
    }
}

/// A module that can be compiled.
#[derive(Clone, Debug)]
pub struct ModuleSource {
    /// The digest of its bytes.
    pub digest: Digest,
    /// How it is run.
    pub flavor: Flavor,
    /// Its bytes.
    pub bytes: ModuleBytes,
}

type Outcome = Result<ArtifactKind, ArtifactError>;
type Underway = Shared<BoxFuture<'static, Outcome>>;

struct Inner {
    engines: Engines,
    entries: Entries,
    compiler: Compiler,
    permits: Semaphore,
    underway: Mutex<HashMap<Digest, Underway>>,
}

/// The cache. Clones share it.
#[derive(Clone)]
pub struct ArtifactCache {
    inner: Arc<Inner>,
}

impl ArtifactCache {
    /// Opens the cache under a directory that is its own. Blocks for a moment.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(directory: &Path, engines: Engines, compiler: Compiler) -> Result<Self, ArtifactError> {
        // Both classes take the same code (the engine's tests hold them to it).
        let engine = engine_name(engines.get(EngineClass::Command));
        let entries = Entries::open(directory, engine)
            .map_err(ArtifactError::cache("opening the cache of compiled code"))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            engines,
            entries,
            compiler,
            permits: Semaphore::new((cores / 2).max(1)),
            underway: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The compiled code of a module, mapped into the engine of its class.
    ///
    /// # Errors
    /// See [`ArtifactError`].
    pub async fn load(&self, module: &ModuleSource) -> Result<ArtifactKind, ArtifactError> {
        let underway = {
            let mut all = self.inner.underway.lock();
            match all.get(&module.digest) {
                Some(underway) => underway.clone(),
                None => {
                    let underway = self.inner.clone().begin(module.clone());
                    all.insert(module.digest, underway.clone());
                    underway
                }
            }
        };
        underway.await
    }

    /// Forgets the compiled code of all modules but these. Code in use stays mapped. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn retain(&self, modules: &HashSet<Digest>) -> Result<(), ArtifactError> {
        // What is being compiled now is wanted by somebody.
        let mut wanted = modules.clone();
        wanted.extend(self.inner.underway.lock().keys());
        let doing = "cleaning the cache of compiled code";
        self.inner.entries.retain(&wanted).map_err(ArtifactError::cache(doing))
    }
}

impl Inner {
    /// Starts the work as a task: it goes on if whoever asked first goes away.
    fn begin(self: Arc<Self>, module: ModuleSource) -> Underway {
        let task = tokio::spawn(async move {
            let outcome = self.obtain(&module).await;
            self.underway.lock().remove(&module.digest);
            outcome
        });
        let joined = task.map(|joined| {
            joined.unwrap_or_else(|error| Err(ArtifactError::Compiler(format!("broken off: {error}"))))
        });
        joined.boxed().shared()
    }

    async fn obtain(self: &Arc<Self>, module: &ModuleSource) -> Outcome {
        if let Some(kind) = self.from_disk(module).await? {
            return Ok(kind);
        }
        let started = std::time::Instant::now();
        self.compile(module).await?;
        tracing::info!(module = %module.digest, took = ?started.elapsed(), "compiled");
        let compiled = self.from_disk(module).await?;
        compiled.ok_or_else(|| ArtifactError::Compiler("its code does not load".to_owned()))
    }

    async fn from_disk(
        self: &Arc<Self>,
        module: &ModuleSource,
    ) -> Result<Option<ArtifactKind>, ArtifactError> {
        let (inner, digest, flavor) = (self.clone(), module.digest, module.flavor);
        blocking("reading compiled code", move || {
            let Some(verified) = inner.entries.find(&digest)? else { return Ok(None) };
            match verified.load(inner.engines.get(flavor.engine_class()), flavor) {
                Ok(kind) => Ok(Some(kind)),
                Err(error) => {
                    tracing::warn!(module = %digest, error = %format!("{error:#}"), "compiled code does not load");
                    inner.entries.remove(&digest)?;
                    Ok(None)
                }
            }
        })
        .await
    }

    async fn compile(self: &Arc<Self>, module: &ModuleSource) -> Result<(), ArtifactError> {
        // Closed never.
        let _permit = self.permits.acquire().await;
        let inner = self.clone();
        let draft = blocking("making room for compiled code", move || inner.entries.draft()).await?;
        self.compiler.compile(&module.digest, &module.bytes, &draft.code()).await?;
        let (inner, digest) = (self.clone(), module.digest);
        blocking("keeping compiled code", move || inner.entries.complete(draft, &digest)).await
    }
}

async fn blocking<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ArtifactError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten().map_err(ArtifactError::cache(doing))
}
