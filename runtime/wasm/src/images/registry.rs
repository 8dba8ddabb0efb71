//! The seam to registries. No client exists yet: without one, images are embedded or imported.

use std::path::Path;

use async_trait::async_trait;
use sampan_cri::PullCredentials;

use super::Reference;

/// Fetches images from registries.
#[async_trait]
pub trait RegistryClient: Send + Sync + 'static {
    /// Fetches what `reference` names and lays it out in the empty directory `layout` as an OCI
    /// image layout: `index.json` and `blobs/`. Whoever calls checks every digest again. Each of
    /// the credentials is for the reference's registry; they are tried in order.
    ///
    /// # Errors
    /// A text for the user: why the image could not be fetched.
    async fn fetch(
        &self,
        reference: &Reference,
        credentials: &[PullCredentials],
        layout: &Path,
    ) -> Result<(), String>;
}
