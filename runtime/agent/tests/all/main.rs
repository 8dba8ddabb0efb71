//! Nodes and servers over real sockets of this machine, with a real API server in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests fail loudly"
)]

mod cluster;
mod connections;
#[path = "../../../kubelet/tests/all/fake_runtime.rs"]
#[allow(dead_code, reason = "the kubelet's own tests use the rest")]
mod fake_runtime;
mod kubelets;
mod local;
mod offline;
mod quorum;
mod relays;
mod tls;
