//! Behaviour of the runtime, by guests written as WebAssembly text.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod commands;
mod compile;
mod cpu;
mod files;
mod guests;
mod http;
mod images;
mod logs;
mod node;
mod oci;
mod records;
mod sockets;
mod stop;
mod text;
