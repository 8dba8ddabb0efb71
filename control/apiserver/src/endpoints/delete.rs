//! `delete` and `deletecollection`.

use http::{Response, StatusCode};
use sampan_api::field::{FieldError, FieldPath};
use sampan_api::meta::ObjectMeta;
use sampan_api::status::{Status, StatusDetails};
use serde_json::{Value, json};

use super::decode::{self, Decoded};
use super::list::selection;
use super::options::{FieldValidation, ListOptions, invalid_options};
use super::respond;
use super::{Call, Target};
use crate::body::Body;
use crate::conversion;
use crate::registry::DeleteOptions;
use crate::registry::strategy::Part;

const KIND: &str = "DeleteOptions";
const SCHEMA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const POLICIES: [&str; 3] = ["Background", "Foreground", "Orphan"];

/// Kinds whose deletion is answered with the object even when it is gone.
const RETURNED: [&str; 2] = ["pods", "serviceaccounts"];

/// Deletes one object.
pub(super) async fn delete(call: &Call, target: Target<'_>) -> Result<Response<Body>, Status> {
    let renderer = call.renderer(target)?;
    let (options, dry_run) = options(call)?;
    let write = call.write(target, Part::Main, dry_run);
    let deleted = target.registry.delete(&write, &call.info.name, &options).await?;
    if deleted.gone && !RETURNED.contains(&target.resource.plural) {
        return Ok(respond::status(&Status::success(StatusDetails {
            name: call.info.name.clone(),
            group: target.resource.group.into(),
            kind: target.resource.plural.into(),
            uid: ObjectMeta::of(&deleted.object).uid().into(),
            ..StatusDetails::default()
        })));
    }
    Ok(renderer.object(StatusCode::OK, deleted.object))
}

/// Deletes the selected objects; the answer lists them.
pub(super) async fn delete_collection(call: &Call, target: Target<'_>) -> Result<Response<Body>, Status> {
    let (options, dry_run) = options(call)?;
    let selection = selection(call, target, &ListOptions::parse(&call.query)?)?;
    let write = call.write(target, Part::Main, dry_run);
    let mut items = target.registry.delete_collection(&write, &selection, &options).await?;
    for item in &mut items {
        conversion::from_stored(target.resource, item);
    }
    let list = json!({
        "kind": format!("{}List", target.resource.kind), "apiVersion": target.resource.api_version(),
        "metadata": {"resourceVersion": call.core.caches.progress().to_string()}, "items": items,
    });
    Ok(respond::json(StatusCode::OK, &list))
}

/// The options: from the body, else from the query. Also whether this is a dry run.
fn options(call: &Call) -> Result<(DeleteOptions, bool), Status> {
    let object = if call.body.is_empty() { from_query(call)? } else { from_body(call)? };
    let mut errors = Vec::new();
    check_policy(&object, &mut errors);
    let dry_run = match object.get("dryRun").and_then(Value::as_array).map(Vec::as_slice) {
        None | Some([]) => false,
        Some(values) => {
            let wrong = values.iter().filter(|v| v.as_str() != Some("All"));
            let path = FieldPath::new("dryRun");
            errors.extend(wrong.map(|v| FieldError::not_supported(&path, v.clone(), &["All"])));
            true
        }
    };
    if !errors.is_empty() {
        return Err(invalid_options(KIND, &errors));
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let options = DeleteOptions {
        grace_period_seconds: object.get("gracePeriodSeconds").and_then(Value::as_i64),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
    };
    Ok((options, dry_run))
}

fn check_policy(object: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("propagationPolicy");
    let Some(policy) = object.get("propagationPolicy").and_then(Value::as_str) else { return };
    if object.get("orphanDependents").is_some_and(|v| !v.is_null()) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid(&path, policy, why));
    }
    if !POLICIES.contains(&policy) {
        let mut supported = POLICIES.to_vec();
        supported.push("nil");
        errors.push(FieldError::not_supported(&path, policy, &supported));
    }
}

fn from_body(call: &Call) -> Result<Value, Status> {
    let Decoded { mut value, duplicates } = decode::body(call.content_type(), &call.body, (KIND, "v1"))?;
    // Every group has its own name for the same type, and clients use any of them.
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !matches!(kind, "" | KIND) {
        return Err(Status::bad_request(format!(
            "decoded object cannot be converted to DeleteOptions: it is a {kind}"
        )));
    }
    decode::conform(decode::message(SCHEMA)?, &mut value, &duplicates, FieldValidation::Warn, &call.warnings)
        .map_err(|why| match why {
            decode::Refusal::Type(text) | decode::Refusal::Strict(text) => Status::bad_request(text),
        })?;
    Ok(value)
}

fn from_query(call: &Call) -> Result<Value, Status> {
    let mut object = json!({});
    for (name, text) in ["gracePeriodSeconds", "propagationPolicy", "orphanDependents"]
        .into_iter()
        .filter_map(|name| Some((name, call.query.get(name)?)))
    {
        let value = match name {
            "gracePeriodSeconds" => text.parse::<i64>().map(Value::from).map_err(|_| {
                Status::bad_request(format!("invalid value {text:?} for the parameter {name}: not a number"))
            })?,
            "orphanDependents" => call.query.flag(name).into(),
            _ => text.into(),
        };
        insert(&mut object, name, value);
    }
    let dry_run: Vec<&str> = call.query.all("dryRun").collect();
    if !dry_run.is_empty() {
        insert(&mut object, "dryRun", dry_run.into());
    }
    Ok(object)
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}
