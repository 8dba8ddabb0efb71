//! Containers as WebAssembly on wasmtime, behind the seam of `sampan-cri`.
//!
//! [`runtime::WasmRuntime`] implements `ContainerRuntime`; images, compilation and the cache
//! of compiled code are in `images` and `artifact`.

pub mod engine;
