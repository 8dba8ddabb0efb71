//! `pods/log`: what a container wrote, fetched from the pod's node.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sampan_api::field::{FieldError, go_quote};
use sampan_api::scheme;
use sampan_api::status::Status;
use serde_json::Value;

use super::query::Query;
use super::{Call, respond};
use crate::body::Body;
use crate::validation::pod_log::{self, LogBounds};

/// Why a node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No connection to the node's agent.
    #[error("node {0:?} is not connected")]
    NotConnected(String),
    /// The connection broke.
    #[error("the request to node {node:?} failed")]
    Failed {
        /// The node.
        node: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Sends requests to node agents. Paths are those of the agent's own server:
/// `/containerLogs/<namespace>/<pod>/<container>?follow=&tailLines=&...`.
#[async_trait]
pub trait NodeConnector: Send + Sync + 'static {
    /// Sends a request to a node; the answer's body may stream.
    async fn request(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, NodeError>;
}

/// How much of a node's refusal is passed on.
const REFUSAL_LIMIT: usize = 10 << 10;

/// Answers a container's log.
pub(super) async fn get(call: &Call) -> Result<Response<Body>, Status> {
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let resource = scheme::by_gvr("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
    let registry = call.core.registries.of(resource).ok_or_else(Status::no_such_resource)?;
    let options = Options::parse(&call.query, name)?;
    let pod = registry.get(resource, namespace, name).await?.value;
    let container = container(&pod, name, call.query.get("container"))?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        // Nothing can have been written yet.
        return Ok(respond::text(StatusCode::OK, Bytes::new()));
    }
    let connector = call.core.nodes.as_ref();
    let connector = connector.ok_or_else(|| Status::unavailable("this server has no connection to nodes"))?;
    let uri = format!("/containerLogs/{namespace}/{name}/{container}?{}", options.query());
    let request = Request::builder()
        .method(Method::GET)
        .uri(uri)
        .body(Body::empty())
        .map_err(|e| Status::internal(e.to_string()))?;
    let answer = connector.request(node, request).await.map_err(|e| {
        tracing::warn!(node, error = &e as &dyn std::error::Error, "a node did not answer");
        Status::unavailable(e.to_string())
    })?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer).await);
    }
    let mut response = respond::text(StatusCode::OK, Bytes::new());
    *response.body_mut() = answer.into_body();
    Ok(response)
}

/// A node's refusal as ours.
async fn refusal(answer: Response<Body>) -> Status {
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), REFUSAL_LIMIT).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned(),
        Err(_) => String::new(),
    };
    match code {
        400 => Status::bad_request(text),
        404 => Status::failure(404, "NotFound", text),
        500 => Status::internal(text),
        503 => Status::unavailable(text),
        _ => Status::failure(
            502,
            "InternalError",
            format!("an unexpected answer of the node ({code}): {text}"),
        ),
    }
}

/// The container meant: the named one, or the only one.
fn container(pod: &Value, name: &str, wanted: Option<&str>) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        let list = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|c| c.get("name").and_then(Value::as_str)).collect()
    };
    let (containers, inits, ephemerals) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if let Some(wanted) = wanted {
        let known = [&containers, &inits, &ephemerals].into_iter().flatten().any(|c| *c == wanted);
        return if known {
            Ok(wanted.to_owned())
        } else {
            Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}")))
        };
    }
    if let ([only], true, true) = (containers.as_slice(), inits.is_empty(), ephemerals.is_empty()) {
        return Ok((*only).to_owned());
    }
    let mut text = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        containers.join(" ")
    );
    if !inits.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
    }
    if !ephemerals.is_empty() {
        text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemerals.join(" ")));
    }
    Err(Status::bad_request(text))
}

/// The options of a log request that a node understands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options(Vec<(&'static str, String)>);

impl Options {
    fn parse(query: &Query, pod: &str) -> Result<Self, Status> {
        let flags = ["follow", "previous", "timestamps"].into_iter().filter(|name| query.flag(name));
        let mut options: Vec<(&'static str, String)> = flags.map(|name| (name, "true".to_owned())).collect();
        let bounds = LogBounds {
            tail_lines: number(query, "tailLines")?,
            limit_bytes: number(query, "limitBytes")?,
            since_seconds: number(query, "sinceSeconds")?,
            since_time: query.get("sinceTime"),
            stream: query.get("stream"),
        };
        if let Some(text) = bounds.since_time.filter(|text| sampan_api::time::parse(text).is_none()) {
            return Err(not_a("time", "sinceTime", text));
        }
        let errors = pod_log::validate(&bounds);
        if !errors.is_empty() {
            return Err(invalid(pod, &errors));
        }
        let numbers = [
            ("tailLines", bounds.tail_lines),
            ("limitBytes", bounds.limit_bytes),
            ("sinceSeconds", bounds.since_seconds),
        ];
        options.extend(numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))));
        let texts = [("sinceTime", bounds.since_time), ("stream", bounds.stream)];
        options.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text?.to_owned()))));
        Ok(Self(options))
    }

    fn query(&self) -> String {
        let pairs = self.0.iter();
        let pairs =
            pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    query.get(name).map(|text| text.parse().map_err(|_| not_a("number", name, text))).transpose()
}

fn not_a(what: &str, name: &str, text: &str) -> Status {
    Status::bad_request(format!("invalid value {text:?} for the parameter {name}: not a {what}"))
}

fn invalid(pod: &str, errors: &[FieldError]) -> Status {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let texts = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
    Status::failure(422, "Invalid", format!("PodLogOptions {} is invalid: {texts}", go_quote(pod)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_only_container_need_not_be_named_and_others_must() {
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, "p", None).unwrap(), "a");
        assert_eq!(container(&two, "p", Some("i")).unwrap(), "i");
        assert_eq!(
            container(&two, "p", None).unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(
            container(&one, "p", Some("x")).unwrap_err().message,
            "container x is not valid for pod p"
        );
    }

    #[test]
    fn options_are_checked_and_passed_on() {
        let parse = |text| Options::parse(&Query::parse(text), "p");
        assert_eq!(
            parse("follow=true&tailLines=5&container=a&timestamps=false").unwrap().query(),
            "follow=true&tailLines=5"
        );
        assert_eq!(
            parse("sinceTime=2026-01-01T00:00:00Z").unwrap().query(),
            "sinceTime=2026%2D01%2D01T00%3A00%3A00Z"
        );
        for (text, code) in [
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", 422),
            ("stream=Both", 422),
            ("tailLines=x", 400),
            ("sinceTime=yesterday", 400),
        ] {
            assert_eq!(parse(text).unwrap_err().code, code, "{text}");
        }
    }
}
