//! Containers as WebAssembly on wasmtime, behind the seam of `sampan-cri`.
//!
//! [`runtime::WasmRuntime`] implements `ContainerRuntime`; images, compilation and the cache
//! of compiled code are in `images` and `artifact`.

pub mod artifact;
pub mod engine;
pub mod images;
pub mod runtime;

mod command;
mod command_line;
mod container;
mod cpu;
mod exit;
mod fs;
mod guest;
mod handler;
mod host_ports;
mod launch;
mod lifecycle;
mod logs;
mod memory;
mod net;
mod node;
mod outgoing;
mod program;
mod record;
mod self_test;
mod stdin;
mod threads;

pub use artifact::compile_child_main;
pub use handler::HandlerSettings;
pub use logs::Rotation;
pub use net::{HostNetwork, PodNetwork, ResolveError};
pub use node::NodeFacts;
pub use runtime::{ArtifactSource, RuntimeConfig, WasmRuntime};
pub use self_test::{SelfTestError, self_test};
