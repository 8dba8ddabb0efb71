//! Strategic merge patch: a merge patch that knows the types. Lists whose elements have a merge key
//! are merged element by element, and directives (`$patch`, `$retainKeys`, `$setElementOrder/…`,
//! `$deleteFromPrimitiveList/…`) say what a plain merge cannot.
//!
//! This is the server's half: it applies patches that clients have computed and never computes one.
//! `lists` merges lists, `order` puts their elements in order, `directives` takes directives out of
//! values that are kept whole, `go` prints values in error messages as Go does.

mod directives;
mod go;
mod lists;
mod order;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Message, Shape};

type Object = Map<String, Value>;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";

/// Applies a patch to an object whose type is `message`.
pub fn apply(message: &'static Message, current: Value, patch: Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(malformed("invalid JSON document"));
    };
    let current = match current {
        Value::Object(current) => current,
        _ => Object::new(),
    };
    merge_object(current, patch, Node::Message(message)).map(Value::Object)
}

/// What is known of the members of an object.
#[derive(Clone, Copy)]
enum Node {
    /// They are the fields of a message.
    Message(&'static Message),
    /// They are values of a map, which are all of one type.
    Map(Field),
    /// Nothing: any JSON.
    Unknown,
}

impl Node {
    /// What is known of the members of a field's value, or of the value of a list's element.
    fn inside(field: &Field) -> Self {
        match (field.shape, field.message()) {
            (Shape::Map, _) => Self::Map(field.element()),
            (_, Some(message)) => Self::Message(message),
            (_, None) => Self::Unknown,
        }
    }

    /// The field behind a member. In a map and where nothing is known every name is fine.
    fn field(self, name: &str) -> Result<Option<Field>, PatchError> {
        match self {
            Self::Message(message) => match message.field(name) {
                Some(field) => Ok(Some(*field)),
                None => Err(PatchError::Malformed(format!(
                    "unable to find api field in struct {} for the json field {name:?}",
                    message.short_name()
                ))),
            },
            Self::Map(element) => Ok(Some(element)),
            Self::Unknown => Ok(None),
        }
    }
}

/// Merges a patch into an object.
fn merge_object(mut original: Object, mut patch: Object, node: Node) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            // The patch is the new value, whatever was there.
            Some("replace") => return Ok(directives::cleaned_object(patch)),
            Some("delete") => return Ok(Object::new()),
            // What happens anyway.
            Some("merge") => {}
            _ => {
                patch.insert(DIRECTIVE.to_owned(), directive.clone());
                return Err(unknown_directive(&directive, &patch));
            }
        }
    }
    retain_keys(&mut original, &mut patch)?;
    order::apply_element_orders(&mut original, &mut patch, node)?;
    for (key, value) in patch {
        match directive_target(&key, DELETE_FROM_LIST) {
            Some(target) => {
                let target = target.ok_or_else(|| malformed(BAD_PRIMITIVE_LIST))?;
                delete_from_list(&mut original, target, &value, node)?;
            }
            None => merge_member(&mut original, key, value, node)?,
        }
    }
    Ok(original)
}

/// Merges one member of a patch.
fn merge_member(original: &mut Object, key: String, value: Value, node: Node) -> Result<(), PatchError> {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let merged = match (original.get_mut(&key).map(Value::take), value) {
        (Some(Value::Object(before)), Value::Object(value)) => {
            let field = node.field(&key)?;
            let inside = field.as_ref().map_or(Node::Unknown, Node::inside);
            let replaces = field.is_some_and(|f| f.patch.replace);
            if replaces {
                directives::cleaned(Value::Object(value))
            } else {
                Some(Value::Object(merge_object(before, value, inside)?))
            }
        }
        (Some(Value::Array(before)), Value::Array(value)) => {
            let field = node.field(&key)?;
            Some(Value::Array(lists::merge_field(before, value, field.as_ref())?))
        }
        (_, value) => directives::cleaned(value),
    };
    match merged {
        Some(merged) => original.insert(key, merged),
        None => original.remove(&key),
    };
    Ok(())
}

/// `$retainKeys`: of the object only these members stay, and the patch may set no others.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(malformed(BAD_RETAIN_KEYS));
    };
    let kept = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let is_directive = |key: &str| {
        directive_target(key, DELETE_FROM_LIST).is_some()
            || directive_target(key, SET_ELEMENT_ORDER).is_some()
    };
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !kept(key)) {
        return Err(malformed(BAD_RETAIN_KEYS));
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// `$deleteFromPrimitiveList/finalizers`: removes scalars from a merged list.
fn delete_from_list(original: &mut Object, name: &str, values: &Value, node: Node) -> Result<(), PatchError> {
    let bad = || malformed(BAD_PRIMITIVE_LIST);
    let field = node.field(name)?;
    let scalars = field.is_some_and(|f| f.is_list() && f.patch.merge && f.patch.merge_key.is_none());
    let values = values.as_array().filter(|_| scalars).ok_or_else(bad)?;
    if let Some(list) = original.get_mut(name) {
        list.as_array_mut().ok_or_else(bad)?.retain(|value| !values.contains(value));
    }
    Ok(())
}

/// The name after a directive's prefix: `Some(Some("args"))` for `$setElementOrder/args`; the inner
/// option is empty where the name is missing.
fn directive_target<'a>(key: &'a str, prefix: &str) -> Option<Option<&'a str>> {
    let rest = key.strip_prefix(prefix)?;
    Some(rest.strip_prefix('/').filter(|name| !name.is_empty()))
}

const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ELEMENT_ORDER: &str = "invalid patch format of setElementOrder list";

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.to_owned())
}

fn unknown_directive(directive: &Value, patch: &Object) -> PatchError {
    PatchError::Malformed(format!(
        "unknown patch type: {} in map: {}",
        go::print(directive),
        go::print_object(patch)
    ))
}

fn no_merge_key(object: &Object, key: &str) -> PatchError {
    PatchError::Malformed(format!(
        "map: {} does not contain declared merge key: {key}",
        go::print_object(object)
    ))
}
