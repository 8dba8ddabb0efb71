//! Containers as WebAssembly on wasmtime: engine, artifact cache, sandbox, limits, WASI, images, logs.
