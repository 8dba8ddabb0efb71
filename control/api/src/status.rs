//! `meta/v1 Status`: how the API says no, with Kubernetes' reasons, codes and wording.

use serde::{Deserialize, Serialize};

use crate::field::FieldError;
use crate::scheme::Resource;

/// One cause of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// Machine-readable reason.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
    /// Path of the field.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub field: String,
}

/// What a refusal is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// The object's name.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub name: String,
    /// The API group.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub group: String,
    /// Kind or resource, as Kubernetes fills it for the reason at hand.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub kind: String,
    /// The object's UID.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub uid: String,
    /// Causes, a field each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub causes: Vec<StatusCause>,
    /// When to try again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_seconds: Option<u32>,
}

/// The answer to a request that failed (or, for deletions, succeeded without an object).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    metadata: serde_json::Map<String, serde_json::Value>,
    /// `Failure` or `Success`.
    pub status: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
    /// For programs; empty for success.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// Details.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub details: Option<StatusDetails>,
    /// HTTP status code.
    pub code: u16,
}

impl Status {
    /// A failure.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: serde_json::Map::new(),
            status: "Failure".into(),
            message: message.into(),
            reason: reason.into(),
            details: None,
            code,
        }
    }

    /// The answer to a deletion that is complete.
    pub fn success(details: StatusDetails) -> Self {
        Self {
            status: "Success".into(),
            details: Some(details),
            ..Self::failure(200, "", "")
        }
    }

    /// Adds details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(details);
        self
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{} {name:?} not found", resource.qualified()))
            .with_details(object(resource, name))
    }

    /// 404: no such path or resource type.
    pub fn no_such_resource() -> Self {
        Self::failure(404, "NotFound", "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::failure(409, "AlreadyExists", format!("{} {name:?} already exists", resource.qualified()))
            .with_details(object(resource, name))
    }

    /// 409: a precondition failed or the object changed meanwhile.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        Self::failure(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified()),
        )
        .with_details(object(resource, name))
    }

    /// 422: validation failed.
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes = errors
            .iter()
            .map(|e| StatusCause {
                reason: e.kind.reason().into(),
                message: e.body(),
                field: e.path.to_string(),
            })
            .collect();
        let kind = resource.kind.to_owned();
        let qualified = if resource.group.is_empty() { kind.clone() } else { format!("{kind}.{}", resource.group) };
        Self::failure(422, "Invalid", format!("{qualified} {name:?} is invalid: {joined}")).with_details(
            StatusDetails { name: name.into(), group: resource.group.into(), kind, causes, ..Default::default() },
        )
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 401: who are you?
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 403: not allowed.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() {
            resource.qualified()
        } else {
            format!("{} {name:?}", resource.qualified())
        };
        Self::failure(403, "Forbidden", format!("{subject} is forbidden: {why}")).with_details(object(resource, name))
    }

    /// 405: no such verb here.
    pub fn method_not_allowed() -> Self {
        Self::failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 410: the revision is gone; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 413: the body is too large.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, "RequestEntityTooLarge", message)
    }

    /// 415: the body's type is not understood.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::failure(500, "InternalError", format!("Internal error occurred: {}", message.into()))
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504: it took too long.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::failure(504, "Timeout", message)
    }
}

fn object(resource: &Resource, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.into(),
        group: resource.group.into(),
        kind: resource.plural.into(),
        ..Default::default()
    }
}
