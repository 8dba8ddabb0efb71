//! `get`: one object.

use http::{Response, StatusCode};
use sampan_api::status::Status;

use super::{Call, Target};
use crate::body::Body;
use crate::cacher::TypeMeta;
use crate::registry::Registry;

/// Answers one object: from the store, or from the cache where the client is content with a
/// revision that the cache has reached.
pub(super) async fn get(call: &Call, target: Target<'_>) -> Result<Response<Body>, Status> {
    let renderer = call.renderer(target)?;
    let (namespace, name) = (call.namespace(target.resource), &call.info.name);
    if let Some(version) = call.query.get("resourceVersion") {
        let revision: u64 = version.parse().map_err(|_| {
            Status::bad_request(format!("invalid resource version {version:?}: it must be a number"))
        })?;
        call.core.caches.wait_for(revision).await?;
        if let Some(object) = target.registry.cacher().get(&Registry::relative_key(namespace, name)) {
            let api_version = target.registry.resource().api_version();
            let of = TypeMeta { api_version: &api_version, kind: target.resource.kind };
            return Ok(renderer.object(StatusCode::OK, object.to_value(Some(of), object.revision())));
        }
    }
    let found = target.registry.get(target.resource, namespace, name).await?;
    Ok(renderer.object(StatusCode::OK, found.value))
}
