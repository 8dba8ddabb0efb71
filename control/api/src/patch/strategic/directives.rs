//! Takes directives and nulls out of parts of a patch that are kept whole, because there was
//! nothing to merge them with.

use serde_json::Value;

use super::{DELETE_FROM_LIST, DIRECTIVE, Object, RETAIN_KEYS, SET_ELEMENT_ORDER, directive_target};

/// The value without directives and nulls; nothing if the value itself is one.
pub(super) fn cleaned(value: Value) -> Option<Value> {
    match value {
        Value::Object(object) if object.contains_key(DIRECTIVE) => None,
        Value::Object(object) => Some(Value::Object(cleaned_object(object))),
        Value::Array(list) => Some(Value::Array(cleaned_list(list))),
        other => Some(other),
    }
}

/// The members that are no directives and not null, each cleaned in turn.
pub(super) fn cleaned_object(object: Object) -> Object {
    object
        .into_iter()
        .filter(|(key, value)| !value.is_null() && !is_directive(key))
        .filter_map(|(key, value)| cleaned(value).map(|value| (key, value)))
        .collect()
}

/// The elements that are no directives, each cleaned in turn.
pub(super) fn cleaned_list(list: Vec<Value>) -> Vec<Value> {
    list.into_iter().filter_map(cleaned).collect()
}

fn is_directive(key: &str) -> bool {
    key == RETAIN_KEYS
        || directive_target(key, DELETE_FROM_LIST).is_some()
        || directive_target(key, SET_ELEMENT_ORDER).is_some()
}
