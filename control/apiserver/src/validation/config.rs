//! ConfigMaps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::checks::{Errors, each};
use super::view::{is_set, map, member, same};

/// The most bytes that the values of a ConfigMap or a Secret have together.
pub(crate) const SIZE_MAX: usize = 1024 * 1024;

/// What an object that was made immutable says.
pub(crate) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// The bytes behind a value in base64; decoding has checked that it is.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
}

/// What is wrong with a ConfigMap.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    let (texts, binaries) = (map(object, "data"), map(object, "binaryData"));
    let mut size = 0;
    for (key, value) in texts {
        let path = FieldPath::new("data").key(key);
        each(&path, key, names::is_config_map_key(key), &mut out);
        if binaries.contains_key(key) {
            let text = "duplicate of key present in binaryData";
            out.push(FieldError::invalid(&path, key.as_str(), text));
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in binaries {
        each(&FieldPath::new("binaryData").key(key), key, names::is_config_map_key(key), &mut out);
        size += bytes(value).len();
    }
    if size > SIZE_MAX {
        out.push(FieldError::too_long(&FieldPath::new(""), SIZE_MAX));
    }
    out
}

/// What is wrong with a changed ConfigMap.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = immutability(new, old, &["data", "binaryData"]);
    out.extend(validate(new));
    out
}

/// An object that was made immutable stays so, with all that it holds.
pub(crate) fn immutability(new: &Value, old: &Value, fields: &[&str]) -> Errors {
    let mut out = Errors::new();
    if !is_set(old, "immutable") {
        return out;
    }
    if !is_set(new, "immutable") {
        out.push(FieldError::forbidden(&FieldPath::new("immutable"), IMMUTABLE));
    }
    for field in fields {
        if !same(member(new, field), member(old, field)) {
            out.push(FieldError::forbidden(&FieldPath::new(*field), IMMUTABLE));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn keys_are_names_of_files_and_occur_once() {
        for (object, expected) in [
            (json!({"data": {"a.b_c-D": "x"}, "binaryData": {"b": "AAE="}}), vec![]),
            (json!({}), vec![]),
            (json!({"data": {"..": "x"}}), vec!["data[..]: Invalid value: \"..\": must not be '..'"]),
            (
                json!({"data": {"a": "x"}, "binaryData": {"a": "AAE="}}),
                vec!["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
            ),
        ] {
            assert_eq!(texts(&validate(&object)), expected, "{object}");
        }
        assert_eq!(validate(&json!({"binaryData": {"a b": ""}})).len(), 1);
    }

    #[test]
    fn a_mebibyte_fits_and_not_a_byte_more() {
        let fits = json!({"data": {"a": "x".repeat(SIZE_MAX - 1)}, "binaryData": {"b": "AA=="}});
        assert_eq!(texts(&validate(&fits)), [""; 0]);
        let large = json!({"data": {"a": "x".repeat(SIZE_MAX)}, "binaryData": {"b": "AA=="}});
        assert_eq!(texts(&validate(&large)), ["<nil>: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn what_was_made_immutable_stays_as_it_is() {
        let old = json!({"immutable": true, "data": {"a": "x"}});
        for (new, expected) in [
            (json!({"immutable": true, "data": {"a": "x"}, "binaryData": {}}), vec![]),
            (
                json!({"data": {"a": "y"}}),
                vec![
                    "immutable: Forbidden: field is immutable when `immutable` is set",
                    "data: Forbidden: field is immutable when `immutable` is set",
                ],
            ),
            (
                json!({"immutable": true, "data": {"a": "x"}, "binaryData": {"b": "AA=="}}),
                vec!["binaryData: Forbidden: field is immutable when `immutable` is set"],
            ),
        ] {
            assert_eq!(texts(&validate_update(&new, &old)), expected, "{new}");
        }
        assert!(validate_update(&old, &json!({"data": {"a": "y"}})).is_empty());
    }
}
