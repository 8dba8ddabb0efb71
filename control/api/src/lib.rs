//! Kubernetes vocabulary, without I/O: what a resource is, how objects are decoded, checked,
//! patched and selected, and how refusals are worded.
//!
//! Everything above the store imports this crate; it imports nothing of the project.

pub mod codec;
pub mod defaults;
pub mod field;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod scheme;
pub mod selector;
pub mod status;
pub mod strict;
pub mod time;
