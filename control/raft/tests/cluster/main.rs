//! Members together in one process: over streams in memory that can be cut, and over QUIC on
//! loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail loudly"
)]

mod conformance;
mod failover;
mod levels;
mod membership;
mod net;
mod quic;
mod reads;
mod relay;
mod snapshots;
mod support;
