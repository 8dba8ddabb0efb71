//! Kinds without columns of their own: name and time of creation.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE_TEXT, NAME, name};
use crate::registry::strategy::Column;
use crate::validation::view::{member, text};

/// The columns of any kind.
pub const GENERIC: &[Column] =
    &[NAME, Column { name: "Created At", kind: "date", format: "", description: AGE_TEXT, priority: 0 }];

/// The cells of any kind.
pub fn cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), text(member(object, "metadata"), "creationTimestamp").into()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_object_has_a_name_and_a_beginning() {
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "2025-01-01T00:00:00Z"}});
        assert_eq!(cells(&object, Timestamp::UNIX_EPOCH), [json!("n"), json!("2025-01-01T00:00:00Z")]);
        assert_eq!(GENERIC.len(), 2);
    }
}
