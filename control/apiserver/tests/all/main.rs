//! Behaviour of the API server: in process through `kube::Client` and raw requests, and over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod access;
mod discovery;
mod events;
mod extension;
mod harness;
mod lists;
mod objects;
mod pods;
mod tls;
mod watches;
