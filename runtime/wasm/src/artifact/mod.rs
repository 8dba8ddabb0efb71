//! Compiled images: what they are, and the cache that keeps them.

mod types;

pub use self::types::{Artifact, ArtifactKind, Flavor, ImageConfig};
