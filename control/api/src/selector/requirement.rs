//! One condition of a label selector: a key, an operator, values.

use std::fmt;

use crate::field::{FieldError, FieldPath};
use crate::names;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label has the value, written `=`.
    Equals,
    /// The label has the value, written `==`.
    DoubleEquals,
    /// The label is absent or has another value.
    NotEquals,
    /// The label is a greater whole number.
    GreaterThan,
    /// The label is a lesser whole number.
    LessThan,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Operator {
    pub(super) const BINARY: [Self; 7] = [
        Self::In,
        Self::NotIn,
        Self::Equals,
        Self::DoubleEquals,
        Self::NotEquals,
        Self::GreaterThan,
        Self::LessThan,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::GreaterThan => "gt",
            Self::LessThan => "lt",
            Self::Exists => "exists",
            Self::DoesNotExist => "!",
        }
    }
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A condition, once its key, its operator and its values go together.
    pub fn new(key: impl Into<String>, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let key = key.into();
        let mut errors: Vec<FieldError> = invalid_key(&key, &FieldPath::new("key")).into_iter().collect();
        let path = FieldPath::new("values");
        let complaint = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        errors.extend(complaint.map(|text| FieldError::invalid(&path, values.clone(), text)));
        for (i, value) in values.iter().enumerate() {
            let at = path.index(i);
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && integer(value).is_none() {
                let text = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&at, value.as_str(), text));
            }
            let complaints = names::is_label_value(value);
            if !complaints.is_empty() {
                errors.push(FieldError::invalid(&at.key(&key), value.as_str(), complaints.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self { key, operator, values }),
            [one] => Err(one.to_string()),
            many => {
                let texts: Vec<String> = many.iter().map(ToString::to_string).collect();
                Err(format!("[{}]", texts.join(", ")))
            }
        }
    }

    /// The label has this value; key and value are taken as they are.
    pub(super) fn equals(key: &str, value: &str) -> Self {
        Self { key: key.to_owned(), operator: Operator::Equals, values: vec![value.to_owned()] }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label's value (or its absence) satisfies this.
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match (self.operator, value) {
            (Operator::In | Operator::Equals | Operator::DoubleEquals, Some(value)) => listed(value),
            (Operator::NotIn | Operator::NotEquals, Some(value)) => !listed(value),
            (Operator::Exists, present) => present.is_some(),
            (Operator::DoesNotExist, present) => present.is_none(),
            (Operator::NotIn | Operator::NotEquals, None) => true,
            (Operator::GreaterThan, Some(value)) => {
                self.compare(value).is_some_and(std::cmp::Ordering::is_gt)
            }
            (Operator::LessThan, Some(value)) => self.compare(value).is_some_and(std::cmp::Ordering::is_lt),
            (_, None) => false,
        }
    }

    fn compare(&self, value: &str) -> Option<std::cmp::Ordering> {
        let bound = integer(self.values.first()?)?;
        Some(integer(value)?.cmp(&bound))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.values.clone();
        values.sort();
        let values = values.join(",");
        let key = &self.key;
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::In | Operator::NotIn => write!(f, "{key} {} ({values})", self.operator.as_str()),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
            _ => write!(f, "{key}{}{values}", self.operator.as_str()),
        }
    }
}

pub(super) fn invalid_key(key: &str, path: &FieldPath) -> Option<FieldError> {
    let complaints = names::is_qualified_name(key);
    (!complaints.is_empty()).then(|| FieldError::invalid(path, key, complaints.join("; ")))
}

/// A whole number as Go's `ParseInt` takes it, in 64 bits.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok()
}
