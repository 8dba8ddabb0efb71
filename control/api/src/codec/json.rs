//! JSON bodies. Go's decoder takes the last of several members with one name; so does this one, and
//! tells their paths, for strict field validation.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};
use serde_json::{Map, Number, Value};

use super::DecodeError;

/// More duplicates than this are not told apart from this many.
const MAX_DUPLICATES: usize = 100;

/// A body, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The value.
    pub value: Value,
    /// Paths of members that occur more than once: `spec.containers[0].image`.
    pub duplicates: Vec<String>,
}

/// Reads a body.
pub fn decode(body: &[u8]) -> Result<Decoded, DecodeError> {
    // As Go does, what is not UTF-8 becomes U+FFFD.
    let text = String::from_utf8_lossy(body);
    let mut seen = Seen { path: Vec::new(), duplicates: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let value = Node(&mut seen).deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    match value {
        Ok(value) => Ok(Decoded { value, duplicates: seen.duplicates }),
        Err(error) => Err(DecodeError::Syntax(go_message(&text, &error))),
    }
}

/// Where the reader is, and what it saw twice.
struct Seen {
    path: Vec<Segment>,
    duplicates: Vec<String>,
}

enum Segment {
    Name(String),
    Index(usize),
}

impl Seen {
    fn duplicate(&mut self, name: &str) {
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Name(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        if self.duplicates.len() < MAX_DUPLICATES && !self.duplicates.contains(&path) {
            self.duplicates.push(path);
        }
    }
}

/// Reads one value.
struct Node<'s>(&'s mut Seen);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        loop {
            self.0.path.push(Segment::Index(elements.len()));
            let element = access.next_element_seed(Node(self.0))?;
            self.0.path.pop();
            match element {
                Some(element) => elements.push(element),
                None => return Ok(Value::Array(elements)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if members.contains_key(&name) {
                self.0.duplicate(&name);
            }
            self.0.path.push(Segment::Name(name));
            let value = access.next_value_seed(Node(self.0))?;
            let Some(Segment::Name(name)) = self.0.path.pop() else {
                return Err(A::Error::custom("lost the path"));
            };
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

/// The error as Go's decoder words it.
fn go_message(text: &str, error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let told = error.to_string();
    let told = told.rsplit_once(" at line ").map_or(told.as_str(), |(told, _)| told);
    let at = offset(text, error.line(), error.column());
    let Some(character) = text.get(at..).and_then(|rest| rest.chars().next()) else {
        return "unexpected end of JSON input".to_owned();
    };
    let context = match told {
        "expected value" => "looking for beginning of value".to_owned(),
        "expected `:`" => "after object key".to_owned(),
        "expected `,` or `}`" => "after object key:value pair".to_owned(),
        "expected `,` or `]`" => "after array element".to_owned(),
        "key must be a string" => "looking for beginning of object key string".to_owned(),
        "trailing comma" if character == '}' => "looking for beginning of object key string".to_owned(),
        "trailing comma" => "looking for beginning of value".to_owned(),
        "trailing characters" => "after top-level value".to_owned(),
        "invalid escape" => "in string escape code".to_owned(),
        "invalid number" => "in numeric literal".to_owned(),
        "expected ident" => in_literal(text, at),
        control if control.starts_with("control character") => "in string literal".to_owned(),
        "recursion limit exceeded" => return "exceeded max depth".to_owned(),
        other => return other.to_owned(),
    };
    format!("invalid character {} {context}", quote(character))
}

/// The byte that a line and a column name, both counted from one.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start = match line.checked_sub(2) {
        Some(before) => text.match_indices('\n').nth(before).map_or(0, |(at, _)| at + 1),
        None => 0,
    };
    (start + column).saturating_sub(1)
}

fn in_literal(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let begun = before.bytes().rev().take_while(u8::is_ascii_lowercase).count();
    let start = before.get(before.len() - begun..).unwrap_or_default();
    let literal = ["true", "false", "null"].into_iter().find(|literal| literal.starts_with(start));
    let expected = literal.and_then(|literal| literal.chars().nth(begun).map(|next| (literal, next)));
    match expected {
        Some((literal, next)) => format!("in literal {literal} (expecting '{next}')"),
        None => "looking for beginning of value".to_owned(),
    }
}

/// A character as Go quotes it.
fn quote(character: char) -> String {
    match character {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        '\u{8}' => "'\\b'".to_owned(),
        '\u{c}' => "'\\f'".to_owned(),
        '\n' => "'\\n'".to_owned(),
        '\r' => "'\\r'".to_owned(),
        '\t' => "'\\t'".to_owned(),
        control if control.is_ascii_control() => format!("'\\x{:02x}'", u32::from(control)),
        other => format!("'{other}'"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_told_with_their_paths_and_the_last_one_counts() {
        let body =
            br#"{"kind":"Pod","kind":"Pod","spec":{"containers":[{"image":"a"},{"image":"b","image":"c"}]},
            "metadata":{"labels":{"x":"1","x":"2","x":"3"}}}"#;
        let decoded = decode(body).unwrap();
        assert_eq!(decoded.duplicates, ["kind", "spec.containers[1].image", "metadata.labels.x"]);
        assert_eq!(
            decoded.value,
            json!({"kind": "Pod", "spec": {"containers": [{"image": "a"}, {"image": "c"}]},
                "metadata": {"labels": {"x": "3"}}})
        );
    }

    #[test]
    fn errors_read_as_go_words_them() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("{\"a\": \"b", "unexpected end of JSON input"),
            ("nope", "invalid character 'o' in literal null (expecting 'u')"),
            ("{\"a\": trux}", "invalid character 'x' in literal true (expecting 'e')"),
            ("<html>", "invalid character '<' looking for beginning of value"),
            ("{\n \"a\": ?}", "invalid character '?' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\": 1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{a: 1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\": 1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("-x", "invalid character 'x' in numeric literal"),
        ];
        for (body, expected) in cases {
            assert_eq!(decode(body.as_bytes()), Err(DecodeError::Syntax(expected.to_owned())), "{body}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert_eq!(decode(deep.as_bytes()), Err(DecodeError::Syntax("exceeded max depth".to_owned())));
    }

    #[test]
    fn what_is_not_utf_8_is_replaced() {
        assert_eq!(decode(b"\"a\xffb\"").unwrap().value, json!("a\u{fffd}b"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body);
        }

        #[test]
        fn nearly_json_never_panics(body in r#"[\[\]{}",:a-f0-9 \n\\ntr.-]{0,40}"#) {
            let _ = decode(body.as_bytes());
        }
    }
}
