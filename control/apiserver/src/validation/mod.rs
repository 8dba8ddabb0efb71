//! What is wrong with an object, in Kubernetes' words: field paths, kinds of error and messages are
//! those of its 1.35 API server.
//!
//! Pure functions over objects as they are after decoding and defaulting; the strategies call them.
//! Metadata is checked by the registry, except where a kind has rules of its own.

pub(crate) mod checks;
pub mod config;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_log;
pub(crate) mod resources;
pub mod secret;
pub(crate) mod selectors;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub(crate) mod view;
pub(crate) mod volumes;
pub mod warnings;
