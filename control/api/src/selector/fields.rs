//! Field selectors: `spec.nodeName=a,status.phase!=Failed`.
//!
//! This module reads them and matches them against field values that the caller looks up; which
//! field names exist for a resource is the caller's to check (through `requirements`).

use std::fmt;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The field's name: `metadata.name`.
    pub field: String,
    /// Whether the field must have the value, or must not have it.
    pub operator: Operator,
    /// The value.
    pub value: String,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `=` or `==`.
    Equals,
    /// `!=`.
    NotEquals,
}

/// Conditions on fields, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

impl FieldSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches objects whose field has a value.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        let requirement =
            Requirement { field: field.into(), operator: Operator::Equals, value: value.into() };
        Self { requirements: vec![requirement] }
    }

    /// Reads the syntax of `fieldSelector=`; in values `,`, `=` and `\` are escaped by `\`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|t| !t.is_empty()) {
            let Some((field, operator, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            requirements.push(Requirement { field: field.to_owned(), operator, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }

    /// Its conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it restricts nothing.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether fields, looked up by a function, satisfy it. An absent field counts as empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| {
            let same = field(&r.field).unwrap_or_default() == r.value;
            same == (r.operator == Operator::Equals)
        })
    }

    /// The only value that a field may have, if this names one (a list of one name is a get).
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|r| r.field == field && r.operator == Operator::Equals)
            .map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            let operator = match r.operator {
                Operator::Equals => "=",
                Operator::NotEquals => "!=",
            };
            write!(f, "{separator}{}{operator}{}", r.field, escape(&r.value))?;
        }
        Ok(())
    }
}

/// A value escaped for use in a selector.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, String> {
    let invalid = |sequence: &str| format!("invalid field selector: invalid escape sequence: {sequence}");
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(invalid(&format!("\\{other}"))),
                None => return Err(invalid("\\")),
            },
            // Go prints the offending rune as its number.
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let separates = !escaped && c == ',';
        escaped = !escaped && c == '\\';
        separates
    })
    .collect()
}

fn split_term(term: &str) -> Option<(&str, Operator, &str)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at_checked(at)?;
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, Operator::NotEquals, value));
    }
    if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        return Some((field, Operator::Equals, value));
    }
    // A lone `!` belongs to the name; an operator may follow it.
    let (found, operator, value) = split_term(rest.get(1..)?)?;
    let length = at + 1 + found.len();
    Some((term.get(..length)?, operator, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_written_back() {
        for (text, canonical) in [
            ("", ""),
            (",", ""),
            ("a=b", "a=b"),
            ("a==b", "a=b"),
            ("a!=b", "a!=b"),
            ("b=1,a=2", "a=2,b=1"),
            ("a=", "a="),
            (r"a=x\,y\=z\\", r"a=x\,y\=z\\"),
            ("!a=b", "!a=b"),
            ("metadata.name=x,spec.nodeName!=", "metadata.name=x,spec.nodeName!="),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().to_string(), canonical, "{text:?}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused_with_kubernetes_words() {
        for (text, error) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'"),
            ("a!b", "invalid selector: 'a!b'; can't understand 'a!b'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            (r"a=\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn absent_fields_count_as_empty() {
        let field = |name: &str| (name == "a").then_some("b");
        for (text, expected) in [
            ("", true),
            ("a=b", true),
            ("a!=b", false),
            ("a=c", false),
            ("x=", true),
            ("x!=b", true),
            ("x!=", false),
            ("a=b,x=y", false),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(field), expected, "{text:?}");
        }
    }

    #[test]
    fn exact_values_are_found_and_escaped_values_compared_plain() {
        let selector = FieldSelector::parse(r"metadata.name=a\,b,x!=y").unwrap();
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert_eq!(selector.exact("x"), None);
        assert_eq!(FieldSelector::equals("a", "1=2").to_string(), r"a=1\=2");
    }
}
