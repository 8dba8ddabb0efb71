//! What `kubectl get` shows of each kind: columns and cells as Kubernetes prints them.
//!
//! The strategies name them; tables are put together by the endpoints. Ages are counted from the
//! time that is given.

pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod event;
pub mod generic;
pub(crate) mod node;
pub(crate) mod pod;

use jiff::Timestamp;
use sampan_api::time;
use serde_json::Value;

use super::strategy::Column;
use crate::validation::view::{member, opt_text, text};

const NAME_TEXT: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_TEXT: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The name, which comes first.
const NAME: Column =
    Column { name: "Name", kind: "string", format: "name", description: NAME_TEXT, priority: 0 };

/// How long ago the object was made.
const AGE: Column = column("Age", AGE_TEXT);

/// A column that is always shown.
const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

/// A column of wide output.
const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

/// The object's name.
fn name(object: &Value) -> Value {
    text(member(object, "metadata"), "name").into()
}

/// The object's age.
fn age(object: &Value, now: Timestamp) -> Value {
    time::age(opt_text(member(object, "metadata"), "creationTimestamp"), now).into()
}

/// A text, or a word where it is empty.
fn or(text: &str, word: &str) -> Value {
    if text.is_empty() { word.into() } else { text.into() }
}
