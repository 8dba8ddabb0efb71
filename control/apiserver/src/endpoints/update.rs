//! `update`: an object replaced as a whole, or one part of it.

use http::{Response, StatusCode};
use sampan_api::status::Status;

use super::options::WriteOptions;
use super::{Call, Target, decode};
use crate::body::Body;
use crate::conversion;
use crate::registry::strategy::Part;

/// Replaces the object by the body's.
pub(super) async fn update(call: &Call, target: Target<'_>, part: Part) -> Result<Response<Body>, Status> {
    let renderer = call.renderer(target)?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let decoded =
        decode::body(call.content_type(), &call.body, (target.resource.kind, target.resource.version))?;
    let mut object = decode::object(target.resource, decoded, options.field_validation, &call.warnings)?;
    decode::ensure_name(&object, &call.info.name)?;
    decode::ensure_namespace(&mut object, call.namespace(target.resource))?;
    conversion::to_stored(target.resource, &mut object);
    let write = call.write(target, part, options.dry_run);
    let updated = target.registry.update(&write, &call.info.name, &|_| Ok(object.clone())).await?;
    let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(renderer.object(code, updated.object))
}
