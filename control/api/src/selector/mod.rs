//! Selectors: which objects a list, a watch or a controller means.
//!
//! `labels` holds label selectors (query syntax and the `LabelSelector` object), `fields` the
//! simpler field selectors. Which field names a resource supports is the API server's to say.

pub mod fields;
pub mod labels;
mod lexer;
mod query;
mod requirement;

pub use fields::FieldSelector;
pub use labels::LabelSelector;
