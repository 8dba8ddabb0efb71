//! Secrets: keys, size, and what each type must hold.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::{Map, Value};

use super::checks::{Errors, each, immutable};
use super::config::{SIZE_MAX, bytes, immutability};
use super::view::{map, member, text, walk};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// What is wrong with a Secret.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    let path = FieldPath::new("data");
    let mut size = 0;
    for (key, value) in map(object, "data") {
        each(&path.key(key), key, names::is_config_map_key(key), &mut out);
        size += bytes(value).len();
    }
    if size > SIZE_MAX {
        out.push(FieldError::too_long(&path, SIZE_MAX));
    }
    of_type(object, &path, &mut out);
    out
}

fn of_type(object: &Value, path: &FieldPath, out: &mut Errors) {
    let data = map(object, "data");
    let mut missing = |key: &str| out.push(FieldError::required(&path.key(key), ""));
    match text(object, "type") {
        "kubernetes.io/service-account-token"
            if text(walk(object, &["metadata", "annotations"]), ACCOUNT_NAME).is_empty() =>
        {
            let path = FieldPath::new("metadata").child("annotations").key(ACCOUNT_NAME);
            out.push(FieldError::required(&path, ""));
        }
        "kubernetes.io/dockercfg" => json_object(data, ".dockercfg", path, out),
        "kubernetes.io/dockerconfigjson" => json_object(data, ".dockerconfigjson", path, out),
        "kubernetes.io/basic-auth" => {
            // Either may be left out, but not both.
            let keys = ["username", "password"];
            if keys.iter().all(|key| !data.contains_key(*key)) {
                keys.into_iter().for_each(missing);
            }
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|key| bytes(key).is_empty()) => {
            missing("ssh-privatekey");
        }
        "kubernetes.io/tls" => {
            ["tls.crt", "tls.key"].into_iter().filter(|key| !data.contains_key(*key)).for_each(missing);
        }
        _ => {}
    }
}

fn json_object(data: &Map<String, Value>, key: &str, path: &FieldPath, out: &mut Errors) {
    let path = path.key(key);
    match data.get(key) {
        None => out.push(FieldError::required(&path, "")),
        Some(value) => {
            // What is read is not kept: it may hold passwords.
            if let Err(error) = serde_json::from_slice::<Option<Map<String, Value>>>(&bytes(value)) {
                let text = json_complaint(&error);
                out.push(FieldError::invalid(&path, "<secret contents redacted>", text));
            }
        }
    }
}

/// Why it is no JSON object; Go's words where they are the same for every such text.
fn json_complaint(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    match error.classify() {
        Category::Eof => "unexpected end of JSON input".to_owned(),
        Category::Data => {
            "json: cannot unmarshal the value into Go value of type map[string]interface {}".to_owned()
        }
        Category::Io | Category::Syntax => "invalid character in JSON".to_owned(),
    }
}

/// What is wrong with a changed Secret.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    immutable(member(new, "type"), member(old, "type"), &FieldPath::new("type"), &mut out);
    out.extend(immutability(new, old, &["data"]));
    out.extend(validate(new));
    out
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn secret(kind: &str, data: &[(&str, &str)]) -> Value {
        let data: Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into())).collect();
        json!({"type": kind, "data": data})
    }

    #[test]
    fn each_type_holds_what_it_must() {
        for (kind, data, expected) in [
            ("Opaque", &[][..], vec![]),
            ("example.com/mine", &[("a", "")], vec![]),
            (
                "kubernetes.io/service-account-token",
                &[],
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            ("kubernetes.io/dockercfg", &[(".dockercfg", "{}")], vec![]),
            ("kubernetes.io/dockercfg", &[], vec!["data[.dockercfg]: Required value"]),
            (
                "kubernetes.io/dockerconfigjson",
                &[(".dockerconfigjson", "{\"auths\":")],
                vec![
                    "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input",
                ],
            ),
            (
                "kubernetes.io/basic-auth",
                &[],
                vec!["data[username]: Required value", "data[password]: Required value"],
            ),
            ("kubernetes.io/basic-auth", &[("password", "")], vec![]),
            (
                "kubernetes.io/ssh-auth",
                &[("ssh-privatekey", "")],
                vec!["data[ssh-privatekey]: Required value"],
            ),
            ("kubernetes.io/ssh-auth", &[("ssh-privatekey", "k")], vec![]),
            ("kubernetes.io/tls", &[("tls.crt", "")], vec!["data[tls.key]: Required value"]),
            ("bootstrap.kubernetes.io/token", &[("token-id", "x")], vec![]),
        ] {
            assert_eq!(texts(&validate(&secret(kind, data))), expected, "{kind} {data:?}");
        }
    }

    #[test]
    fn keys_and_size() {
        assert_eq!(
            texts(&validate(&secret("Opaque", &[("..a", "")]))),
            ["data[..a]: Invalid value: \"..a\": must not start with '..'"]
        );
        let large = "x".repeat(SIZE_MAX + 1);
        assert_eq!(
            texts(&validate(&secret("Opaque", &[("a", &large)]))),
            ["data: Too long: may not be more than 1048576 bytes"]
        );
    }

    #[test]
    fn the_type_is_for_life_and_so_is_what_was_made_immutable() {
        let old = secret("Opaque", &[("a", "b")]);
        let mut new = old.clone();
        new["type"] = json!("example.com/other");
        assert_eq!(
            texts(&validate_update(&new, &old)),
            ["type: Invalid value: \"example.com/other\": field is immutable"]
        );
        let mut old = old;
        old["immutable"] = json!(true);
        assert_eq!(
            texts(&validate_update(&secret("Opaque", &[]), &old)),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }
}
