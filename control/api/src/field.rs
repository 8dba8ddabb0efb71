//! Paths into objects and errors about them, worded as Kubernetes words them.

use std::fmt;

use serde_json::Value;

/// A path into an object, as validation messages and status causes print it:
/// `spec.containers[0].ports[1].name`, `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// A path of one or more dot-separated names.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The empty path: the object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a member.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of a list element.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of a map entry.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// A required value is missing.
    Required,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// The value is malformed or out of its range.
    Invalid,
    /// The value is not among those supported.
    NotSupported,
    /// The value may not be set, or not changed, here.
    Forbidden,
    /// What the value refers to does not exist.
    NotFound,
    /// The value is too long.
    TooLong,
    /// There are too many entries.
    TooMany,
    /// The value has the wrong type.
    TypeInvalid,
    /// The value is too short.
    TooShort,
    /// The server failed while checking.
    Internal,
}

impl FieldErrorKind {
    /// The `reason` of the cause in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooShort => "FieldValueTooShort",
            Self::Internal => "InternalError",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TypeInvalid => "Invalid value",
            Self::TooShort => "Too short",
            Self::Internal => "Internal error",
        }
    }
}

/// One complaint about one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// Where.
    pub path: FieldPath,
    /// The offending value, where the kind prints one.
    pub value: Option<Value>,
    /// The rest of the sentence.
    pub detail: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, path: &FieldPath, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, path: path.clone(), value, detail: detail.into() }
    }

    /// A required value is missing.
    pub fn required(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, None, detail)
    }

    /// The value occurs twice.
    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// The value is malformed.
    pub fn invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// The value is none of `supported`, which are printed in the order given (Kubernetes sorts them
    /// for some fields and not for others: `"Always", "OnFailure", "Never"`).
    pub fn not_supported(path: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<_> = supported.iter().map(|s| go_quote(s)).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// The field may not be set or changed.
    pub fn forbidden(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, None, detail)
    }

    /// The value refers to nothing.
    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// The value is longer than `max` bytes.
    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        let detail = format!("may not be more than {max} byte{}", plural(max));
        Self::new(FieldErrorKind::TooLong, path, None, detail)
    }

    /// The value is shorter than `min` bytes.
    pub fn too_short(path: &FieldPath, min: usize) -> Self {
        let detail = format!("must be at least {min} byte{}", plural(min));
        Self::new(FieldErrorKind::TooShort, path, None, detail)
    }

    /// There are more than `max` entries.
    pub fn too_many(path: &FieldPath, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} item{}", plural(max));
        Self::new(FieldErrorKind::TooMany, path, Some(actual.into()), detail)
    }

    /// The value has the wrong type.
    pub fn type_invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    /// The server failed while checking the field.
    pub fn internal(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Internal, path, None, detail)
    }

    /// One `Invalid` per complaint of a check from [`crate::names`].
    pub fn each_invalid(path: &FieldPath, value: &str, complaints: Vec<String>) -> Vec<Self> {
        complaints.into_iter().map(|text| Self::invalid(path, value, text)).collect()
    }

    /// The message without the path: the `message` of a status cause.
    pub fn body(&self) -> String {
        let title = self.kind.title();
        let shown = match self.kind {
            FieldErrorKind::Required
            | FieldErrorKind::Forbidden
            | FieldErrorKind::TooLong
            | FieldErrorKind::TooShort
            | FieldErrorKind::Internal => None,
            _ => self.value.as_ref().map(show),
        };
        let mut text = match shown {
            Some(value) => format!("{title}: {value}"),
            None => title.to_owned(),
        };
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// A value as Kubernetes' messages show it: strings quoted, the rest as JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        other => other.to_string(),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// A string in double quotes, escaped as Go's `%q` escapes it (which most of Kubernetes' messages
/// use): control characters as `\n` or `\x00`, printable Unicode as it is.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether Go calls a character printable: no control character, and no space but the ASCII one.
/// Rust's own escaping knows which characters are graphic, so it is asked.
pub(crate) fn is_printable(c: char) -> bool {
    match c {
        ' ' | '\'' | '"' | '\\' => true,
        c if c.is_whitespace() => false,
        c => is_extending(c) || c.escape_debug().len() == 1,
    }
}

/// Marks that combine with the character before them: Rust escapes them, Go prints them.
fn is_extending(c: char) -> bool {
    matches!(u32::from(c), 0x300..=0x36f | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f)
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_read_as_kubernetes_writes_them() {
        let path = FieldPath::new("spec").child("containers").index(0).child("name");
        let cases = [
            (FieldError::required(&path, ""), "Required value"),
            (FieldError::required(&path, "why"), "Required value: why"),
            (FieldError::duplicate(&path, "a"), "Duplicate value: \"a\""),
            (FieldError::invalid(&path, 70000, "too big"), "Invalid value: 70000: too big"),
            (FieldError::invalid(&path, json!({"a": ["b"]}), "no"), r#"Invalid value: {"a":["b"]}: no"#),
            (FieldError::invalid(&path, Value::Null, "no"), "Invalid value: null: no"),
            (
                FieldError::not_supported(&path, "x", &["b", "a"]),
                "Unsupported value: \"x\": supported values: \"b\", \"a\"",
            ),
            (FieldError::not_supported(&path, "x", &[]), "Unsupported value: \"x\""),
            (FieldError::forbidden(&path, "no"), "Forbidden: no"),
            (FieldError::not_found(&path, "v"), "Not found: \"v\""),
            (FieldError::too_long(&path, 63), "Too long: may not be more than 63 bytes"),
            (FieldError::too_long(&path, 1), "Too long: may not be more than 1 byte"),
            (FieldError::too_short(&path, 2), "Too short: must be at least 2 bytes"),
            (FieldError::too_many(&path, 9, 8), "Too many: 9: must have at most 8 items"),
            (FieldError::internal(&path, "broken"), "Internal error: broken"),
        ];
        for (error, body) in cases {
            assert_eq!(error.body(), body);
            assert_eq!(error.to_string(), format!("spec.containers[0].name: {body}"));
        }
    }

    #[test]
    fn paths_are_written_with_dots_and_brackets() {
        let labels = FieldPath::root().child("metadata").child("labels");
        assert_eq!(labels.key("a/b").as_str(), "metadata.labels[a/b]");
        assert_eq!(FieldPath::root().to_string(), "<nil>");
    }

    #[test]
    fn quoting_follows_go() {
        for (text, quoted) in [
            ("it's", r#""it's""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("a\nb\t\u{0}\u{7f}", r#""a\nb\t\x00\x7f""#),
            ("é日e\u{301}", "\"é日e\u{301}\""),
            ("\u{a0}\u{2028}", r#""\u00a0\u2028""#),
        ] {
            assert_eq!(go_quote(text), quoted);
        }
    }
}
