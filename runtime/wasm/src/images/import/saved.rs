//! What `docker save` wrote before it wrote OCI layouts: `manifest.json` names configurations
//! and layers by their place in the archive.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::Reference;
use super::super::error::Fault;
use super::archive::inside;
use super::layout::read_json;
use super::oci::Config;
use super::{Blob, Found, layers, module};
use crate::artifact::Digest;

/// The document at the root of such an archive.
pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads the image in an unpacked archive.
pub(super) fn read(root: &Path, wanted: &Reference, staging: &Path) -> Result<Found, Fault> {
    let all: Vec<Saved> = read_json(&root.join(MANIFEST), MANIFEST)?;
    let saved = choose(&all, wanted)?;
    let path = file(root, &saved.config)?;
    let config: Config = read_json(&path, &saved.config)?;
    let mut opened = File::open(&path).map_err(Fault::io("reading", &path))?;
    let (digest, size) = Digest::of_reader(&mut opened).map_err(Fault::io("reading", &path))?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if Digest::from_hex(&stem).is_some_and(|named| named != digest) {
        return Err(Fault::broken(format!("the configuration {stem} has the content of {digest}")));
    }
    layers::refuse_other_platforms(&config)?;
    let paths: Result<Vec<_>, _> = saved.layers.iter().map(|layer| file(root, layer)).collect();
    let (module, flavor) = module(&layers::module(&paths?, &config, staging)?)?;
    Ok(Found {
        id: digest,
        digests: BTreeSet::new(),
        module,
        flavor,
        config: config.image_config(),
        documents: vec![Blob { digest, size, path }],
    })
}

fn choose<'a>(all: &'a [Saved], wanted: &Reference) -> Result<&'a Saved, Fault> {
    let wanted = wanted.to_string();
    let named = all.iter().find(|saved| {
        let mut tags = saved.repo_tags.iter().flatten().filter_map(|tag| tag.parse::<Reference>().ok());
        tags.any(|tag| tag.to_string() == wanted)
    });
    match (named, all) {
        (Some(named), _) => Ok(named),
        (None, [only]) => Ok(only),
        (None, []) => Err(Fault::broken("the archive names no image")),
        (None, _) => Err(Fault::unsupported("it holds several images; the name given fits none")),
    }
}

/// A file of the archive by its name there.
fn file(root: &Path, name: &str) -> Result<PathBuf, Fault> {
    let path = root.join(inside(name.as_bytes())?);
    if path.is_file() { Ok(path) } else { Err(Fault::broken(format!("{name} is missing from the archive"))) }
}
