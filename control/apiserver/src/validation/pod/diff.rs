//! What differs between two values, for messages about changes that are refused.

use std::collections::BTreeSet;

use sampan_api::field::FieldPath;
use serde_json::Value;

use crate::validation::view::{member, same};

/// One pair of lines for each place that differs: `- path: old`, `+ path: new`.
pub(super) fn diff(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    walk(old, new, &FieldPath::root(), &mut lines);
    lines.join("\n")
}

fn walk(old: &Value, new: &Value, path: &FieldPath, lines: &mut Vec<String>) {
    if same(old, new) {
        return;
    }
    match (old, new) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for name in names {
                walk(member(old, name), member(new, name), &path.child(name), lines);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (i, (old, new)) in left.iter().zip(right).enumerate() {
                walk(old, new, &path.index(i), lines);
            }
        }
        _ => {
            let mut line = |sign: char, value: &Value| {
                if !value.is_null() {
                    lines.push(format!("{sign} {}: {value}", path.as_str()));
                }
            };
            line('-', old);
            line('+', new);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_listed_by_path() {
        let old = json!({"a": 1, "b": {"c": ["x", "y"]}, "gone": true, "same": []});
        let new = json!({"a": 2, "b": {"c": ["x", "z"]}, "come": [1]});
        assert_eq!(
            diff(&old, &new),
            "- a: 1\n+ a: 2\n- b.c[1]: \"y\"\n+ b.c[1]: \"z\"\n+ come: [1]\n- gone: true"
        );
        assert_eq!(diff(&old, &old), "");
    }
}
