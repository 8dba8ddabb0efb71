//! Behaviour of the transport over loopback: both kinds of connection, everything that may be refused,
//! clocks, moves, restarts.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail loudly")]

mod clocks;
mod connecting;
mod refusals;
mod streams;
mod support;
