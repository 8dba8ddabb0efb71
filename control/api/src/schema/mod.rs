//! The schema table: what every message of the API looks like.
//!
//! One generated table (`generated/schema.txt`, written by `sampan-api-gen`) gives names, types,
//! protobuf tags and merge rules. Decoding, strict checking, patches and OpenAPI walk it; nothing
//! here is written by kind. The table is parsed once, on first use, and never changes.

mod load;
mod types;

use std::sync::OnceLock;

pub use types::{Field, Kind, ListType, MapType, Message, MessageRef, Patch, Shape, Wire};

use load::Table;

/// The table's text. Names are slices of it, so that nothing is copied.
const SOURCE: &str = include_str!("../../generated/schema.txt");

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    // The text is part of the program and the tests load it: a table that cannot be read never
    // leaves the workshop.
    TABLE.get_or_init(|| load::load(SOURCE).unwrap_or_default())
}

/// The message with this full name (`io.k8s.api.core.v1.Pod`).
pub fn message(name: &str) -> Option<&'static Message> {
    table().by_name(name)
}

/// The message of a kind: `("apps", "v1", "Deployment")`; the core group is empty.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    table().by_kind(group, version, kind)
}

/// All messages, by name.
pub fn messages() -> &'static [Message] {
    &table().messages
}
