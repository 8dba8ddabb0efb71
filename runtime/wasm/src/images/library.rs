//! The images on disk, and those in the program:
//!
//! ```text
//! <images>/index.json            names, identities, modules
//! <images>/blobs/sha256/<hex>    manifests, configurations, modules
//! <images>/tmp/…                 imports under way
//! <images>/lock                  held while anything is changed
//! ```
//!
//! A node and any number of `sampan image` commands use it at the same time: changes are made
//! one after the other under the lock, readers see the index before or after a change and
//! never in between. Whenever the power fails, the index names only blobs that are whole; what
//! it does not name is removed with the next change. Everything here blocks.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use sampan_cri::ImageInfo;

use super::Reference;
use super::embedded::{self, Embedded};
use super::error::{Fault, LibraryError};
use super::import::{self, Blob, Found};
use super::index::{HANDLER, Index, Origin, Record, VERSION};
use crate::artifact::{Digest, Hashing, ImageConfig, ModuleBytes, ModuleSource, durable};

/// An image that the node holds, with what it takes to run it.
#[derive(Clone, Debug)]
pub struct Held {
    /// As the kubelet sees it.
    pub info: ImageInfo,
    /// Its module.
    pub module: ModuleSource,
    /// What the image says about how it is run.
    pub config: ImageConfig,
    /// Whether a registry may have a newer one under the same name.
    pub pulled: bool,
}

/// What directories that are being pulled to begin with.
const PULL: &str = "pull-";

/// What tells one version of the index from another.
type Stamp = (u64, i64, i64, u64);

/// The images under a directory. Cheap to open: nothing is read before it is needed.
pub struct Library {
    directory: PathBuf,
    blobs: PathBuf,
    tmp: PathBuf,
    read: Mutex<Option<(Stamp, Arc<Index>)>>,
}

/// Changes are under way until it is dropped.
struct Lock(#[expect(dead_code, reason = "held for the lock on it")] File);

impl Library {
    /// Opens the library under a directory that is its own.
    ///
    /// # Errors
    /// When the directory cannot be made or is not ours.
    pub fn open(directory: &Path) -> Result<Self, LibraryError> {
        let (blobs, tmp) = (directory.join("blobs/sha256"), directory.join("tmp"));
        for path in [directory, &blobs, &tmp] {
            durable::private_directory(path).map_err(LibraryError::io("opening", path))?;
        }
        Ok(Self { directory: directory.to_owned(), blobs, tmp, read: Mutex::default() })
    }

    /// The image that a reference leads to: a name, a name with a digest, or an identity.
    ///
    /// # Errors
    /// When the reference does not parse or the index cannot be read.
    pub fn find(&self, reference: &str) -> Result<Option<Held>, LibraryError> {
        if let Ok(id) = reference.parse::<Digest>()
            && let Some(held) = self.identified(&id)?
        {
            return Ok(Some(held));
        }
        let name = parse(reference)?;
        if let Some(image) = built_in(&name) {
            return Ok(Some(image.held()));
        }
        Ok(self.index()?.named(&name).map(|record| self.held(record)))
    }

    /// The image of an identity, `sha256:…`.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn identified(&self, id: &Digest) -> Result<Option<Held>, LibraryError> {
        if let Some(image) = embedded::all().iter().find(|image| image.module.digest == *id) {
            return Ok(Some(image.held()));
        }
        Ok(self.index()?.identified(id).map(|record| self.held(record)))
    }

    /// All images: those in the program first.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<Held>, LibraryError> {
        let index = self.index()?;
        let imported = index.images.iter().map(|record| self.held(record));
        Ok(embedded::all().iter().map(Embedded::held).chain(imported).collect())
    }

    /// The modules of all images.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn modules(&self) -> Result<HashSet<Digest>, LibraryError> {
        Ok(self.list()?.into_iter().map(|held| held.module.digest).collect())
    }

    /// Makes the image in a file (a module, an OCI layout, an archive of one) available under a
    /// name. If the name led elsewhere, it does no longer; an image without names is dropped.
    ///
    /// # Errors
    /// When the name or the file is none, or cannot be run here; nothing has changed then.
    pub fn import(&self, name: &str, file: &Path) -> Result<Held, LibraryError> {
        let reference = parse(name)?;
        if reference.digest().is_some() {
            return Err(LibraryError::DigestGiven(name.to_owned()));
        }
        if built_in(&reference).is_some() {
            return Err(LibraryError::BuiltIn(reference.to_string()));
        }
        self.add(&reference, file, Origin::Imported)
    }

    /// A directory for a registry's client to fetch an image to.
    pub(crate) fn staging(&self) -> Result<tempfile::TempDir, LibraryError> {
        // Beside `tmp`, which belongs to whoever holds the lock.
        tempfile::Builder::new()
            .prefix(PULL)
            .tempdir_in(&self.directory)
            .map_err(LibraryError::io("making a directory in", &self.directory))
    }

    /// Removes what pulls left that a crash broke off. Only the node pulls, so only it may call
    /// this, and only when it starts.
    pub(crate) fn clear_pulls(&self) -> Result<(), LibraryError> {
        let directory = &self.directory;
        for name in durable::names(directory).map_err(LibraryError::io("reading", directory))? {
            if name.as_encoded_bytes().starts_with(PULL.as_bytes()) {
                let path = directory.join(&name);
                durable::remove(&path).map_err(LibraryError::io("removing", &path))?;
            }
        }
        Ok(())
    }

    /// Takes in what a registry's client fetched.
    pub(crate) fn pulled(&self, reference: &Reference, layout: &Path) -> Result<Held, LibraryError> {
        self.add(reference, layout, Origin::Pulled)
    }

    fn add(&self, reference: &Reference, file: &Path, origin: Origin) -> Result<Held, LibraryError> {
        let _lock = self.lock()?;
        let staging =
            tempfile::tempdir_in(&self.tmp).map_err(LibraryError::io("making a directory in", &self.tmp))?;
        let found = import::read(file, reference, staging.path()).map_err(|fault| fault.of(file))?;
        if let Some(digest) = reference.digest()
            && !found.digests.iter().any(|found| found.to_string() == digest)
        {
            return Err(Fault::broken(format!("it is not {digest}")).of(file));
        }
        let blobs: Vec<_> = std::iter::once(&found.module).chain(&found.documents).collect();
        for blob in &blobs {
            self.adopt(blob).map_err(|fault| fault.of(file))?;
        }
        let blobs_path = &self.blobs;
        durable::sync_directory(blobs_path).map_err(LibraryError::io("writing", blobs_path))?;
        let record = record(&found, origin);
        let held = self.held(&record);
        let mut index = Index::clone(&*self.index()?);
        index.add(reference, record);
        self.write(&index)?;
        let written = index.identified(&found.id);
        Ok(written.map_or(held, |record| self.held(record)))
    }

    /// Forgets a name, and the image with its last one; by identity (or the beginning of one)
    /// or digest, the image with all names. Says whether there was anything to forget.
    ///
    /// # Errors
    /// For images in the program, and when the index cannot be changed.
    pub fn remove(&self, reference: &str) -> Result<bool, LibraryError> {
        let name = reference.parse::<Reference>().ok();
        let id = reference.parse::<Digest>().ok();
        let held = embedded::all().iter().find(|image| {
            Some(image.module.digest) == id
                || name.as_ref().is_some_and(|name| name.to_string() == image.name)
        });
        if let Some(image) = held {
            return Err(LibraryError::BuiltIn(image.name.to_owned()));
        }
        let _lock = self.lock()?;
        let mut index = Index::clone(&*self.index()?);
        if !index.remove(reference) {
            return Ok(false);
        }
        self.write(&index)?;
        Ok(true)
    }

    fn held(&self, record: &Record) -> Held {
        let bytes = ModuleBytes::File(self.blobs.join(record.module.hex()));
        Held {
            info: record.info(),
            module: ModuleSource { digest: record.module, flavor: record.flavor, bytes },
            config: record.config.clone(),
            pulled: record.origin == Origin::Pulled,
        }
    }

    /// Waits for its turn to change something, and clears away what an earlier one left.
    fn lock(&self) -> Result<Lock, LibraryError> {
        let path = self.directory.join("lock");
        let io = |doing| LibraryError::io(doing, &path);
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(io("opening"))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io("locking")(error.into())),
            }
        }
        durable::remove(&self.tmp)
            .and_then(|()| durable::private_directory(&self.tmp))
            .map_err(LibraryError::io("clearing", &self.tmp))?;
        Ok(Lock(file))
    }

    /// Copies a blob into the library unless it is there, whole.
    fn adopt(&self, blob: &Blob) -> Result<(), Fault> {
        let path = self.blobs.join(blob.digest.hex());
        let there = File::open(&path).and_then(|mut file| Digest::of_reader(&mut file));
        if there.is_ok_and(|(found, _)| found == blob.digest) {
            return Ok(());
        }
        let mut from = File::open(&blob.path).map_err(Fault::io("reading", &blob.path))?;
        let file = tempfile::NamedTempFile::new_in(&self.tmp).map_err(Fault::io("writing", &self.tmp))?;
        let mut to = Hashing::new(file);
        io::copy(&mut from, &mut to).map_err(Fault::io("writing", &path))?;
        to.get_ref().as_file().sync_all().map_err(Fault::io("writing", &path))?;
        let (digest, file) = to.into_parts();
        if digest != blob.digest {
            return Err(Fault::broken("it changed while it was read"));
        }
        file.persist(&path).map_err(|error| Fault::io("writing", &path)(error.error))?;
        Ok(())
    }

    /// The index as it is now.
    fn index(&self) -> Result<Arc<Index>, LibraryError> {
        let path = self.path();
        let stamp = match fs::metadata(&path) {
            Ok(found) => (found.ino(), found.mtime(), found.mtime_nsec(), found.size()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(LibraryError::io("reading", &path)(error)),
        };
        if let Some((known, index)) = &*self.read.lock()
            && *known == stamp
        {
            return Ok(index.clone());
        }
        let bytes = fs::read(&path).map_err(LibraryError::io("reading", &path))?;
        let damaged = |why: String| LibraryError::Index { path: path.clone(), why };
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if index.version != VERSION {
            return Err(damaged(format!("version {} of it is not known here", index.version)));
        }
        let index = Arc::new(index);
        *self.read.lock() = Some((stamp, index.clone()));
        Ok(index)
    }

    /// Puts a new index in place and removes the blobs that it does not name.
    fn write(&self, index: &Index) -> Result<(), LibraryError> {
        let path = self.path();
        let bytes = serde_json::to_vec_pretty(index)
            .map_err(|error| LibraryError::io("writing", &path)(error.into()))?;
        durable::replace(&path, &bytes).map_err(LibraryError::io("writing", &path))?;
        let wanted: HashSet<OsString> = index.blobs().iter().map(|blob| blob.hex().into()).collect();
        for name in durable::names(&self.blobs).map_err(LibraryError::io("reading", &self.blobs))? {
            if !wanted.contains(&name) {
                let blob = self.blobs.join(&name);
                durable::remove(&blob).map_err(LibraryError::io("removing", &blob))?;
            }
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.directory.join("index.json")
    }
}

impl Embedded {
    fn held(&self) -> Held {
        Held {
            info: ImageInfo {
                id: self.module.digest.to_string(),
                names: vec![self.name.to_owned()],
                digests: Vec::new(),
                size_bytes: self.size,
                handler: HANDLER.to_owned(),
            },
            module: self.module.clone(),
            config: self.config.clone(),
            pulled: false,
        }
    }
}

fn parse(name: &str) -> Result<Reference, LibraryError> {
    name.parse().map_err(|source| LibraryError::Name { name: name.to_owned(), source })
}

fn built_in(name: &Reference) -> Option<&'static Embedded> {
    let name = name.to_string();
    embedded::all().iter().find(|image| image.name == name)
}

fn record(found: &Found, origin: Origin) -> Record {
    let blobs = std::iter::once(&found.module).chain(&found.documents);
    Record {
        id: found.id,
        names: std::collections::BTreeSet::new(),
        digests: found.digests.clone(),
        origin,
        module: found.module.digest,
        flavor: found.flavor,
        config: found.config.clone(),
        blobs: blobs.clone().map(|blob| blob.digest).collect(),
        size: blobs.map(|blob| blob.size).sum(),
    }
}
