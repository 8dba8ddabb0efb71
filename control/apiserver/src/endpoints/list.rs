//! `list`: many objects.

use http::Response;
use sampan_api::status::Status;

use super::options::ListOptions;
use super::{Call, Target};
use crate::body::Body;
use crate::cacher::Selection;
use crate::conversion;

/// Answers the selected objects, or the part of them that the limit allows.
pub(super) async fn list(call: &Call, target: Target<'_>) -> Result<Response<Body>, Status> {
    let renderer = call.renderer(target)?;
    let options = ListOptions::parse(&call.query)?;
    let request = options.list_request(selection(call, target, &options)?)?;
    let listing = target.registry.list(&request).await?;
    Ok(renderer.list(&listing))
}

/// Which objects a list, watch or deletion is about; refuses field labels that the kind has not.
pub(super) fn selection(call: &Call, target: Target<'_>, options: &ListOptions) -> Result<Selection, Status> {
    let fields = conversion::selector_to_stored(target.resource, options.fields.clone());
    let known = target.registry.strategy().field_labels();
    let unknown = fields.requirements().iter().find(|r| {
        !known.contains(&r.field.as_str())
            && !matches!(r.field.as_str(), "metadata.name" | "metadata.namespace")
    });
    if let Some(requirement) = unknown {
        return Err(Status::bad_request(format!("field label not supported: {}", requirement.field)));
    }
    Ok(Selection {
        namespace: call.namespace(target.resource).to_owned(),
        labels: options.labels.clone(),
        fields,
    })
}
