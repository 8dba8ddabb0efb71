//! Builds OCI image layouts, and archives of them, for tests.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sampan_wasm::artifact::Digest;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const IMAGE: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const WASM: &str = "application/vnd.wasm.config.v0+json";
pub(crate) const SPIN: &str = "application/vnd.fermyon.spin.application.v1+config";
pub(crate) const MODULE: &str = "application/wasm";
pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layout in a directory of its own.
pub(crate) struct Layout(tempfile::TempDir);

impl Layout {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where a blob lies.
    pub(crate) fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        self.path().join("blobs/sha256").join(digest.hex())
    }

    /// Adds a blob; gives its descriptor.
    pub(crate) fn blob(&self, media_type: &str, content: &[u8]) -> Value {
        let digest = Digest::of(content);
        let descriptor =
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": content.len()});
        fs::write(self.blob_path(&descriptor), content).unwrap();
        descriptor
    }

    pub(crate) fn document(&self, media_type: &str, content: &Value) -> Value {
        self.blob(media_type, content.to_string().as_bytes())
    }

    /// Adds a manifest.
    pub(crate) fn manifest(&self, config: &Value, layers: &[Value]) -> Value {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.document(MANIFEST, &manifest)
    }

    /// Writes the layout's own index.
    pub(crate) fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    /// A WebAssembly artifact; gives its manifest.
    pub(crate) fn artifact(&self, module: &[u8]) -> Value {
        let config =
            self.document(WASM, &json!({"architecture": "wasm", "os": "wasip2", "layerDigests": []}));
        let layer = self.blob(MODULE, module);
        let manifest = self.manifest(&config, &[layer]);
        self.index(std::slice::from_ref(&manifest));
        manifest
    }

    /// A container image of layers, each compressed in its own way; gives its manifest.
    pub(crate) fn container(&self, platform: (&str, &str), execution: &Value, layers: &[&[u8]]) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({
            "os": platform.0, "architecture": platform.1, "config": execution,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.document(IMAGE, &config);
        let layers: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(number, layer)| match number % 3 {
                0 => self.blob(&format!("{TAR}+gzip"), &gzip(layer)),
                1 => self.blob(&format!("{TAR}+zstd"), &zstd::encode_all(*layer, 1).unwrap()),
                _ => self.blob(TAR, layer),
            })
            .collect();
        let manifest = self.manifest(&config, &layers);
        self.index(std::slice::from_ref(&manifest));
        manifest
    }

    /// All of it as an archive.
    pub(crate) fn archive(&self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        builder.append_dir_all(".", self.path()).unwrap();
        builder.into_inner().unwrap()
    }
}

/// With further fields.
pub(crate) fn with(mut descriptor: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        descriptor[name] = value.clone();
    }
    descriptor
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive of files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}
