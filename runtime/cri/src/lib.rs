//! The seam between the kubelet and what runs containers.
//!
//! The shape is that of Kubernetes' Container Runtime Interface (CRI v1): pod sandboxes hold
//! containers; the kubelet drives both and observes them by listing and by events. One
//! implementation hosts WebAssembly in process; another will speak to a CRI socket. This
//! crate does no I/O.

mod image;
mod runtime;
mod types;

pub use image::{ImageError, ImageInfo, ImageService, PullCredentials};
pub use runtime::{ContainerRuntime, EventStream, RuntimeError};
pub use types::*;
