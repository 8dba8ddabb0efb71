//! Images: resolving, pulling, listing and removing them.

use async_trait::async_trait;

/// An image that the node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The image's identity on this node: `sha256:<hex>` of its manifest or module.
    pub id: String,
    /// Names (with tags) that resolve to it, normalised, most wanted first.
    pub names: Vec<String>,
    /// `name@sha256:…` references, where it came from a registry or layout.
    pub digests: Vec<String>,
    /// Bytes on disk (of an embedded image: in the binary).
    pub size_bytes: u64,
    /// The runtime handler that can run it: `wasm` or `oci`.
    pub handler: String,
}

/// Credentials for a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullCredentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// Why an image could not be had. The variants are Kubernetes' waiting reasons.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference does not parse (`InvalidImageName`).
    #[error("couldn't parse image name {name:?}: {why}")]
    InvalidName {
        /// The reference.
        name: String,
        /// Why it does not parse.
        why: String,
    },
    /// The image is not on the node and could not be fetched (`ErrImagePull`).
    #[error("failed to pull image {name:?}: {why}")]
    Pull {
        /// The reference.
        name: String,
        /// Why it could not be fetched.
        why: String,
    },
    /// The image is there, but is nothing that a runtime here can run (`ImageInspectError`).
    #[error("image {name:?} cannot be run here: {why}")]
    Unsupported {
        /// The reference.
        name: String,
        /// Why it cannot run here.
        why: String,
    },
    /// The image store failed.
    #[error("image store: {0}")]
    Store(String),
}

/// The node's images.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// The image that `reference` names, if the node holds it (embedded, imported or pulled).
    async fn status(&self, reference: &str) -> Result<Option<ImageInfo>, ImageError>;

    /// Fetches `reference` and makes it ready to start (compiled). Returns at once with the
    /// image where the node holds it and the reference is embedded or was imported.
    async fn pull(&self, reference: &str, credentials: &[PullCredentials]) -> Result<ImageInfo, ImageError>;

    /// All images that the node holds.
    async fn list(&self) -> Result<Vec<ImageInfo>, ImageError>;

    /// Forgets an image by name or id.
    async fn remove(&self, reference: &str) -> Result<(), ImageError>;
}
