//! Selectors inside objects: label selectors, and the node selectors of affinities and volumes.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use sampan_api::selector::labels;
use serde_json::Value;

use super::checks::{Errors, each, qualified_name};
use super::view::{list, member, text, texts};

/// Whether the values of an expression must be valid label values. They need not in preferred
/// terms, where a term that matches nothing does no harm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// They must.
    Checked,
    /// They need not.
    Unchecked,
}

/// A `LabelSelector`; null selects nothing and is fine.
pub(crate) fn label_selector(selector: &Value, path: &FieldPath, out: &mut Errors) {
    out.extend(labels::validate(selector, path));
}

fn needs_values(values: &[Value], path: &FieldPath, out: &mut Errors) {
    if values.is_empty() {
        let text = "must be specified when `operator` is 'In' or 'NotIn'";
        out.push(FieldError::required(&path.child("values"), text));
    }
}

fn needs_no_values(values: &[Value], path: &FieldPath, out: &mut Errors) {
    if !values.is_empty() {
        let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
        out.push(FieldError::forbidden(&path.child("values"), text));
    }
}

fn not_an_operator(operator: &str, path: &FieldPath, out: &mut Errors) {
    out.push(FieldError::invalid(&path.child("operator"), operator, "not a valid selector operator"));
}

fn label_values(expression: &Value, path: &FieldPath, out: &mut Errors) {
    for (i, value) in texts(expression, "values").enumerate() {
        each(&path.child("values").index(i), value, names::is_label_value(value), out);
    }
}

/// A required `NodeSelector`: at least one term.
pub(crate) fn node_selector(selector: &Value, path: &FieldPath, out: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        out.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(term, Values::Checked, &path.index(i), out);
    }
}

/// One term of a `NodeSelector`.
pub(crate) fn node_selector_term(term: &Value, values: Values, path: &FieldPath, out: &mut Errors) {
    for (i, expression) in list(term, "matchExpressions").iter().enumerate() {
        node_expression(expression, values, &path.child("matchExpressions").index(i), out);
    }
    for (i, expression) in list(term, "matchFields").iter().enumerate() {
        node_field_expression(expression, &path.child("matchFields").index(i), out);
    }
}

fn node_expression(expression: &Value, checked: Values, path: &FieldPath, out: &mut Errors) {
    let values = list(expression, "values");
    match text(expression, "operator") {
        "In" | "NotIn" => needs_values(values, path, out),
        "Exists" | "DoesNotExist" => needs_no_values(values, path, out),
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let text = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                out.push(FieldError::required(&path.child("values"), text));
            }
        }
        other => not_an_operator(other, path, out),
    }
    qualified_name(text(expression, "key"), &path.child("key"), out);
    if checked == Values::Checked {
        label_values(expression, path, out);
    }
}

fn node_field_expression(expression: &Value, path: &FieldPath, out: &mut Errors) {
    match text(expression, "operator") {
        "In" | "NotIn" => {
            if list(expression, "values").len() != 1 {
                let text =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                out.push(FieldError::required(&path.child("values"), text));
            }
        }
        other => not_an_operator(other, path, out),
    }
    let key = text(expression, "key");
    if key != "metadata.name" {
        out.push(FieldError::invalid(&path.child("key"), key, "not a valid field selector key"));
        return;
    }
    for (i, name) in texts(expression, "values").enumerate() {
        each(&path.child("values").index(i), name, names::is_dns1123_subdomain(name), out);
    }
}

/// Whether a selector selects nothing because it is not there.
pub(crate) fn is_absent(at: &Value, name: &str) -> bool {
    member(at, name).is_null()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(check: impl Fn(&Value, &FieldPath, &mut Errors), value: &Value) -> Vec<String> {
        let mut out = Errors::new();
        check(value, &FieldPath::new("s"), &mut out);
        texts(&out)
    }

    #[test]
    fn node_selectors() {
        for (selector, expected) in [
            (
                json!({}),
                vec!["s.nodeSelectorTerms: Required value: must have at least one node selector term"],
            ),
            (json!({"nodeSelectorTerms": [{}]}), vec![]),
            (
                json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "Lt"}]}]}),
                vec![
                    "s.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
                ],
            ),
            (
                json!({"nodeSelectorTerms": [{"matchFields": [{"key": "spec.x", "operator": "Exists"}]}]}),
                vec![
                    r#"s.nodeSelectorTerms[0].matchFields[0].operator: Invalid value: "Exists": not a valid selector operator"#,
                    r#"s.nodeSelectorTerms[0].matchFields[0].key: Invalid value: "spec.x": not a valid field selector key"#,
                ],
            ),
            (
                json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a", "b"]}]}]}),
                vec![
                    "s.nodeSelectorTerms[0].matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                ],
            ),
        ] {
            assert_eq!(found(node_selector, &selector), expected, "{selector}");
        }
        let term = json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["not a label"]}]});
        let lenient =
            |t: &Value, p: &FieldPath, o: &mut Errors| node_selector_term(t, Values::Unchecked, p, o);
        assert!(found(lenient, &term).is_empty());
        let strict = |t: &Value, p: &FieldPath, o: &mut Errors| node_selector_term(t, Values::Checked, p, o);
        assert_eq!(found(strict, &term).len(), 1);
    }
}
