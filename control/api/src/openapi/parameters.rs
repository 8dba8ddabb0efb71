//! Query and path parameters. Options travel in the query of every verb but one, so that most
//! parameters are the fields of an options message.

use serde_json::{Value, json};

use super::descriptions::Descriptions;
use crate::schema::{self, Kind, Shape};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// How the query says which container, and how much of its log.
const LOG: &[(&str, &str, &str)] = &[
    ("container", "string", "The container whose log to stream; may be left out if the pod has but one."),
    ("follow", "boolean", "Keep the stream open and send what is logged later."),
    (
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Do not verify the certificate of the node that has the log.",
    ),
    ("limitBytes", "integer", "End the log after this many bytes."),
    ("previous", "boolean", "The log of the container's previous instance."),
    ("sinceSeconds", "integer", "Only lines of the last seconds."),
    ("sinceTime", "string", "Only lines logged at this time (RFC 3339) or later."),
    ("stream", "string", "Which stream to return: All, Stdout or Stderr."),
    ("tailLines", "integer", "Only so many lines from the end."),
    ("timestamps", "boolean", "Begin every line with its time (RFC 3339)."),
];

/// The fields of a message of options, as query parameters.
pub(super) fn options(kind: &str, descriptions: &Descriptions<'_>) -> Vec<Value> {
    let Some(message) = schema::message(&format!("{META}.{kind}")) else { return Vec::new() };
    // Preconditions are an object; they stand in the body.
    let fields = message.fields.iter().filter(|field| field.tag != 0 && field.message().is_none());
    let parameters = fields.map(|field| {
        let ty = match (field.kind, field.shape) {
            (Kind::Bool, Shape::One) => "boolean",
            (Kind::Int32 | Kind::Int64, Shape::One) => "integer",
            _ => "string",
        };
        query(field.name, ty, &descriptions.field(message.name, field.name))
    });
    parameters.collect()
}

/// Parameters of a pod's log.
pub(super) fn log() -> Vec<Value> {
    LOG.iter().map(|(name, ty, description)| query(name, ty, description)).collect()
}

/// The parameter that every operation has.
pub(super) fn pretty() -> Value {
    query("pretty", "string", "If true, the answer is indented.")
}

/// The namespace in the path.
pub(super) fn namespace() -> Value {
    path("namespace", "object name and auth scope, such as for teams and projects")
}

/// The object's name in the path.
pub(super) fn name(kind: &str) -> Value {
    path("name", &format!("name of the {kind}"))
}

fn query(name: &str, ty: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": ty, "uniqueItems": true},
    })
}

fn path(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "description": description,
        "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}
