//! Reading objects as Go reads them: what is absent, null or of another type is the zero value of
//! its field.
//!
//! Used by validation, strategies and columns. Objects have been decoded strictly before they come
//! here, so a wrong type is never a client's mistake that would go unseen.

use std::sync::LazyLock;

use serde_json::{Map, Value};

static NULL: Value = Value::Null;
static NO_MEMBERS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// A member that is there and not null.
pub(crate) fn part<'a>(at: &'a Value, name: &str) -> Option<&'a Value> {
    at.get(name).filter(|value| !value.is_null())
}

/// A member, or null: for reading on without asking whether it is there.
pub(crate) fn member<'a>(at: &'a Value, name: &str) -> &'a Value {
    at.get(name).unwrap_or(&NULL)
}

/// What stands at a path of names, or null.
pub(crate) fn walk<'a>(at: &'a Value, names: &[&str]) -> &'a Value {
    names.iter().fold(at, |at, name| member(at, name))
}

/// A text; empty where there is none.
pub(crate) fn text<'a>(at: &'a Value, name: &str) -> &'a str {
    opt_text(at, name).unwrap_or_default()
}

/// A text, if there is one.
pub(crate) fn opt_text<'a>(at: &'a Value, name: &str) -> Option<&'a str> {
    at.get(name).and_then(Value::as_str)
}

/// A whole number, if there is one.
pub(crate) fn int(at: &Value, name: &str) -> Option<i64> {
    at.get(name).and_then(Value::as_i64)
}

/// A flag, if there is one.
pub(crate) fn flag(at: &Value, name: &str) -> Option<bool> {
    at.get(name).and_then(Value::as_bool)
}

/// Whether a flag is there and set.
pub(crate) fn is_set(at: &Value, name: &str) -> bool {
    flag(at, name) == Some(true)
}

/// A list; empty where there is none.
pub(crate) fn list<'a>(at: &'a Value, name: &str) -> &'a [Value] {
    at.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a list.
pub(crate) fn texts<'a>(at: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    list(at, name).iter().filter_map(Value::as_str)
}

/// A map; empty where there is none.
pub(crate) fn map<'a>(at: &'a Value, name: &str) -> &'a Map<String, Value> {
    at.get(name).and_then(Value::as_object).unwrap_or(&NO_MEMBERS)
}

/// A member that Go would call non-empty: present, and no zero value.
pub(crate) fn non_zero<'a>(at: &'a Value, name: &str) -> Option<&'a Value> {
    at.get(name).filter(|value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Object(_) | Value::Bool(true) => true,
    })
}

/// Sets a member, making the objects on the way.
pub(crate) fn set(at: &mut Value, names: &[&str], value: Value) {
    let Some((last, way)) = names.split_last() else { return };
    let mut here = at;
    for name in way {
        let Some(members) = object_of(here) else { return };
        here = members.entry((*name).to_owned()).or_insert_with(|| Value::Object(Map::new()));
    }
    if let Some(members) = object_of(here) {
        members.insert((*last).to_owned(), value);
    }
}

/// The members of an object; a null becomes an empty object first.
fn object_of(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// Takes a member away.
pub(crate) fn remove(at: &mut Value, name: &str) -> Option<Value> {
    at.as_object_mut().and_then(|members| members.remove(name))
}

/// Puts a member back as it is in `from`: absent there means absent here.
pub(crate) fn restore(at: &mut Value, from: &Value, name: &str) {
    match from.get(name) {
        Some(value) => set(at, &[name], value.clone()),
        None => drop(remove(at, name)),
    }
}

/// Whether two values mean the same to Go: absent, null, and empty lists and maps are one.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            left.iter().all(|(name, value)| same(value, right.get(name).unwrap_or(&NULL)))
                && right.iter().all(|(name, value)| left.contains_key(name) || is_empty(value))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

/// Null, or a list or map without entries.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_null_or_of_another_type_reads_as_zero() {
        let at = json!({"s": "a", "n": null, "l": ["x", 1], "m": {"k": "v"}, "b": true, "i": 3});
        assert_eq!(text(&at, "s"), "a");
        assert_eq!(text(&at, "n"), "");
        assert_eq!(text(&at, "i"), "");
        assert_eq!(int(&at, "i"), Some(3));
        assert_eq!(int(&at, "s"), None);
        assert_eq!(list(&at, "l").len(), 2);
        assert!(list(&at, "m").is_empty());
        assert_eq!(texts(&at, "l").collect::<Vec<_>>(), ["x"]);
        assert_eq!(map(&at, "m").len(), 1);
        assert!(map(&at, "absent").is_empty());
        assert!(is_set(&at, "b"));
        assert!(part(&at, "n").is_none());
        assert!(walk(&at, &["m", "k", "deeper"]).is_null());
    }

    #[test]
    fn setting_makes_the_way_and_restoring_also_takes_away() {
        let mut at = json!({"status": null});
        set(&mut at, &["status", "a", "b"], json!(1));
        assert_eq!(at, json!({"status": {"a": {"b": 1}}}));
        restore(&mut at, &json!({"spec": 1}), "spec");
        restore(&mut at, &json!({"spec": 1}), "status");
        assert_eq!(at, json!({"spec": 1}));
    }

    #[test]
    fn absent_null_and_empty_are_the_same() {
        for (a, b, expected) in [
            (json!({"a": null, "b": []}), json!({}), true),
            (json!({"a": {"b": {}}}), json!({"a": {}}), true),
            (json!({"a": ""}), json!({}), false),
            (json!({"a": [1]}), json!({"a": [1, 2]}), false),
            (json!({"a": 0}), json!({"a": 1}), false),
        ] {
            assert_eq!(same(&a, &b), expected, "{a} {b}");
            assert_eq!(same(&b, &a), expected, "{b} {a}");
        }
    }
}
