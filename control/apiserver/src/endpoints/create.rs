//! `create`: a new object.

use http::{Response, StatusCode};
use sampan_api::status::Status;

use super::options::WriteOptions;
use super::{Call, Target, decode};
use crate::body::Body;
use crate::conversion;
use crate::registry::strategy::Part;

/// Creates the object of the body.
pub(super) async fn create(call: &Call, target: Target<'_>) -> Result<Response<Body>, Status> {
    let renderer = call.renderer(target)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let decoded =
        decode::body(call.content_type(), &call.body, (target.resource.kind, target.resource.version))?;
    let mut object = decode::object(target.resource, decoded, options.field_validation, &call.warnings)?;
    decode::ensure_namespace(&mut object, call.namespace(target.resource))?;
    conversion::to_stored(target.resource, &mut object);
    let created = target.registry.create(&call.write(target, Part::Main, options.dry_run), object).await?;
    Ok(renderer.object(StatusCode::CREATED, created))
}
