//! Prints JSON values as Go's `%v` does, for error messages that quote parts of a patch.

use serde_json::Value;

use super::Object;

/// `map[a:1 b:[x y]]`
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => print_list(list),
        Value::Object(object) => print_object(object),
        other => other.to_string(),
    }
}

/// A list.
pub(super) fn print_list(list: &[Value]) -> String {
    let parts: Vec<String> = list.iter().map(print).collect();
    format!("[{}]", parts.join(" "))
}

/// An object.
pub(super) fn print_object(object: &Object) -> String {
    let parts: Vec<String> = object.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect();
    format!("map[{}]", parts.join(" "))
}
