//! The joined table, before it is written.

use std::collections::BTreeMap;

use crate::markers::Markers;
use crate::protobuf::Shape;

/// Messages by full name.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) messages: BTreeMap<String, Message>,
    /// Descriptions of the types that are no messages in the table, by full name.
    pub(crate) specials: BTreeMap<String, String>,
}

/// One message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) description: String,
    /// Group, version and kind.
    pub(crate) kind: Option<(String, String, String)>,
    pub(crate) atomic: bool,
    /// By JSON name.
    pub(crate) fields: BTreeMap<String, Field>,
    /// Tag and full name of inlined messages.
    pub(crate) inlines: BTreeMap<u32, String>,
    /// Descriptions by JSON name, those of inlined fields too.
    pub(crate) descriptions: BTreeMap<String, String>,
}

/// One field.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) tag: u32,
    pub(crate) shape: Shape,
    /// A word for a scalar or special type, or a message's full name.
    pub(crate) ty: String,
    pub(crate) required: bool,
    pub(crate) pointer: bool,
    pub(crate) markers: Markers,
}
