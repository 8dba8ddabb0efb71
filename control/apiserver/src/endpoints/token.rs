//! `serviceaccounts/token`: a token for an account, perhaps bound to a pod, secret or node.

use http::{Response, StatusCode};
use jiff::SignedDuration;
use sampan_api::field::go_quote;
use sampan_api::meta::ObjectMeta;
use sampan_api::scheme;
use sampan_api::status::{Status, StatusDetails};
use sampan_api::time;
use serde_json::{Value, json};

use super::options::WriteOptions;
use super::{Call, Target, decode, respond};
use crate::auth::{Binding, Claims, KubernetesClaims};
use crate::body::Body;
use crate::validation;

const REQUEST: (&str, &str, &str) =
    ("authentication.k8s.io/v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest");
const DEFAULT_SECONDS: i64 = 3600;

/// Signs a token as the body asks for.
pub(super) async fn create(call: &Call, target: Target<'_>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let decoded = decode::body(call.content_type(), &call.body, ("TokenRequest", "v1"))?;
    let mut request = decode::plain(REQUEST, decoded, options.field_validation, &call.warnings)?;
    decode::ensure_namespace(&mut request, &call.info.namespace)?;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let account = target.registry.get(target.resource, namespace, name).await?.value;
    set_lifetime(&mut request);
    check(&request, name)?;
    let seconds =
        request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    let (pod, secret, node) = bound_object(call, &request).await?;
    let audiences: Vec<String> = match request.pointer("/spec/audiences").and_then(Value::as_array) {
        Some(list) if !list.is_empty() => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => call.core.tokens.audiences().to_vec(),
    };
    let now = call.now.as_second();
    let expires = call.now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(call.now);
    let claims = Claims {
        iss: call.core.tokens.issuer().to_owned(),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        aud: audiences.clone(),
        exp: expires.as_second(),
        iat: now,
        nbf: now,
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes: KubernetesClaims {
            namespace: namespace.clone(),
            serviceaccount: Binding { name: name.clone(), uid: ObjectMeta::of(&account).uid().to_owned() },
            pod,
            secret,
            node,
        },
    };
    let token = call.core.tokens.sign(&claims).map_err(|e| Status::internal(e.to_string()))?;
    if let Some(members) = request.as_object_mut() {
        if let Some(spec) = members.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("audiences".into(), audiences.into());
        }
        members.insert(
            "metadata".into(),
            json!({"name": name, "namespace": namespace, "creationTimestamp": time::format_seconds(call.now)}),
        );
        members.insert(
            "status".into(),
            json!({"token": token, "expirationTimestamp": time::format_seconds(expires)}),
        );
    }
    Ok(respond::json(StatusCode::CREATED, &request))
}

/// An hour, where nothing is said.
fn set_lifetime(request: &mut Value) {
    let Some(members) = request.as_object_mut() else { return };
    let spec = members.entry("spec").or_insert_with(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        spec.entry("expirationSeconds").or_insert_with(|| DEFAULT_SECONDS.into());
    }
}

/// 422 about a request that makes no sense.
fn check(request: &Value, name: &str) -> Result<(), Status> {
    let errors = validation::token::validate(request);
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let texts = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
    Err(Status::failure(
        422,
        "Invalid",
        format!("TokenRequest.authentication.k8s.io {} is invalid: {texts}", go_quote(name)),
    ))
}

type Bound = (Option<Binding>, Option<Binding>, Option<Binding>);

/// What the token is bound to: (pod, secret, node). It must exist, be the one meant, and a pod must
/// run as the account.
async fn bound_object(call: &Call, request: &Value) -> Result<Bound, Status> {
    let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|r| r.is_object()) else {
        return Ok((None, None, None));
    };
    let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    let (plural, namespace) = match (text("apiVersion"), kind) {
        ("v1", "Pod") => ("pods", call.info.namespace.as_str()),
        ("v1", "Secret") => ("secrets", call.info.namespace.as_str()),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount to object type {version}, Kind={kind}"
            )));
        }
    };
    let resource = scheme::by_gvr("", "v1", plural).ok_or_else(Status::no_such_resource)?;
    let registry = call.core.registries.of(resource).ok_or_else(Status::no_such_resource)?;
    let found = registry.get(resource, namespace, name).await?.value;
    let is = ObjectMeta::of(&found).uid();
    if !uid.is_empty() && uid != is {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(resource, name, &why));
    }
    let binding = Binding { name: name.to_owned(), uid: is.to_owned() };
    if plural == "pods" {
        let runs_as = found.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
        if runs_as != call.info.name {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                go_quote(&call.info.name)
            ))
            .with_details(StatusDetails::default()));
        }
        let node = node_of(call, &found).await?;
        return Ok((Some(binding), None, node));
    }
    Ok(if plural == "secrets" { (None, Some(binding), None) } else { (None, None, Some(binding)) })
}

/// The node that a pod runs on, as part of the pod's token.
async fn node_of(call: &Call, pod: &Value) -> Result<Option<Binding>, Status> {
    let name = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let node = call.core.finder.core("nodes", "", name).await?;
    Ok(node.map(|node| Binding { name: name.to_owned(), uid: ObjectMeta::of(&node).uid().to_owned() }))
}
