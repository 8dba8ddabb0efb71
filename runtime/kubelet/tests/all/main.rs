//! Behaviour of the node agent as a whole, against an API and a runtime that are made for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests fail loudly"
)]

mod fake_api;
mod fake_runtime;
mod harness;

mod failures;
mod lifecycle;
mod logs;
mod node;
mod real_api;
mod restarts;
mod volumes;
