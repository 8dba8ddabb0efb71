//! Compiled images: what they are, how a module becomes native code, and the cache on disk
//! that keeps the code. Which modules there are is `images`' business; running them is not
//! done here.

mod cache;
mod child;
mod compiler;
mod detect;
mod digest;
pub(crate) mod durable;
mod entries;
mod error;
mod key;
mod native;
mod types;

pub use self::cache::{ArtifactCache, ModuleBytes, ModuleSource};
pub use self::child::{compile_child, compile_child_main};
pub use self::compiler::{Compiler, CompilerProcess};
pub use self::detect::{Unrunnable, detect};
pub(crate) use self::digest::Hashing;
pub use self::digest::{Digest, DigestError};
pub use self::error::ArtifactError;
pub use self::types::{Artifact, ArtifactKind, Flavor, ImageConfig};
