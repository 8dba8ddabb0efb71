//! Reading images from files: a module, an OCI image layout, an archive of one (or of what
//! `docker save` writes). Everything that is read is checked against the digests that name it.
//! Nothing here knows names or the library; what is found is handed over as [`Found`].

mod archive;
mod layers;
mod layout;
mod limits;
mod oci;
mod saved;
mod source;
mod spin;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Reference;
use super::error::Fault;
use crate::artifact::{Digest, Flavor, ImageConfig, detect};

/// A blob in a file of its own, already checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub digest: Digest,
    pub size: u64,
    pub path: PathBuf,
}

/// An image that was found in a file and can run here.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its identity.
    pub id: Digest,
    /// Digests by which registries know it.
    pub digests: BTreeSet<Digest>,
    /// Its module.
    pub module: Blob,
    /// How that is run.
    pub flavor: Flavor,
    /// What the image says.
    pub config: ImageConfig,
    /// Manifest and configuration.
    pub documents: Vec<Blob>,
}

/// Reads the image in a file or directory. `wanted` chooses where there are several; files are
/// unpacked to `staging`.
pub(crate) fn read(path: &Path, wanted: &Reference, staging: &Path) -> Result<Found, Fault> {
    match source::kind(path)? {
        source::Kind::Module => bare(path),
        source::Kind::Layout => layout::read(path, wanted, staging),
        source::Kind::Archive => {
            let unpacked = staging.join("archive");
            archive::unpack(path, &unpacked)?;
            if unpacked.join(layout::INDEX).exists() {
                layout::read(&unpacked, wanted, staging)
            } else if unpacked.join(saved::MANIFEST).exists() {
                saved::read(&unpacked, wanted, staging)
            } else {
                Err(Fault::broken("the archive holds no image: neither index.json nor manifest.json"))
            }
        }
    }
}

fn bare(path: &Path) -> Result<Found, Fault> {
    let (module, flavor) = module(path)?;
    Ok(Found {
        id: module.digest,
        digests: BTreeSet::new(),
        module,
        flavor,
        config: ImageConfig::default(),
        documents: Vec::new(),
    })
}

/// Looks at a module and tells how it is run.
fn module(path: &Path) -> Result<(Blob, Flavor), Fault> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Fault::io("reading", path))?;
    file.take(limits::MODULE + 1).read_to_end(&mut bytes).map_err(Fault::io("reading", path))?;
    if bytes.len() as u64 > limits::MODULE {
        return Err(Fault::unsupported(format!("the module is larger than {} MiB", limits::MODULE >> 20)));
    }
    let flavor = detect(&bytes)?;
    Ok((Blob { digest: Digest::of(&bytes), size: bytes.len() as u64, path: path.to_owned() }, flavor))
}
