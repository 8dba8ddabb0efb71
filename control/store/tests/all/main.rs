//! Behaviour of the store in memory as a whole. That of the machine on disk is tested through the
//! crate `sampan-raft`, which orders its commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail loudly")]

mod conformance;
