//! The one place where native code comes into the process. wasmtime checks that it was made
//! for this engine, not that nobody tampered with it: a changed byte is a changed program.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::{ArtifactKind, Flavor};

/// A file of compiled code whose authentication code has been checked through this descriptor.
pub(super) struct Verified(File);

impl Verified {
    /// Vouches for a file. Only the cache does so, after it checked the code's authenticity;
    /// files of the cache are never written after that.
    pub(super) fn vouch(file: File) -> Self {
        Self(file)
    }

    /// Maps the code.
    ///
    /// # Errors
    /// When it was not made for this engine.
    #[allow(
        unsafe_code,
        reason = "mapped code cannot be checked by the engine; the caller has vouched for it"
    )]
    pub(super) fn load(self, engine: &Engine, flavor: Flavor) -> wasmtime::Result<ArtifactKind> {
        // Components can only be mapped by path. This one leads to the descriptor that was
        // checked, whatever the name in the cache leads to by now.
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        // SAFETY: the file holds what the compiler made, unchanged (see `vouch`), and stays so:
        // it lies in a directory of our own and is removed, never written, while it is mapped.
        unsafe {
            match flavor {
                Flavor::CoreP1 => {
                    Module::deserialize_open_file(engine, self.0).map(ArtifactKind::CoreCommand)
                }
                Flavor::HttpP2 | Flavor::HttpP3 | Flavor::CommandP2 | Flavor::CommandP3 => {
                    Component::deserialize_file(engine, path).map(ArtifactKind::Component)
                }
            }
        }
    }
}
