//! The node's images: what names mean, where images come from (the program, files, registries
//! some day), how they are kept. Compiling and mapping them is `artifact`'s.
//!
//! [`Library`] is what is on disk, also for the command line; [`ImageStore`] is the kubelet's
//! and the runtime's view of it.

mod embedded;
mod error;
mod import;
mod index;
mod library;
mod loaded;
mod media_type;
mod reference;
mod registry;
mod store;

pub use self::error::LibraryError;
pub use self::library::{Held, Library};
pub use self::reference::{Reference, ReferenceError};
pub use self::registry::RegistryClient;
pub use self::store::{ImageStore, OpenError};
