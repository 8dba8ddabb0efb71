//! The list of imported images: names to identities to modules. Pure; `library` keeps it on disk.

use std::collections::BTreeSet;

use sampan_cri::ImageInfo;
use serde::{Deserialize, Serialize};

use super::Reference;
use crate::artifact::{Digest, Flavor, ImageConfig};

/// The version of the file that is written and read.
pub(crate) const VERSION: u32 = 1;
/// The handler that runs all images here.
pub(crate) const HANDLER: &str = "wasm";
/// The fewest digits by which an image is called.
const MIN_PREFIX: usize = 6;

/// Where an image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// A user gave it: it is never looked for elsewhere.
    Imported,
    /// A registry.
    Pulled,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its identity: the digest of its manifest, of its configuration where it has no manifest,
    /// of its module where it is nothing more.
    pub id: Digest,
    /// The references that keep it.
    pub names: BTreeSet<String>,
    /// Digests of manifest and index: `name@digest` leads to it.
    pub digests: BTreeSet<Digest>,
    /// Where it came from.
    pub origin: Origin,
    /// Its module.
    pub module: Digest,
    /// How that is run.
    pub flavor: Flavor,
    /// What the image says.
    pub config: ImageConfig,
    /// All its blobs, the module among them.
    pub blobs: BTreeSet<Digest>,
    /// Their size in bytes.
    pub size: u64,
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    pub version: u32,
    pub images: Vec<Record>,
}

impl Default for Index {
    fn default() -> Self {
        Self { version: VERSION, images: Vec::new() }
    }
}

impl Index {
    /// Adds an image under a name, which leads nowhere else from then on. An image without
    /// names is dropped.
    pub(crate) fn add(&mut self, name: &Reference, mut image: Record) {
        let name = name.to_string();
        self.images.iter_mut().for_each(|other| {
            other.names.remove(&name);
        });
        if let Some(known) = self.images.iter().position(|known| known.id == image.id) {
            let known = self.images.swap_remove(known);
            image.names.extend(known.names);
            image.digests.extend(known.digests);
        }
        image.names.insert(name);
        self.images.push(image);
        self.drop_nameless();
    }

    /// The image that a reference leads to: its digest if it has one, else its name.
    pub(crate) fn named(&self, reference: &Reference) -> Option<&Record> {
        let Some(digest) = reference.digest() else {
            let name = reference.to_string();
            return self.images.iter().find(|image| image.names.contains(&name));
        };
        let digest: Digest = digest.parse().ok()?;
        let repository = reference.repository();
        self.images.iter().find(|image| {
            image.digests.contains(&digest) && image.repositories().any(|known| known == repository)
        })
    }

    /// The image of an identity.
    pub(crate) fn identified(&self, id: &Digest) -> Option<&Record> {
        self.images.iter().find(|image| image.id == *id)
    }

    /// The image whose identity begins so, if there is just one; `sha256:` may stand before it.
    pub(crate) fn abbreviated(&self, prefix: &str) -> Option<&Record> {
        let prefix = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if prefix.len() < MIN_PREFIX {
            return None;
        }
        let mut matching = self.images.iter().filter(|image| image.id.hex().starts_with(prefix));
        matching.next().filter(|_| matching.next().is_none())
    }

    /// Removes a name, and the image with its last one; by digest or identity, the image with
    /// all its names. Says whether anything was removed.
    pub(crate) fn remove(&mut self, reference: &str) -> bool {
        let name: Option<Reference> = reference.parse().ok();
        let named = name.as_ref().and_then(|name| Some((name, self.named(name)?.id)));
        let identified = || {
            let image = reference.parse().ok().and_then(|id| self.identified(&id));
            image.or_else(|| self.abbreviated(reference)).map(|image| image.id)
        };
        let (id, only) = match named {
            Some((name, id)) if name.digest().is_none() => (id, Some(name.to_string())),
            Some((_, id)) => (id, None),
            None => match identified() {
                Some(id) => (id, None),
                None => return false,
            },
        };
        for image in self.images.iter_mut().filter(|image| image.id == id) {
            image.names.retain(|name| only.as_ref().is_some_and(|only| name != only));
        }
        self.drop_nameless();
        true
    }

    fn drop_nameless(&mut self) {
        self.images.retain(|image| !image.names.is_empty());
        self.images.sort_by(|a, b| a.names.cmp(&b.names));
    }

    /// All blobs that some image needs.
    pub(crate) fn blobs(&self) -> BTreeSet<Digest> {
        self.images.iter().flat_map(|image| image.blobs.iter().copied()).collect()
    }
}

impl Record {
    fn references(&self) -> impl Iterator<Item = Reference> {
        self.names.iter().filter_map(|name| name.parse().ok())
    }

    fn repositories(&self) -> impl Iterator<Item = String> {
        let repositories: BTreeSet<_> = self.references().map(|name| name.repository()).collect();
        repositories.into_iter()
    }

    /// As the kubelet sees it.
    pub(crate) fn info(&self) -> ImageInfo {
        let tagged = self.references().filter(|name| name.digest().is_none());
        let digests = self
            .repositories()
            .flat_map(|repository| self.digests.iter().map(move |digest| format!("{repository}@{digest}")));
        ImageInfo {
            id: self.id.to_string(),
            names: tagged.map(|name| name.to_string()).collect(),
            digests: digests.collect(),
            size_bytes: self.size,
            handler: HANDLER.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &str, manifest: Option<&str>) -> Record {
        let module = Digest::of(content.as_bytes());
        Record {
            id: manifest.map_or(module, |manifest| Digest::of(manifest.as_bytes())),
            names: BTreeSet::new(),
            digests: manifest.map(|manifest| Digest::of(manifest.as_bytes())).into_iter().collect(),
            origin: Origin::Imported,
            module,
            flavor: Flavor::CoreP1,
            config: ImageConfig::default(),
            blobs: BTreeSet::from([module]),
            size: 1,
        }
    }

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn index(images: &[(&str, &Record)]) -> Index {
        let mut index = Index::default();
        images.iter().for_each(|(text, image)| index.add(&name(text), (*image).clone()));
        index
    }

    #[test]
    fn names_and_digests_lead_to_images() {
        let (bare, oci) = (record("1", None), record("2", Some("m")));
        let index = index(&[("a/bare", &bare), ("x.io/oci:v1", &oci), ("x.io/other:v2", &oci)]);
        let manifest = Digest::of(b"m");
        for (reference, expected) in [
            ("a/bare".to_owned(), Some(bare.id)),
            ("docker.io/a/bare:latest".to_owned(), Some(bare.id)),
            ("a/bare:v2".to_owned(), None),
            ("x.io/oci:v1".to_owned(), Some(oci.id)),
            (format!("x.io/oci@{manifest}"), Some(oci.id)),
            (format!("x.io/oci:whatever@{manifest}"), Some(oci.id)),
            (format!("x.io/other@{manifest}"), Some(oci.id)),
            (format!("y.io/oci@{manifest}"), None),
            (format!("x.io/oci@{}", bare.id), None),
        ] {
            assert_eq!(index.named(&name(&reference)).map(|image| image.id), expected, "{reference}");
        }
    }

    #[test]
    fn a_name_leads_to_what_was_added_last_and_what_has_no_name_goes() {
        let (one, two) = (record("1", None), record("2", None));
        let mut index = index(&[("a", &one), ("b", &one), ("a", &two)]);
        assert_eq!(index.named(&name("a")).unwrap().id, two.id);
        assert_eq!(index.named(&name("b")).unwrap().id, one.id);
        index.add(&name("b"), two.clone());
        assert!(index.identified(&one.id).is_none());
        assert_eq!(index.blobs(), BTreeSet::from([two.module]));
        assert_eq!(index.images[0].names.len(), 2);
    }

    #[test]
    fn a_name_is_removed_alone_and_an_identity_with_all_names() {
        let (one, two) = (record("1", Some("m1")), record("2", Some("m2")));
        let images = [("a", &one), ("b", &one), ("c", &two)];
        let left = |reference: &str| {
            let mut index = index(&images);
            let removed = index.remove(reference);
            let names = index.images.iter().flat_map(|image| image.info().names);
            (removed, names.map(|name| name.replace("docker.io/library/", "")).collect::<Vec<_>>().join(" "))
        };
        let (id, hex) = (one.id.to_string(), one.id.hex());
        for (reference, removed, expected) in [
            ("a", true, "b:latest c:latest"),
            ("c:latest", true, "a:latest b:latest"),
            (id.as_str(), true, "c:latest"),
            (hex.as_str(), true, "c:latest"),
            (&hex[..12], true, "c:latest"),
            (&format!("a@{id}"), true, "c:latest"),
            (&hex[..5], false, "a:latest b:latest c:latest"),
            ("d", false, "a:latest b:latest c:latest"),
            ("NO NAME", false, "a:latest b:latest c:latest"),
        ] {
            assert_eq!(left(reference), (removed, expected.to_owned()), "{reference}");
        }
    }

    #[test]
    fn the_kubelet_sees_tags_and_digests() {
        let index = index(&[("a:v1", &record("1", Some("m")))]);
        let info = index.images[0].info();
        assert_eq!(info.names, ["docker.io/library/a:v1"]);
        assert_eq!(info.digests, [format!("docker.io/library/a@{}", Digest::of(b"m"))]);
    }
}
