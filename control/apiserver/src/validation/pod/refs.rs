//! References in environments and downward API files: fields of the pod, resources of a container,
//! keys of ConfigMaps, Secrets and files.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use sampan_api::quantity::Quantity;
use serde_json::Value;

use crate::validation::checks::{
    Errors, dns_label, each, non_reserved_path, one_of, qualified_name, required,
};
use crate::validation::resources::quantity_of;
use crate::validation::view::text;

/// Where a reference stands: other fields may be named in variables than in files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// An environment variable.
    Env,
    /// A file of a downward API volume.
    Volume,
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields that some reference may name; the others are unknown altogether.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const CPU_DIVISORS: &[&str] = &["1m", "1"];
const BYTE_DIVISORS: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// A `fieldRef`.
pub(crate) fn field(reference: &Value, of: Use, path: &FieldPath, out: &mut Errors) {
    for name in ["apiVersion", "fieldPath"] {
        if text(reference, name).is_empty() {
            out.push(FieldError::required(&path.child(name), ""));
            return;
        }
    }
    let named = text(reference, "fieldPath");
    let at = path.child("fieldPath");
    let plain = match resolve(text(reference, "apiVersion"), named) {
        Err(reason) => {
            out.push(FieldError::invalid(&at, named, format!("error converting fieldPath: {reason}")));
            return;
        }
        Ok(Field::Entry { map: "metadata.annotations", key }) => {
            qualified_name(&key.to_lowercase(), path, out);
            return;
        }
        Ok(Field::Entry { key, .. }) => {
            qualified_name(key, path, out);
            return;
        }
        Ok(Field::Plain(name)) => name,
    };
    one_of(plain, if of == Use::Env { ENV_FIELDS } else { VOLUME_FIELDS }, &at, out);
}

/// What a field path names.
enum Field<'a> {
    /// A field.
    Plain(&'a str),
    /// One label or annotation: `metadata.labels['app']`.
    Entry { map: &'a str, key: &'a str },
}

fn resolve<'a>(version: &str, named: &'a str) -> Result<Field<'a>, String> {
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    let subscript = named.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscript.filter(|(map, _)| !map.is_empty()) {
        Some((map @ ("metadata.annotations" | "metadata.labels"), key)) => Ok(Field::Entry { map, key }),
        Some(_) => Err(format!("field label does not support subscript: {named}")),
        None if named == "spec.host" => Ok(Field::Plain("spec.nodeName")),
        None if KNOWN_FIELDS.contains(&named) => Ok(Field::Plain(named)),
        None => Err(format!("field label not supported: {named}")),
    }
}

/// A `resourceFieldRef`.
pub(crate) fn resource(reference: &Value, of: Use, path: &FieldPath, out: &mut Errors) {
    let name = text(reference, "resource");
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if of == Use::Volume && text(reference, "containerName").is_empty() {
        out.push(FieldError::required(&path.child("containerName"), ""));
    } else if name.is_empty() {
        out.push(FieldError::required(&path.child("resource"), ""));
    } else if !huge {
        one_of(name, RESOURCES, &path.child("resource"), out);
    }
    divisor(reference, name, huge, &path.child("divisor"), out);
}

fn divisor(reference: &Value, name: &str, huge: bool, path: &FieldPath, out: &mut Errors) {
    let Some(divisor) = quantity_of(reference, "divisor").filter(|divisor| *divisor != Quantity::ZERO) else {
        return;
    };
    let (known, listed, what) = match name {
        "limits.cpu" | "requests.cpu" => (CPU_DIVISORS, "1m and 1".to_owned(), "cpu"),
        "limits.memory" | "requests.memory" => (BYTE_DIVISORS, BYTE_DIVISORS.join(", "), "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (BYTE_DIVISORS, BYTE_DIVISORS.join(", "), "local ephemeral storage")
        }
        _ if huge => (BYTE_DIVISORS, BYTE_DIVISORS.join(", "), "hugepages"),
        _ => return,
    };
    if !known.contains(&divisor.to_string().as_str()) {
        let text = format!("only divisor's values {listed} are supported with the {what} resource");
        out.push(FieldError::invalid(path, name, text));
    }
}

/// A key of a ConfigMap or a Secret.
pub(crate) fn key(reference: &Value, path: &FieldPath, out: &mut Errors) {
    let (name, key) = (text(reference, "name"), text(reference, "key"));
    each(&path.child("name"), name, names::is_dns1123_subdomain(name), out);
    if key.is_empty() {
        out.push(FieldError::required(&path.child("key"), ""));
    } else {
        each(&path.child("key"), key, names::is_config_map_key(key), out);
    }
}

/// A key of a file in a volume.
pub(crate) fn file_key(reference: &Value, path: &FieldPath, out: &mut Errors) {
    for name in ["key", "volumeName", "path"] {
        required(reference, name, path, out);
    }
    let (key, volume) = (text(reference, "key"), text(reference, "volumeName"));
    if !key.is_empty() {
        each(&path.child("key"), key, names::is_env_var_name(key), out);
    }
    if !volume.is_empty() {
        dns_label(volume, &path.child("volumeName"), out);
    }
    non_reserved_path(text(reference, "path"), &path.child("path"), out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn fields_of_the_pod() {
        for (of, version, named, expected) in [
            (Use::Env, "v1", "status.podIP", ""),
            (Use::Env, "v1", "metadata.labels['a/b']", ""),
            (Use::Env, "v1", "metadata.annotations['X']", ""),
            (Use::Env, "v1", "spec.host", ""),
            (Use::Volume, "v1", "metadata.annotations", ""),
            (Use::Env, "", "metadata.name", "f.apiVersion: Required value"),
            (Use::Env, "v1", "", "f.fieldPath: Required value"),
            (
                Use::Env,
                "v2",
                "metadata.name",
                r#"f.fieldPath: Invalid value: "metadata.name": error converting fieldPath: unsupported pod version: v2"#,
            ),
            (
                Use::Env,
                "v1",
                "metadata.whoops",
                r#"f.fieldPath: Invalid value: "metadata.whoops": error converting fieldPath: field label not supported: metadata.whoops"#,
            ),
            (
                Use::Env,
                "v1",
                "metadata.name['x']",
                r#"f.fieldPath: Invalid value: "metadata.name['x']": error converting fieldPath: field label does not support subscript: metadata.name['x']"#,
            ),
            (
                Use::Env,
                "v1",
                "status.phase",
                r#"f.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs""#,
            ),
            (
                Use::Volume,
                "v1",
                "status.podIP",
                r#"f.fieldPath: Unsupported value: "status.podIP": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid""#,
            ),
        ] {
            let mut out = Errors::new();
            let reference = json!({"apiVersion": version, "fieldPath": named});
            field(&reference, of, &FieldPath::new("f"), &mut out);
            assert_eq!(texts(&out).join("\n"), expected, "{named}");
        }
    }

    #[test]
    fn resources_of_a_container() {
        for (of, reference, expected) in [
            (Use::Env, json!({"resource": "limits.cpu", "divisor": "1m"}), ""),
            (Use::Env, json!({"resource": "limits.cpu", "divisor": "0"}), ""),
            (Use::Env, json!({"resource": "requests.hugepages-2Mi", "divisor": "1Mi"}), ""),
            (Use::Volume, json!({"resource": "limits.cpu"}), "f.containerName: Required value"),
            (Use::Env, json!({}), "f.resource: Required value"),
            (
                Use::Env,
                json!({"resource": "limits.gpu"}),
                r#"f.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory""#,
            ),
            (
                Use::Env,
                json!({"resource": "limits.cpu", "divisor": "2"}),
                r#"f.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource"#,
            ),
            (
                Use::Env,
                json!({"resource": "limits.memory", "divisor": "2Mi"}),
                r#"f.divisor: Invalid value: "limits.memory": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"#,
            ),
        ] {
            let mut out = Errors::new();
            resource(&reference, of, &FieldPath::new("f"), &mut out);
            assert_eq!(texts(&out).join("\n"), expected, "{reference}");
        }
    }

    #[test]
    fn keys_of_objects_and_files() {
        let mut out = Errors::new();
        key(&json!({"name": "c", "key": "k"}), &FieldPath::new("f"), &mut out);
        file_key(&json!({"key": "K", "volumeName": "v", "path": "a"}), &FieldPath::new("f"), &mut out);
        assert!(out.is_empty(), "{out:?}");
        key(&json!({"name": "c"}), &FieldPath::new("f"), &mut out);
        file_key(&json!({"key": "K", "path": "../a"}), &FieldPath::new("g"), &mut out);
        assert_eq!(
            texts(&out),
            [
                "f.key: Required value",
                "g.volumeName: Required value",
                r#"g.path: Invalid value: "../a": must not contain '..'"#,
            ]
        );
    }
}
