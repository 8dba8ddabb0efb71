//! An OCI image layout: `index.json` leads to manifests, manifests lead to configurations and
//! layers, all of them named by their digests and checked against them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::super::error::Fault;
use super::super::{Reference, media_type};
use super::oci::{Config, Descriptor, ImageIndex, Manifest, Platform};
use super::{Blob, Found, layers, limits, module, spin};
use crate::artifact::{Digest, ImageConfig};

/// The document at the root of a layout.
pub(super) const INDEX: &str = "index.json";
/// What an image is called, in an index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same, in full, by containerd.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Marks what is about an image, and none itself.
const ATTACHED: &str = "vnd.docker.reference.type";

/// A directory of blobs.
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The file that a descriptor leads to, after its content was checked.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Blob, Fault> {
        let digest: Digest =
            descriptor.digest.parse().map_err(|error| Fault::broken(format!("a descriptor: {error}")))?;
        let path = self.root.join("blobs/sha256").join(digest.hex());
        let mut file = File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Fault::broken(format!("the blob {digest} is missing")),
            _ => Fault::io("reading", &path)(error),
        })?;
        let (found, size) = Digest::of_reader(&mut file).map_err(Fault::io("reading", &path))?;
        if found != digest {
            return Err(Fault::broken(format!("the blob {digest} has the content of {found}")));
        }
        if size != descriptor.size {
            let stated = descriptor.size;
            return Err(Fault::broken(format!("the blob {digest} has {size} bytes, not {stated} as stated")));
        }
        Ok(Blob { digest, size, path })
    }

    /// The document that a descriptor leads to.
    pub(super) fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<(Blob, T), Fault> {
        let blob = self.blob(descriptor)?;
        let document = read_json(&blob.path, &descriptor.digest)?;
        Ok((blob, document))
    }
}

/// Reads a document of moderate size.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, name: &str) -> Result<T, Fault> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Fault::io("reading", path))?;
    file.take(limits::DOCUMENT + 1).read_to_end(&mut bytes).map_err(Fault::io("reading", path))?;
    if bytes.len() as u64 > limits::DOCUMENT {
        return Err(Fault::broken(format!("{name} is too large for a document")));
    }
    serde_json::from_slice(&bytes).map_err(|error| Fault::broken(format!("{name}: {error}")))
}

/// Reads the image in a layout.
pub(super) fn read(root: &Path, wanted: &Reference, staging: &Path) -> Result<Found, Fault> {
    let layout = Layout::new(root);
    let index: ImageIndex = read_json(&root.join(INDEX), INDEX)?;
    let mut candidates = Vec::new();
    collect(&layout, &index, &Candidate::default(), 0, &mut candidates)?;
    let chosen = choose(candidates, wanted)?;
    let mut found = image(&layout, &chosen.descriptor, staging)?;
    found.digests.extend(chosen.indexes);
    Ok(found)
}

/// An image that an index leads to.
#[derive(Clone, Debug)]
struct Candidate {
    descriptor: Descriptor,
    /// What it is called, there or further up.
    names: BTreeSet<String>,
    /// The indexes on the way, but for the layout's own.
    indexes: BTreeSet<Digest>,
}

impl Default for Candidate {
    fn default() -> Self {
        let descriptor = Descriptor {
            media_type: String::new(),
            digest: String::new(),
            size: 0,
            platform: None,
            annotations: std::collections::BTreeMap::new(),
        };
        Self { descriptor, names: BTreeSet::new(), indexes: BTreeSet::new() }
    }
}

impl Candidate {
    fn platform(&self) -> Platform {
        self.descriptor.platform.clone().unwrap_or_default()
    }

    fn is_named(&self, wanted: &Reference) -> bool {
        let full = wanted.to_string();
        self.names.iter().any(|name| {
            Some(name.as_str()) == wanted.tag()
                || name.parse::<Reference>().is_ok_and(|name| name.to_string() == full)
        })
    }
}

/// Walks an index.
fn collect(
    layout: &Layout,
    index: &ImageIndex,
    above: &Candidate,
    depth: usize,
    into: &mut Vec<Candidate>,
) -> Result<(), Fault> {
    if depth > limits::DEPTH {
        return Err(Fault::broken("indexes lie too deep in indexes"));
    }
    for descriptor in &index.manifests {
        if descriptor.annotations.contains_key(ATTACHED) {
            continue;
        }
        let mut here = above.clone();
        let annotated = [REF_NAME, CONTAINERD_NAME].iter().filter_map(|key| descriptor.annotations.get(*key));
        here.names.extend(annotated.cloned());
        here.descriptor = descriptor.clone();
        match media_type::document(&descriptor.media_type) {
            media_type::Document::Manifest => into.push(here),
            media_type::Document::Index => {
                let (blob, inner) = layout.document::<ImageIndex>(descriptor)?;
                here.indexes.insert(blob.digest);
                collect(layout, &inner, &here, depth + 1, into)?;
            }
            media_type::Document::Other => {
                tracing::debug!(media_type = descriptor.media_type, "no image: left aside");
            }
        }
    }
    Ok(())
}

/// Chooses the image that is wanted: by name where names tell, then by platform.
fn choose(mut candidates: Vec<Candidate>, wanted: &Reference) -> Result<Candidate, Fault> {
    if candidates.iter().any(|candidate| candidate.is_named(wanted)) {
        candidates.retain(|candidate| candidate.is_named(wanted));
    }
    let platforms: BTreeSet<_> =
        candidates.iter().map(|candidate| candidate.platform().to_string()).collect();
    let any = |candidates: &[Candidate], fits: fn(&Platform) -> bool| {
        candidates.iter().any(|candidate| fits(&candidate.platform()))
    };
    if any(&candidates, Platform::is_wasm) {
        candidates.retain(|candidate| candidate.platform().is_wasm());
        let best = candidates.iter().map(|candidate| candidate.platform().rank()).min();
        candidates.retain(|candidate| Some(candidate.platform().rank()) == best);
    } else if any(&candidates, Platform::is_unknown) {
        candidates.retain(|candidate| candidate.platform().is_unknown());
    }
    candidates.sort_by(|a, b| a.descriptor.digest.cmp(&b.descriptor.digest));
    candidates.dedup_by(|a, b| a.descriptor.digest == b.descriptor.digest);
    let mut candidates = candidates.into_iter();
    match (candidates.next(), candidates.next()) {
        (None, _) => Err(Fault::broken("the index names no image")),
        // One image may say that it is for Linux and be WebAssembly for all that.
        (Some(only), None) => Ok(only),
        (Some(first), Some(second)) => Err(ambiguous(&[first, second], &platforms)),
    }
}

fn ambiguous(candidates: &[Candidate], platforms: &BTreeSet<String>) -> Fault {
    if candidates.iter().any(|candidate| candidate.platform().is_wasm() || candidate.platform().is_unknown())
    {
        let names: Vec<_> = candidates.iter().flat_map(|candidate| candidate.names.iter().cloned()).collect();
        let names = if names.is_empty() { String::new() } else { format!(" ({}, …)", names.join(", ")) };
        return Fault::unsupported(format!("it holds several images{names}; the name given fits none alone"));
    }
    let platforms: Vec<_> = platforms.iter().map(String::as_str).collect();
    not_wasm(&platforms.join(", "))
}

/// A container image for other machines.
pub(super) fn not_wasm(platform: &str) -> Fault {
    Fault::unsupported(format!(
        "it is a container image for {platform}; this node runs WebAssembly (a wasm artifact, or an image for \
         wasi/wasm)"
    ))
}

/// Reads one image.
fn image(layout: &Layout, descriptor: &Descriptor, staging: &Path) -> Result<Found, Fault> {
    let (manifest_blob, manifest) = layout.document::<Manifest>(descriptor)?;
    if manifest.schema_version != 2 {
        let version = manifest.schema_version;
        return Err(Fault::unsupported(format!("manifests of schema version {version} are not supported")));
    }
    let kind = media_type::config(&manifest.config.media_type);
    if let Some(layer) = manifest
        .layers
        .iter()
        .find(|layer| media_type::layer(&layer.media_type) == media_type::Layer::Encrypted)
    {
        return Err(Fault::unsupported(format!("the layer {} is encrypted", layer.digest)));
    }
    let (config_blob, module, config) = match kind {
        media_type::Config::Wasm => {
            let (blob, config) = layout.document::<Config>(&manifest.config)?;
            if !config.platform().is_unknown() && !config.platform().is_wasm() {
                return Err(not_wasm(&config.platform().to_string()));
            }
            (Some(blob), sole_module(layout, &manifest)?, ImageConfig::default())
        }
        media_type::Config::Empty => (None, sole_module(layout, &manifest)?, ImageConfig::default()),
        media_type::Config::Spin => {
            let (blob, application) = layout.document::<spin::Application>(&manifest.config)?;
            (Some(blob), sole_module(layout, &manifest)?, application.image_config()?)
        }
        media_type::Config::Image => {
            let (blob, config) = layout.document::<Config>(&manifest.config)?;
            let module = container(layout, &manifest, &config, staging)?;
            (Some(blob), module, config.image_config())
        }
        media_type::Config::Other => {
            let media_type = &manifest.config.media_type;
            return Err(Fault::unsupported(format!(
                "a configuration of type {media_type:?} is not supported"
            )));
        }
    };
    let (module, flavor) = self::module(&module)?;
    Ok(Found {
        id: manifest_blob.digest,
        digests: BTreeSet::from([manifest_blob.digest]),
        module,
        flavor,
        config,
        documents: std::iter::once(manifest_blob).chain(config_blob).collect(),
    })
}

/// The module of an image that is nothing more than it.
fn sole_module(layout: &Layout, manifest: &Manifest) -> Result<PathBuf, Fault> {
    let is_module = |layer: &&Descriptor| media_type::layer(&layer.media_type) == media_type::Layer::Module;
    if let Some(other) = manifest.layers.iter().find(|layer| !is_module(layer)) {
        let media_type = &other.media_type;
        return Err(Fault::unsupported(format!(
            "it has a layer of type {media_type:?} beside its module; files of images are not supported yet"
        )));
    }
    match manifest.layers.as_slice() {
        [only] => Ok(layout.blob(only)?.path),
        [] => Err(Fault::broken("the image has no layer")),
        several => Err(Fault::unsupported(format!("it holds {} modules; one is supported", several.len()))),
    }
}

/// The module of a container image: a layer of its own, or a file in layers of files.
fn container(
    layout: &Layout,
    manifest: &Manifest,
    config: &Config,
    staging: &Path,
) -> Result<PathBuf, Fault> {
    let kinds: Vec<_> = manifest.layers.iter().map(|layer| media_type::layer(&layer.media_type)).collect();
    if kinds.contains(&media_type::Layer::Module) {
        return sole_module(layout, manifest);
    }
    if let Some(at) = kinds.iter().position(|kind| *kind != media_type::Layer::Files) {
        let media_type = manifest.layers.get(at).map(|layer| layer.media_type.as_str()).unwrap_or_default();
        return Err(Fault::unsupported(format!("a layer of type {media_type:?} is not supported")));
    }
    layers::refuse_other_platforms(config)?;
    let blobs: Result<Vec<_>, _> = manifest.layers.iter().map(|layer| layout.blob(layer)).collect();
    let paths: Vec<_> = blobs?.into_iter().map(|blob| blob.path).collect();
    layers::module(&paths, config, staging)
}
