//! `patch`: part of an object changed, by JSON patch, merge patch or strategic merge patch.
//!
//! Server-side apply is not served: its media type is refused as one that is not known.

use http::{Response, StatusCode};
use sampan_api::patch::{json_patch, merge_patch, strategic};
use sampan_api::schema::Message;
use sampan_api::scheme::Resource;
use sampan_api::status::Status;
use sampan_api::{codec, defaults};
use serde_json::Value;

use super::options::{FieldValidation, WriteOptions};
use super::{Call, Target, decode};
use crate::body::Body;
use crate::conversion;
use crate::registry::Warnings;
use crate::registry::strategy::Part;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
}

impl Kind {
    fn parse(content_type: &str) -> Result<Self, Status> {
        match decode::media_type(content_type).as_str() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            _ => Err(Status::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json",
            )),
        }
    }
}

/// A patch, read.
struct Patch {
    kind: Kind,
    patch: Value,
    duplicates: Vec<String>,
    message: &'static Message,
    resource: &'static Resource,
    validation: FieldValidation,
}

impl Patch {
    /// The patched object, in the stored shape as the current one.
    fn apply(&self, current: &Value, warnings: &Warnings) -> Result<Value, Status> {
        let mut object = current.clone();
        conversion::from_stored(self.resource, &mut object);
        match self.kind {
            Kind::Json => json_patch(&mut object, &self.patch)?,
            Kind::Merge => merge_patch(&mut object, &self.patch)?,
            Kind::Strategic => object = strategic::apply(self.message, object, self.patch.clone())?,
        }
        decode::conform(self.message, &mut object, &self.duplicates, self.validation, warnings)
            .map_err(|why| decode::undecodable(self.resource, &why))?;
        defaults::apply(self.resource, &mut object);
        Ok(object)
    }
}

/// Applies the body's patch.
pub(super) async fn patch(call: &Call, target: Target<'_>, part: Part) -> Result<Response<Body>, Status> {
    let renderer = call.renderer(target)?;
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    let kind = Kind::parse(call.content_type())?;
    let decoded = codec::json::decode(&call.body)
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    let patch = Patch {
        kind,
        patch: decoded.value,
        duplicates: if kind == Kind::Json { Vec::new() } else { decoded.duplicates },
        message: decode::message(target.resource.schema)?,
        resource: target.resource,
        validation: options.field_validation,
    };
    let (name, namespace) = (&call.info.name, call.namespace(target.resource));
    let change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| Status::not_found(target.resource, name))?;
        let mut object = patch.apply(current, &call.warnings)?;
        decode::ensure_name(&object, name)?;
        decode::ensure_namespace(&mut object, namespace)?;
        conversion::to_stored(target.resource, &mut object);
        Ok(object)
    };
    let updated = target.registry.update(&call.write(target, part, options.dry_run), name, &change).await?;
    Ok(renderer.object(StatusCode::OK, updated.object))
}
