//! Joining, over real HTTPS: an API server over a store in memory, and machines in temporary directories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod administration;
mod enrollment;
mod harness;
mod members;
mod renewal;
mod rotation;
