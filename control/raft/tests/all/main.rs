//! A member that is alone, as a whole: conformance, a model, restarts, crashes, damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail loudly"
)]

mod conformance;
mod crash;
mod damage;
mod directory;
mod durable;
mod format;
mod full_disk;
mod leases;
mod model;
mod sealing;
mod single;
mod support;
