//! Backups as one uses them: made, read, damaged, scheduled, in files and in buckets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests fail loudly"
)]

mod damage;
mod files;
mod moto;
mod runner;
mod s3;
mod s3_server;
mod support;
