//! Request bodies to objects: by media type, then strictly checked and completed.

use bytes::Bytes;
use sampan_api::codec::{self, json, protobuf};
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::schema::{self, Message};
use sampan_api::scheme::Resource;
use sampan_api::status::Status;
use sampan_api::{defaults, strict};
use serde_json::Value;

use super::options::FieldValidation;
use crate::registry::Warnings;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A body as a tree, with the paths of members that were given twice.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

/// The media type without its parameters, in lower case; JSON where none is named.
pub(crate) fn media_type(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence.is_empty() { "application/json".to_owned() } else { essence }
}

/// Reads a body by its media type; `kind` and `version` (without group) are what is expected.
pub(crate) fn body(
    content_type: &str,
    body: &Bytes,
    (kind, version): (&str, &str),
) -> Result<Decoded, Status> {
    let refuse = |error| Status::bad_request(codec::refusal(&error, kind, version, body));
    match media_type(content_type).as_str() {
        "application/json" => {
            let decoded = json::decode(body).map_err(refuse)?;
            Ok(Decoded { value: decoded.value, duplicates: decoded.duplicates })
        }
        "application/yaml" | "application/x-yaml" | "text/yaml" => {
            let text = std::str::from_utf8(body)
                .map_err(|_| Status::bad_request("error converting YAML to JSON: not UTF-8"))?;
            let value = serde_saphyr::from_str(text)
                .map_err(|e| Status::bad_request(format!("error converting YAML to JSON: {e}")))?;
            Ok(Decoded { value, duplicates: Vec::new() })
        }
        PROTOBUF => {
            let object = protobuf::decode(body).map_err(refuse)?;
            Ok(Decoded { value: object.value, duplicates: Vec::new() })
        }
        other => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, {PROTOBUF} (not {other})"
        ))),
    }
}

/// The message of a kind in the schema table.
pub(crate) fn message(name: &str) -> Result<&'static Message, Status> {
    schema::message(name).ok_or_else(|| Status::internal(format!("no schema for {name}")))
}

/// Checks that an object is of the kind that is served here, drops what is unknown as the client
/// wishes, and sets defaults. The object is in the requested shape.
pub(crate) fn object(
    resource: &'static Resource,
    decoded: Decoded,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, Status> {
    let Decoded { mut value, duplicates } = decoded;
    check_type(&mut value, &resource.api_version(), resource.kind)?;
    conform(message(resource.schema)?, &mut value, &duplicates, validation, warnings)
        .map_err(|why| undecodable(resource, &why))?;
    defaults::apply(resource, &mut value);
    Ok(value)
}

/// The same for a kind that is no resource of its own (`Binding`, `TokenRequest`, `DeleteOptions`).
pub(crate) fn plain(
    (api_version, kind, schema): (&str, &str, &str),
    decoded: Decoded,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, Status> {
    let Decoded { mut value, duplicates } = decoded;
    check_type(&mut value, api_version, kind)?;
    conform(message(schema)?, &mut value, &duplicates, validation, warnings).map_err(|why| match why {
        Refusal::Strict(text) => Status::bad_request(text),
        Refusal::Type(text) => Status::bad_request(format!(
            "{kind} in version {api_version:?} cannot be handled as a {kind}: {text}"
        )),
    })?;
    Ok(value)
}

/// Why an object does not conform.
pub(crate) enum Refusal {
    /// A value is of the wrong type.
    Type(String),
    /// Strictness was asked for, and there are unknown or duplicate fields.
    Strict(String),
}

/// Brings an object into the form of its message; unknown and duplicate fields are refused, warned
/// about or ignored.
pub(crate) fn conform(
    message: &'static Message,
    value: &mut Value,
    duplicates: &[String],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), Refusal> {
    let unknown = strict::conform(message, value).map_err(|e| Refusal::Type(e.to_string()))?;
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            for complaint in strict::complaints(duplicates, &unknown) {
                warnings.add(complaint);
            }
        }
        FieldValidation::Strict if duplicates.is_empty() && unknown.is_empty() => {}
        FieldValidation::Strict => return Err(Refusal::Strict(strict::strict_error(duplicates, &unknown))),
    }
    Ok(())
}

/// 400 about an object that does not conform.
pub(crate) fn undecodable(resource: &Resource, refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Strict(text) => Status::bad_request(text.clone()),
        Refusal::Type(text) => {
            let (kind, version) = (resource.kind, resource.api_version());
            Status::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {text}",
                version.rsplit('/').next().unwrap_or(&version)
            ))
        }
    }
}

/// Checks the type of an object; one that names none is taken for the right one.
fn check_type(value: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let Some(members) = value.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal into a {kind}"
        )));
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let (given_version, given_kind) = (text("apiVersion"), text("kind"));
    if !matches!(given_version, "") && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !matches!(given_kind, "") && given_kind != kind {
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        return Err(Status::bad_request(format!(
            "{given_kind} in version {version:?} cannot be handled as a {kind}: converting ({given_kind}) to ({kind}): \
             unknown conversion"
        )));
    }
    members.insert("apiVersion".into(), api_version.into());
    members.insert("kind".into(), kind.into());
    Ok(())
}

/// Puts an object into the namespace of the request, unless it names another.
pub(crate) fn ensure_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let given = ObjectMeta::of(object).namespace();
    if given == namespace {
        return Ok(());
    }
    if namespace.is_empty() {
        meta::remove(object, "namespace");
        return Ok(());
    }
    if !given.is_empty() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::set(object, "namespace", namespace);
    Ok(())
}

/// Checks that an object is the one that the URL names.
pub(crate) fn ensure_name(object: &Value, name: &str) -> Result<(), Status> {
    match ObjectMeta::of(object).name() {
        given if given == name => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        given => Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_another_type_are_refused_and_untyped_ones_are_taken() {
        for (value, ok) in [
            (json!({}), true),
            (json!({"apiVersion": "v1", "kind": "Pod"}), true),
            (json!({"apiVersion": "v1"}), true),
            (json!({"apiVersion": "apps/v1", "kind": "Pod"}), false),
            (json!({"apiVersion": "v1", "kind": "Node"}), false),
            (json!([]), false),
        ] {
            let mut checked = value.clone();
            assert_eq!(check_type(&mut checked, "v1", "Pod").is_ok(), ok, "{value}");
        }
    }

    #[test]
    fn namespaces_and_names_must_be_those_of_the_url() {
        let object = |ns: &str| json!({"metadata": {"name": "a", "namespace": ns}});
        for (given, wanted, ok) in [("", "x", true), ("x", "x", true), ("y", "x", false), ("y", "", true)] {
            let mut object = object(given);
            assert_eq!(ensure_namespace(&mut object, wanted).is_ok(), ok, "{given} {wanted}");
            if ok {
                assert_eq!(ObjectMeta::of(&object).namespace(), wanted);
            }
        }
        assert!(ensure_name(&object("x"), "a").is_ok());
        assert!(
            ensure_name(&object("x"), "b")
                .unwrap_err()
                .message
                .contains("(a) does not match the name on the URL (b)")
        );
    }

    #[test]
    fn yaml_bodies_are_read() {
        let decoded =
            body("application/yaml; charset=utf-8", &Bytes::from_static(b"a: [1, x]\n"), ("Pod", "v1"))
                .unwrap();
        assert_eq!(decoded.value, json!({"a": [1, "x"]}));
        assert_eq!(body("text/csv", &Bytes::new(), ("Pod", "v1")).unwrap_err().code, 415);
    }
}
