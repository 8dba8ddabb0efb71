//! Black-box tests: the built binary, driven by a real client over TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail loudly"
)]

mod agents;
mod api;
mod clocks;
mod cluster;
mod command_line;
mod etcd;
mod examples;
mod faults;
mod kube_apiserver;
mod machine;
mod pods;
mod restart;
mod servers;
mod snapshots;
mod upgrade;
