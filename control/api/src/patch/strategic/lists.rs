//! Merging lists: by merge key where elements are objects, as sets where they are scalars, and by
//! replacement where the type says nothing.

use serde_json::Value;

use super::directives::{cleaned, cleaned_list};
use super::unknown_directive;
use super::{DIRECTIVE, Node, Object, PatchError, go, malformed, merge_object, no_merge_key, order};
use crate::schema::Field;

/// Merges the value of a list field with that of a patch.
pub(super) fn merge_field(
    original: Vec<Value>,
    patch: Vec<Value>,
    field: Option<&Field>,
) -> Result<Vec<Value>, PatchError> {
    let Some(field) = field.filter(|f| f.patch.merge) else {
        return Ok(cleaned_list(patch));
    };
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !elements_are_objects(&original, &patch)? {
        return merge_scalars(&original, patch);
    }
    let Some(key) = field.patch.merge_key else {
        return Err(malformed("cannot merge lists without merge key for type struct"));
    };
    merge_objects(original, patch, key, Node::inside(&field.element()))
}

/// Whether the elements are objects rather than scalars; all must be alike, and none a list.
pub(super) fn elements_are_objects(original: &[Value], patch: &[Value]) -> Result<bool, PatchError> {
    let mut kinds = original.iter().chain(patch).map(kind);
    let first = kinds.next().unwrap_or(Kind::Object);
    if first == Kind::List {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
    }
    if kinds.any(|kind| kind != first) {
        return Err(PatchError::Malformed(format!(
            "list element types are not identical: [{} {}]",
            go::print_list(original),
            go::print_list(patch)
        )));
    }
    Ok(first == Kind::Object)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Null => Kind::Null,
        Value::Bool(_) => Kind::Bool,
        Value::Number(_) => Kind::Number,
        Value::String(_) => Kind::Text,
        Value::Array(_) => Kind::List,
        Value::Object(_) => Kind::Object,
    }
}

fn merge_scalars(original: &[Value], patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    let mut merged: Vec<Value> = Vec::new();
    for value in original.iter().chain(&patch) {
        if !merged.contains(value) {
            merged.push(value.clone());
        }
    }
    order::arrange(merged, &patch, original, None)
}

fn merge_objects(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    node: Node,
) -> Result<Vec<Value>, PatchError> {
    let mut elements: Vec<Object> = Vec::new();
    let mut replace = false;
    for element in patch {
        let Value::Object(mut element) = element else { continue };
        match element.get(DIRECTIVE).map(|d| d.as_str()) {
            None => elements.push(element),
            Some(Some("merge")) => {
                element.remove(DIRECTIVE);
                elements.push(element);
            }
            Some(Some("replace")) => replace = true,
            Some(Some("delete")) => {
                let value = element.get(key).ok_or_else(|| no_merge_key(&element, key))?;
                original.retain(|before| before.get(key) != Some(value));
            }
            Some(_) => {
                let directive = element.get(DIRECTIVE).cloned().unwrap_or_default();
                return Err(unknown_directive(&directive, &element));
            }
        }
    }
    if replace {
        return Ok(elements.into_iter().filter_map(|element| cleaned(Value::Object(element))).collect());
    }
    let in_patch: Vec<Value> = elements.iter().cloned().map(Value::Object).collect();
    let before = original.clone();
    for element in elements {
        let value = element.get(key).ok_or_else(|| no_merge_key(&element, key))?;
        match original.iter_mut().find(|before| before.get(key) == Some(value)) {
            Some(slot) => {
                let Value::Object(target) = slot.take() else { continue };
                *slot = Value::Object(merge_object(target, element, node)?);
            }
            None => original.extend(cleaned(Value::Object(element))),
        }
    }
    order::arrange(original, &in_patch, &before, Some(key))
}
