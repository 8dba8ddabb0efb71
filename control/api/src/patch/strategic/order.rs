//! The order of elements in merged lists: those that the patch names come in the patch's order (or
//! in that of `$setElementOrder`), the others stay where they were among them as well as that goes.

use serde_json::Value;

use super::lists::{elements_are_objects, merge_field};
use super::{
    BAD_ELEMENT_ORDER, DIRECTIVE, Node, Object, PatchError, SET_ELEMENT_ORDER, directive_target, directives,
    go, malformed, no_merge_key,
};

/// `$setElementOrder/containers`: merges the lists that have one and puts them in that order. The
/// directives and the lists' own patches are taken out of the patch.
pub(super) fn apply_element_orders(
    original: &mut Object,
    patch: &mut Object,
    node: Node,
) -> Result<(), PatchError> {
    let keys: Vec<String> =
        patch.keys().filter(|key| directive_target(key, SET_ELEMENT_ORDER).is_some()).cloned().collect();
    for key in keys {
        let bad = || malformed(BAD_ELEMENT_ORDER);
        let name = directive_target(&key, SET_ELEMENT_ORDER).flatten().ok_or_else(bad)?;
        let Some(Value::Array(order)) = patch.remove(&key) else { return Err(bad()) };
        let field = node.field(name)?;
        let merge_key = field.and_then(|f| f.patch.merge_key);
        let before = list(original.get(name))?;
        let patched = list(patch.get(name))?;
        check_order(patched.as_deref().unwrap_or_default(), &order, merge_key)?;
        let merged = match (before.clone(), patched) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(patched)) => directives::cleaned_list(patched),
            (Some(before), Some(patched)) => merge_field(before, patched, field.as_ref())?,
        };
        if merge_key.is_none() && elements_are_objects(&merged, &order)? && !merged.is_empty() {
            return Err(bad());
        }
        let arranged = arrange(merged, &order, before.as_deref().unwrap_or_default(), merge_key)?;
        original.insert(name.to_owned(), Value::Array(arranged));
        patch.remove(name);
    }
    Ok(())
}

fn list(value: Option<&Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list.clone())),
        Some(_) => Err(malformed(BAD_ELEMENT_ORDER)),
    }
}

/// What the patch sets must stand in the order list, in the same order.
fn check_order(patched: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), PatchError> {
    if patched.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for element in patched.iter().filter(|element| element.get(DIRECTIVE).is_none()) {
        let identity = identity(element, merge_key)?;
        loop {
            let Some(next) = wanted.next() else {
                return Err(PatchError::Malformed(format!(
                    "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                    go::print_list(patched),
                    go::print_list(order)
                )));
            };
            if self::identity(next, merge_key)? == identity {
                break;
            }
        }
    }
    Ok(())
}

/// Puts merged elements in order: those in `wanted` as they stand there, the rest as they stood
/// `before`, the two interleaved as they stood before.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let mut named = Vec::new();
    let mut others = Vec::new();
    let (wanted, before) = (Places::of(wanted, merge_key)?, Places::of(before, merge_key)?);
    for element in merged {
        let place = wanted.find(identity(&element, merge_key)?);
        let stood = before.find(identity(&element, merge_key)?);
        match place {
            Some(place) => named.push((place, stood, element)),
            None => others.push((stood.unwrap_or(usize::MAX), stood, element)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(place, ..)| *place);
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, stood, element) in named {
        while let Some((_, other, _)) = others.peek() {
            if !matches!((other, stood), (Some(other), Some(stood)) if *other < stood) {
                break;
            }
            arranged.extend(others.next().map(|(.., other)| other));
        }
        arranged.push(element);
    }
    arranged.extend(others.map(|(.., other)| other));
    Ok(arranged)
}

/// Where the elements of a list stand.
struct Places<'a>(Vec<&'a Value>);

impl<'a> Places<'a> {
    fn of(list: &'a [Value], merge_key: Option<&str>) -> Result<Self, PatchError> {
        list.iter().map(|element| identity(element, merge_key)).collect::<Result<_, _>>().map(Self)
    }

    fn find(&self, identity: &Value) -> Option<usize> {
        self.0.iter().position(|other| *other == identity)
    }
}

/// What tells an element from others: the value of its merge key, or the scalar itself.
fn identity<'a>(element: &'a Value, merge_key: Option<&str>) -> Result<&'a Value, PatchError> {
    match (merge_key, element) {
        (None, scalar) => Ok(scalar),
        (Some(key), Value::Object(object)) => object.get(key).ok_or_else(|| no_merge_key(object, key)),
        (Some(_), _) => Err(malformed(BAD_ELEMENT_ORDER)),
    }
}
