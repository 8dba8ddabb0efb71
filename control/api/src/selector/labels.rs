//! Label selectors: parsed from query syntax (`app in (a,b),!legacy`) or read from a
//! `LabelSelector` object, then matched against labels.
//!
//! Called for list and watch requests, by controllers and by the scheduler. Error texts are
//! Kubernetes' (apimachinery's `labels` package).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::query;
pub use super::requirement::{Operator, Requirement};
use crate::field::{FieldError, FieldPath, go_quote};
use crate::names;

/// Something that has labels.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for [(String, String)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl<L: Labels + ?Sized> Labels for Option<&L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.and_then(|labels| labels.label(key))
    }
}

/// Conditions on labels, all of which must hold; or the selector that matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// Sorted by key; absent in the selector that matches nothing.
    requirements: Option<Vec<Requirement>>,
}

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self { requirements: Some(Vec::new()) }
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Matches what satisfies all of these.
    pub fn all_of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key().cmp(b.key()));
        Self { requirements: Some(requirements) }
    }

    /// Reads the query syntax of `labelSelector=` and `kubectl -l`.
    pub fn parse(text: &str) -> Result<Self, String> {
        query::parse(text).map(Self::all_of)
    }

    /// Reads a `LabelSelector` object. A missing or null one matches nothing, an empty one everything.
    pub fn from_json(selector: Option<&Value>) -> Result<Self, String> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let value = value.as_str().unwrap_or_default().to_owned();
                requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
            }
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self::all_of(requirements))
    }

    /// Matches objects that have all of these labels with these values, as the selector of a Service
    /// or a ReplicationController; values are taken as they are.
    pub fn from_set<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let equals = |(key, value): (&str, &str)| Requirement::equals(key, value);
        Self::all_of(labels.into_iter().map(equals).collect())
    }

    /// Whether labels satisfy it.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.requirements
            .as_ref()
            .is_some_and(|all| all.iter().all(|r| r.matches_value(labels.label(r.key()))))
    }

    /// Whether labels, looked up by a function, satisfy it.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.as_ref().is_some_and(|all| all.iter().all(|r| r.matches_value(label(r.key()))))
    }

    /// Whether it restricts nothing.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Its conditions; none for the selector that matches nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            write!(f, "{}{requirement}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What is wrong with a `LabelSelector` object, as validation reports it.
pub fn validate(selector: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        errors.extend(crate::meta::validate_labels(labels, &path.child("matchLabels")));
    }
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for (i, expression) in expressions.into_iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let operator = expression.get("operator").and_then(Value::as_str).unwrap_or_default();
        let values = expression.get("values").and_then(Value::as_array).map_or(0, Vec::len);
        match operator {
            "In" | "NotIn" if values == 0 => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if values > 0 => errors.push(FieldError::forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
        errors.extend(FieldError::each_invalid(&path.child("key"), key, names::is_qualified_name(key)));
        for (j, value) in expression.get("values").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            let value = value.as_str().unwrap_or_default();
            let path = path.child("values").index(j);
            errors.extend(FieldError::each_invalid(&path, value, names::is_label_value(value)));
        }
    }
    errors
}

fn expression_requirement(expression: &Value) -> Result<Requirement, String> {
    let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(format!("{} is not a valid label selector operator", go_quote(other))),
    };
    let values = expression.get("values").and_then(Value::as_array);
    let values = values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Requirement::new(text("key"), operator, values)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn query_syntax_is_read_and_written_back_in_order_of_keys() {
        for (text, canonical) in [
            ("", ""),
            ("  ", ""),
            ("a=b", "a=b"),
            ("a==b", "a==b"),
            ("a!=b", "a!=b"),
            ("a=", "a="),
            ("a=,b", "a=,b"),
            ("a", "a"),
            ("!a", "!a"),
            ("z, ! y ,x in (c, a,b)", "x in (a,b,c),!y,z"),
            ("x notin ()", "x notin ()"),
            ("x in (,a)", "x in (,a)"),
            ("x in (a,,b)", "x in (,a,b)"),
            ("x in (a,)", "x in (,a)"),
            ("x in (,)", "x in ()"),
            ("x in (a,a)", "x in (a)"),
            ("x>1", "x>1"),
            ("x < 5", "x<5"),
            ("in in (in, notin)", "in in (in,notin)"),
            ("notin=in", "notin=in"),
            ("example.com/app=web", "example.com/app=web"),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), canonical, "{text:?}");
        }
    }

    #[test]
    fn malformed_queries_are_refused_with_kubernetes_words() {
        for (text, error) in [
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a=!", "unable to parse requirement: found '!', expected: identifier"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
            ("a in (,=", "unable to parse requirement: found '=', expected: ',', or identifier"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err(), error, "{text:?}");
        }
        let error = LabelSelector::parse("a/b/c=d").unwrap_err();
        assert!(
            error.starts_with(
                "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"
            ),
            "{error}"
        );
        let error = LabelSelector::parse("a=$b").unwrap_err();
        assert!(
            error.starts_with(
                "unable to parse requirement: values[0][a]: Invalid value: \"$b\": a valid label must"
            ),
            "{error}"
        );
    }

    #[test]
    fn labels_match_as_kubernetes_matches_them() {
        let set = labels(&[("app", "web"), ("tier", "1"), ("empty", "")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==db", false),
            ("app!=db", true),
            ("other!=x", true),
            ("other=x", false),
            ("app in (db,web)", true),
            ("app notin (db,web)", false),
            ("other notin (x)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("empty=", true),
            ("empty in ()", true),
            ("other=", false),
            ("tier>0", true),
            ("tier>1", false),
            ("tier<2", true),
            ("app>0", false),
            ("other<2", false),
            ("app=web,tier=2", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&set), expected, "{text:?}");
            assert_eq!(selector.matches_by(|key| set.label(key)), expected, "{text:?}");
        }
        assert!(!LabelSelector::nothing().matches(&set));
        assert!(LabelSelector::parse("!a").unwrap().matches(&None::<&Map<String, Value>>));
    }

    #[test]
    fn selector_objects_are_read() {
        let object = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "x", "operator": "NotIn", "values": ["y"]},
                {"key": "tier", "operator": "Exists"},
            ],
        });
        let selector = LabelSelector::from_json(Some(&object)).unwrap();
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "b")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "b"), ("old", "")])));
        assert_eq!(LabelSelector::from_json(None).unwrap(), LabelSelector::nothing());
        assert!(LabelSelector::from_json(Some(&json!({}))).unwrap().is_everything());
        assert_eq!(
            LabelSelector::from_json(Some(&json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]}))),
            Err("\"Gt\" is not a valid label selector operator".to_owned())
        );
        assert_eq!(LabelSelector::from_set([("b", "2"), ("a", "1")]).to_string(), "a=1,b=2");
    }

    #[test]
    fn selector_objects_are_validated_with_paths() {
        let object = json!({
            "matchLabels": {"a b": "c"},
            "matchExpressions": [
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["b"]},
                {"key": "a", "operator": "Near"},
                {"key": "", "operator": "In", "values": ["$"]},
            ],
        });
        let errors: Vec<String> = validate(&object, &FieldPath::new("spec").child("selector"))
            .iter()
            .map(|e| e.to_string().chars().take(75).collect())
            .collect();
        assert_eq!(
            errors,
            [
                "spec.selector.matchLabels: Invalid value: \"a b\": name part must consist of ",
                "spec.selector.matchExpressions[0].values: Required value: must be specified",
                "spec.selector.matchExpressions[1].values: Forbidden: may not be specified w",
                "spec.selector.matchExpressions[2].operator: Invalid value: \"Near\": not a va",
                "spec.selector.matchExpressions[3].key: Invalid value: \"\": name part must be",
                "spec.selector.matchExpressions[3].key: Invalid value: \"\": name part must co",
                "spec.selector.matchExpressions[3].values[0]: Invalid value: \"$\": a valid la",
            ]
        );
    }
}
