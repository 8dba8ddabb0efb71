//! Everything that is no resource: discovery, OpenAPI, version, health, metrics.

mod groups;
mod health;
mod openapi;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use sampan_api::status::Status;
use serde_json::{Value, json};

use crate::auth::JOIN_PATHS;
use crate::body::Body;
use crate::endpoints::{Call, respond};
use crate::metrics;

/// The version that we claim to be: Kubernetes' and, behind the plus, our own.
pub(crate) const GIT_VERSION: &str = concat!("v1.35.0+sampan.", env!("CARGO_PKG_VERSION"));

/// Documents that are made once and kept small.
#[derive(Default)]
pub(crate) struct Documents {
    openapi: openapi::OpenApi,
}

/// Answers a request for something that is no resource.
pub(crate) async fn serve(call: &Call) -> Result<Response<Body>, Status> {
    let path = call.info.path.trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    if !matches!(call.info.verb.as_str(), "get" | "head") {
        return Err(Status::method_not_allowed());
    }
    match segments.as_slice() {
        [] => {
            let mut paths = groups::paths();
            if call.core.extension.is_some() {
                paths.extend(JOIN_PATHS.iter().map(|path| (*path).to_owned()));
                paths.sort();
            }
            Ok(respond::json(StatusCode::OK, &json!({"paths": paths})))
        }
        ["version"] => Ok(respond::json(StatusCode::OK, &version())),
        [check @ ("healthz" | "livez" | "readyz"), rest @ ..] => health::serve(call, check, rest).await,
        ["metrics"] => Ok(respond::bytes(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::render(&call.core),
        )),
        ["openapi", "v3", rest @ ..] => openapi::serve(call, rest),
        ["api"] => Ok(discovery(call, groups::aggregated_core, || groups::versions(&call.core.advertise))),
        ["apis"] => Ok(discovery(call, groups::aggregated_groups, groups::group_list)),
        ["api", version] => found(groups::resources("", version)),
        ["apis", group] => found(groups::group(group)),
        ["apis", group, version] => found(groups::resources(group, version)),
        // OpenAPI v2 is not served: clients take a 404 and use v3.
        _ => Err(Status::no_such_resource()),
    }
}

fn found(document: Option<Value>) -> Result<Response<Body>, Status> {
    document.map(|value| respond::json(StatusCode::OK, &value)).ok_or_else(Status::no_such_resource)
}

/// Aggregated discovery where the client asks for it, the old form else.
fn discovery(
    call: &Call,
    aggregated: impl FnOnce(&str) -> Value,
    plain: impl FnOnce() -> Value,
) -> Response<Body> {
    let accept: Vec<&str> = call.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    match groups::aggregated_version(&accept.join(",")) {
        None => respond::json(StatusCode::OK, &plain()),
        Some(version) => {
            let mut response = respond::json(StatusCode::OK, &aggregated(version));
            let kind = match version {
                "v2beta1" => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
                _ => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            };
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
            response
        }
    }
}

fn version() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1",
        "minor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{architecture}", std::env::consts::OS),
    })
}
