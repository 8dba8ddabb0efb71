//! `meta/v1 Status`: how the API says no, with Kubernetes' reasons, codes and wording.

use serde::{Deserialize, Serialize};

use crate::field::{FieldError, go_quote};
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
        Self { status: "Success".into(), details: Some(details), ..Self::failure(200, "", "") }
    }

    /// Adds details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(details);
        self
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{} {} not found", resource.qualified(), go_quote(name)))
            .with_details(object(resource, name))
    }

    /// 404: no such path or resource type.
    pub fn no_such_resource() -> Self {
        Self::failure(404, "NotFound", "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::failure(
            409,
            "AlreadyExists",
            format!("{} {} already exists", resource.qualified(), go_quote(name)),
        )
        .with_details(object(resource, name))
    }

    /// 409: a precondition failed or the object changed meanwhile.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        Self::failure(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} {}: {why}", resource.qualified(), go_quote(name)),
        )
        .with_details(object(resource, name))
    }

    /// 422: validation failed.
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        // The same sentence is not said twice, though each error remains a cause.
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(ToString::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let joined = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
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
        let qualified =
            if resource.group.is_empty() { kind.clone() } else { format!("{kind}.{}", resource.group) };
        Self::failure(422, "Invalid", format!("{qualified} {} is invalid{joined}", go_quote(name)))
            .with_details(StatusDetails {
                name: name.into(),
                group: resource.group.into(),
                kind,
                causes,
                ..Default::default()
            })
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
            format!("{} {}", resource.qualified(), go_quote(name))
        };
        Self::failure(403, "Forbidden", format!("{subject} is forbidden: {why}"))
            .with_details(object(resource, name))
    }

    /// 405: no such verb here.
    pub fn method_not_allowed() -> Self {
        Self::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 410: the revision is gone; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 413: the body is too large.
    pub fn too_large(message: impl Into<String>) -> Self {
        let message = format!("Request entity too large: {}", message.into());
        Self::failure(413, "RequestEntityTooLarge", message)
    }

    /// 415: the body's type is not understood.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let cause = StatusCause { message: message.clone(), ..StatusCause::default() };
        Self::failure(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_details(StatusDetails { causes: vec![cause], ..StatusDetails::default() })
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504: it took too long.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::failure(504, "Timeout", format!("Timeout: {}", message.into()))
            .with_details(StatusDetails::default())
    }

    /// 504: a resource version that has not been reached yet.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let cause = StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            ..StatusCause::default()
        };
        Self::timeout(format!("Too large resource version: {requested}, current: {current}")).with_details(
            StatusDetails { causes: vec![cause], retry_after_seconds: Some(1), ..StatusDetails::default() },
        )
    }

    /// 429: again, later.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, "TooManyRequests", message).with_details(StatusDetails {
            retry_after_seconds: Some(retry_after_seconds),
            ..StatusDetails::default()
        })
    }

    /// 422 for a patch that cannot be applied. Kubernetes says no more than this sentence; why it
    /// failed stands in the cause.
    pub fn unprocessable(why: impl Into<String>) -> Self {
        let message = "the server rejected our request due to an error in our request";
        let cause = StatusCause { message: why.into(), ..StatusCause::default() };
        Self::failure(422, "Invalid", message)
            .with_details(StatusDetails { causes: vec![cause], ..StatusDetails::default() })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::field::FieldPath;
    use crate::scheme;

    fn resource(group: &str, plural: &str) -> &'static Resource {
        scheme::by_gvr(group, "v1", plural).unwrap()
    }

    #[test]
    fn refusals_read_as_kubernetes_words_them() {
        let pods = resource("", "pods");
        let leases = resource("coordination.k8s.io", "leases");
        let details = json!({"name": "a", "group": "coordination.k8s.io", "kind": "leases"});
        for (status, message, details) in [
            (Status::not_found(pods, "a"), "pods \"a\" not found", json!({"name": "a", "kind": "pods"})),
            (
                Status::already_exists(leases, "a"),
                "leases.coordination.k8s.io \"a\" already exists",
                details.clone(),
            ),
            (
                Status::conflict(leases, "a", "why"),
                "Operation cannot be fulfilled on leases.coordination.k8s.io \"a\": why",
                details.clone(),
            ),
            (
                Status::forbidden(leases, "a", "no"),
                "leases.coordination.k8s.io \"a\" is forbidden: no",
                details,
            ),
            (Status::forbidden(pods, "", "no"), "pods is forbidden: no", json!({"kind": "pods"})),
            (Status::internal("oh"), "Internal error occurred: oh", json!({"causes": [{"message": "oh"}]})),
            (Status::timeout("slow"), "Timeout: slow", json!({})),
            (
                Status::too_large_resource_version(9, 7),
                "Timeout: Too large resource version: 9, current: 7",
                json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                    "retryAfterSeconds": 1}),
            ),
        ] {
            let written = serde_json::to_value(&status).unwrap();
            assert_eq!(written["message"], message);
            assert_eq!(written["details"], details, "{message}");
            assert_eq!(written["status"], "Failure");
            assert_eq!((&written["kind"], &written["apiVersion"]), (&json!("Status"), &json!("v1")));
        }
    }

    #[test]
    fn invalid_objects_list_every_cause_and_say_each_sentence_once() {
        let pods = resource("", "pods");
        let path = FieldPath::new("spec").child("x");
        let one = FieldError::required(&path, "");
        let two = FieldError::invalid(&path, "v", "bad");
        assert_eq!(
            Status::invalid(pods, "a", std::slice::from_ref(&one)).message,
            "Pod \"a\" is invalid: spec.x: Required value"
        );
        let status = Status::invalid(pods, "a", &[one.clone(), two, one]);
        assert_eq!(
            status.message,
            "Pod \"a\" is invalid: [spec.x: Required value, spec.x: Invalid value: \"v\": bad]"
        );
        let details = status.details.unwrap();
        assert_eq!(details.kind, "Pod");
        assert_eq!(details.causes.len(), 3);
        assert_eq!(details.causes[1].reason, "FieldValueInvalid");
        assert_eq!(details.causes[1].message, "Invalid value: \"v\": bad");
        assert_eq!(details.causes[1].field, "spec.x");
        let leases = resource("coordination.k8s.io", "leases");
        assert_eq!(Status::invalid(leases, "b", &[]).message, "Lease.coordination.k8s.io \"b\" is invalid");
    }
}
