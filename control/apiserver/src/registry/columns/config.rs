//! ConfigMaps and Secrets: how much they hold, never what.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, age, column, name};
use crate::registry::strategy::Column;
use crate::validation::view::{map, text};

/// The columns of ConfigMaps.
pub(crate) const CONFIG_MAP: &[Column] = &[
    NAME,
    column(
        "Data",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    AGE,
];

/// The cells of a ConfigMap.
pub(crate) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = map(object, "data").len() + map(object, "binaryData").len();
    vec![name(object), keys.into(), age(object, now)]
}

/// The columns of Secrets.
pub(crate) const SECRET: &[Column] = &[
    NAME,
    column(
        "Type",
        "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    column(
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    AGE,
];

/// The cells of a Secret.
pub(crate) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "type").into(), map(object, "data").len().into(), age(object, now)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_counted() {
        let now = "2025-01-01T01:00:00Z".parse().unwrap();
        let mut object = json!({"metadata": {"name": "n", "creationTimestamp": "2025-01-01T00:00:00Z"},
            "data": {"a": "", "b": ""}, "binaryData": {"c": ""}});
        assert_eq!(config_map(&object, now), [json!("n"), json!(3), json!("60m")]);
        object["type"] = json!("Opaque");
        assert_eq!(secret(&object, now), [json!("n"), json!("Opaque"), json!(2), json!("60m")]);
    }
}
