//! Tools for filling in JSON objects as Go's defaulting does: a field that is absent, null or (where
//! the field is no pointer) zero gets the default; what has the wrong type is left for validation.

use serde_json::{Map, Value};

pub(super) type Object = Map<String, Value>;

/// Sets a field that is absent or null (a pointer in Kubernetes' types).
pub(super) fn absent(object: &mut Object, field: &str, value: impl Into<Value>) {
    if object.get(field).is_none_or(Value::is_null) {
        object.insert(field.to_owned(), value.into());
    }
}

/// Sets a field that is absent, null, empty or zero (no pointer in Kubernetes' types).
pub(super) fn zero(object: &mut Object, field: &str, value: impl Into<Value>) {
    let is_zero = match object.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(_) => false,
    };
    if is_zero {
        object.insert(field.to_owned(), value.into());
    }
}

/// An object inside, if it is there.
pub(super) fn child<'a>(object: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    object.get_mut(field)?.as_object_mut()
}

/// An object inside, made if it is absent or null.
pub(super) fn made<'a>(object: &'a mut Object, field: &str) -> Option<&'a mut Object> {
    absent(object, field, Object::new());
    child(object, field)
}

/// The objects in a list inside.
pub(super) fn each<'a>(object: &'a mut Object, field: &str) -> impl Iterator<Item = &'a mut Object> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// A text inside; empty if absent.
pub(super) fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Keeps a field and the list that came later in step: the single value is the first of the list.
/// Where both are given and differ, the single one is right (older clients know only that).
pub(super) fn first_of(object: &mut Object, single: &str, list: &str, wrap: impl Fn(&str) -> Value) {
    let one = text(object, single).to_owned();
    let unwrap = |value: &Value| match value {
        Value::Object(inner) => inner.values().next().and_then(Value::as_str).map(str::to_owned),
        other => other.as_str().map(str::to_owned),
    };
    let first = object.get(list).and_then(Value::as_array).and_then(|l| l.first()).and_then(unwrap);
    match first {
        Some(first) if one.is_empty() => {
            object.insert(single.to_owned(), first.into());
        }
        first if !one.is_empty() && first.as_deref() != Some(one.as_str()) => {
            object.insert(list.to_owned(), Value::Array(vec![wrap(&one)]));
        }
        _ => {}
    }
}
