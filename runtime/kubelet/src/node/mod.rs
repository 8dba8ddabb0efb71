//! The node itself: its registration, its status, its lease.
//!
//! The status is written when something changed, else every few minutes; the sign of life in
//! between is the lease, which the store keeps in memory only.

pub mod conditions;
pub mod controller;
pub mod describe;
pub mod lease;
pub mod machine;

pub use controller::NodeController;
