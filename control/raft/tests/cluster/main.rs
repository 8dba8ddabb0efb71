//! Members together in one process: over streams in memory that can be cut, and over QUIC on
//! loopback.

mod conformance;
mod failover;
mod membership;
mod net;
mod quic;
mod reads;
mod snapshots;
mod support;
