//! Kinds that are answered at once and never stored: reviews, and `bindings`.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use sampan_api::field::{FieldError, FieldPath};
use sampan_api::meta::ObjectMeta;
use sampan_api::scheme::{self, Resource};
use sampan_api::status::Status;
use sampan_api::time;
use serde_json::{Value, json};

use super::options::WriteOptions;
use super::{Call, Target, bind, decode, respond};
use crate::auth::{Attributes, Decision, UserInfo};
use crate::body::Body;
use crate::filters::authn;

/// Answers a review.
pub(super) async fn serve(call: &Call, resource: &'static Resource) -> Result<Response<Body>, Status> {
    if resource.kind == "Binding" {
        let pods = scheme::by_gvr("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
        let registry = call.core.registries.of(pods).ok_or_else(Status::no_such_resource)?;
        return bind::create(call, Target { resource: pods, registry }).await;
    }
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let decoded = decode::body(call.content_type(), &call.body, (resource.kind, resource.version))?;
    let mut review = decode::object(resource, decoded, options.field_validation, &call.warnings)?;
    decode::ensure_namespace(&mut review, call.namespace(resource))?;
    let status = match resource.kind {
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.user)}),
        "TokenReview" => token_review(call, &review).await?,
        "SelfSubjectAccessReview" => access(call, resource, &review, call.user.clone()).await?,
        "SubjectAccessReview" => access(call, resource, &review, subject(resource, &review)?).await?,
        "LocalSubjectAccessReview" => {
            check_local(call, resource, &review)?;
            access(call, resource, &review, subject(resource, &review)?).await?
        }
        "SelfSubjectRulesReview" => rules(call, &review).await?,
        _ => return Err(Status::no_such_resource()),
    };
    if let Some(members) = review.as_object_mut() {
        members.insert("status".into(), status);
    }
    if resource.kind == "SelfSubjectReview" {
        sampan_api::meta::set(&mut review, "creationTimestamp", time::format_seconds(call.now));
    }
    Ok(respond::json(StatusCode::CREATED, &review))
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if let Some(members) = info.as_object_mut() {
        if !user.uid.is_empty() {
            members.insert("uid".into(), user.uid.as_str().into());
        }
        if !user.extra.is_empty() {
            members.insert("extra".into(), json!(user.extra));
        }
    }
    info
}

async fn token_review(call: &Call, review: &Value) -> Result<Value, Status> {
    let token = text(review, "/spec/token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = strings(review.pointer("/spec/audiences"));
    Ok(match authn::token_user(&call.core, token, &audiences).await {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Err(why) => json!({"user": {}, "error": why}),
    })
}

async fn access(call: &Call, resource: &Resource, review: &Value, user: UserInfo) -> Result<Value, Status> {
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let (about, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    let attributes = match (about, path) {
        (Some(about), None) => Attributes::Resource {
            verb: text(about, "/verb"),
            group: text(about, "/group"),
            resource: text(about, "/resource"),
            subresource: text(about, "/subresource"),
            namespace: text(about, "/namespace"),
            name: text(about, "/name"),
        },
        (None, Some(path)) => Attributes::Path { verb: text(path, "/verb"), path: text(path, "/path") },
        (both, _) => {
            let at = FieldPath::new("spec").child(if both.is_some() {
                "nonResourceAttributes"
            } else {
                "resourceAttributes"
            });
            let why = match both {
                Some(_) => "cannot be specified in combination with resourceAttributes",
                None => "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            };
            return Err(Status::invalid(resource, "", &[FieldError::invalid(&at, Value::Null, why)]));
        }
    };
    Ok(match call.core.authorizer.authorize(&user, &attributes).await {
        Decision::Allow(why) => json!({"allowed": true, "reason": why}),
        Decision::NoOpinion => json!({"allowed": false}),
        Decision::Deny(why) => json!({"allowed": false, "denied": true, "reason": why}),
    })
}

/// Whom a review is about.
fn subject(resource: &Resource, review: &Value) -> Result<UserInfo, Status> {
    let name = text(review, "/spec/user");
    let groups = strings(review.pointer("/spec/groups"));
    if name.is_empty() && groups.is_empty() {
        let path = FieldPath::new("spec").child("user");
        let error = FieldError::invalid(&path, "", "at least one of user or group must be specified");
        return Err(Status::invalid(resource, "", &[error]));
    }
    let extra = review.pointer("/spec/extra").and_then(Value::as_object);
    let extra: BTreeMap<_, _> =
        extra.into_iter().flatten().map(|(key, value)| (key.clone(), strings(Some(value)))).collect();
    Ok(UserInfo { name: name.to_owned(), uid: text(review, "/spec/uid").to_owned(), groups, extra })
}

fn check_local(call: &Call, resource: &Resource, review: &Value) -> Result<(), Status> {
    let about = review.pointer("/spec/resourceAttributes");
    let path = FieldPath::new("spec").child("resourceAttributes");
    let error = match about {
        None => FieldError::required(
            &path,
            "must be specified: a local review is about a resource in a namespace",
        ),
        Some(about) if text(about, "/namespace") != call.info.namespace => {
            let given = text(about, "/namespace");
            FieldError::invalid(&path.child("namespace"), given, "must match metadata.namespace")
        }
        Some(_) => return Ok(()),
    };
    Err(Status::invalid(resource, ObjectMeta::of(review).name(), &[error]))
}

async fn rules(call: &Call, review: &Value) -> Result<Value, Status> {
    let namespace = text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (resources, paths) = call.core.authorizer.rules(&call.user, namespace).await;
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
