//! OpenAPI v3 documents, one per group and version, from the scheme's rows and the schema table.
//!
//! kubectl reads them to explain, to validate and to compute patches; what is said here about merge
//! keys decides what `kubectl apply` sends. Making a document costs some milliseconds and megabytes:
//! the caller keeps the bytes it serves.

mod components;
mod descriptions;
mod parameters;
mod paths;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value, json};

use crate::schema;
use crate::scheme::Resource;
use components::Components;
use descriptions::Descriptions;

/// What the server can do beyond the verbs in the scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// PATCH takes `application/apply-patch+yaml`.
    pub server_side_apply: bool,
}

/// The document of one group and version, with paths for `resources` and schemas for all that they
/// refer to.
pub fn v3_document(
    group: &str,
    version: &str,
    resources: &[&'static Resource],
    git_version: &str,
    features: Features,
) -> Value {
    let text = descriptions::text();
    let descriptions = Descriptions::parse(&text);
    let mut components = Components::new(group, version, &descriptions);
    let mut paths = Map::new();
    paths.insert(format!("{}/", prefix(group, version)), paths::discovery(group, version, &mut components));
    for resource in resources {
        paths::add(resource, features, &descriptions, &mut components, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": git_version},
        "paths": paths,
        "components": {
            "schemas": components.finish(),
            "securitySchemes": {"BearerToken": {
                "description": "Bearer Token authentication",
                "in": "header",
                "name": "authorization",
                "type": "apiKey",
            }},
        },
    })
}

/// A short text that changes when the document would: for the index, before any document is made.
pub fn v3_hash(
    group: &str,
    version: &str,
    resources: &[&'static Resource],
    git_version: &str,
    features: Features,
) -> String {
    let mut hasher = DefaultHasher::new();
    (group, version, git_version, features, schema::source(), descriptions::COMPRESSED).hash(&mut hasher);
    for resource in resources {
        // A row is plain data, and all of it counts.
        format!("{resource:?}").hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}

/// The index at `/openapi/v3`: group, version and hash of each document.
pub fn v3_index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Value {
    let entries = documents.into_iter().map(|(group, version, hash)| {
        let path = prefix(group, version);
        let url = format!("/openapi/v3{path}?hash={hash}");
        (path.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": url}))
    });
    json!({"paths": entries.collect::<Map<_, _>>()})
}

/// Where a group and version are served: `/api/v1`, `/apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

#[cfg(test)]
mod tests;
