//! Answers: objects in the form that was asked for, and refusals.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use sampan_api::scheme::Resource;
use sampan_api::status::Status;
use serde_json::{Value, json};

use super::continue_token::ContinueToken;
use super::negotiate::{Form, Format, Include, Output};
use super::table::{TableMaker, partial};
use crate::body::Body;
use crate::cacher::{Listing, Object, TypeMeta};
use crate::conversion;
use crate::registry::Registry;

/// An answer of bytes.
pub(crate) fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer of a JSON tree.
pub(crate) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    value_as(code, Output::JSON, value)
}

/// An answer of text.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", text)
}

/// A refusal, or a success that has no object.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // A Status is plain data: it always has a JSON.
    let mut response = bytes(code, "application/json", serde_json::to_vec(status).unwrap_or_default());
    if let Some(seconds) = status.details.as_ref().and_then(|d| d.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn value_as(code: StatusCode, output: Output, value: &Value) -> Response<Body> {
    let text = match output.format {
        Format::Json => serde_json::to_vec(value).ok(),
        Format::Yaml => serde_saphyr::to_string(value).ok().map(String::into_bytes),
    };
    match text {
        Some(text) => bytes(code, output.content_type(), text),
        None => status(&Status::internal("the answer cannot be written")),
    }
}

/// How objects of one resource are answered to one request.
pub(crate) struct Renderer<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) requested: &'static Resource,
    pub(crate) output: Output,
    pub(crate) include: Include,
    pub(crate) now: jiff::Timestamp,
}

impl Renderer<'_> {
    fn table(&self, version: &'static str) -> TableMaker<'_> {
        TableMaker {
            strategy: self.registry.strategy(),
            requested: self.requested,
            version,
            include: self.include,
            now: self.now,
        }
    }

    /// One object, in the stored shape.
    pub(crate) fn object(&self, code: StatusCode, object: Value) -> Response<Body> {
        value_as(code, self.output, &self.shaped(object))
    }

    /// One object in the form asked for.
    fn shaped(&self, mut object: Value) -> Value {
        match self.output.form {
            Form::Plain => {
                conversion::from_stored(self.requested, &mut object);
                object
            }
            Form::Partial(version) => partial(object, version),
            Form::Table(version) => {
                let revision = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                let metadata = json!({"resourceVersion": revision.as_str().unwrap_or_default()});
                self.table(version).table(std::iter::once(object), metadata, true)
            }
        }
    }

    /// The objects of a list.
    pub(crate) fn list(&self, listing: &Listing) -> Response<Body> {
        let metadata = list_metadata(listing);
        let api_version = self.requested.api_version();
        let kind = self.requested.kind;
        let of = TypeMeta { api_version: &api_version, kind };
        let trees = || listing.objects.iter().map(|o| o.to_value(Some(of), o.revision()));
        match self.output.form {
            Form::Table(version) => {
                value_as(StatusCode::OK, self.output, &self.table(version).table(trees(), metadata, true))
            }
            Form::Partial(version) => {
                let items: Vec<Value> = trees().map(|o| partial(o, version)).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": metadata, "items": items,
                });
                value_as(StatusCode::OK, self.output, &list)
            }
            Form::Plain if self.output.format == Format::Json && !conversion::differs(self.requested) => {
                let head =
                    json!({"kind": format!("{kind}List"), "apiVersion": api_version, "metadata": metadata});
                bytes(StatusCode::OK, "application/json", plain_list(&head, &listing.objects))
            }
            Form::Plain => {
                let items: Vec<Value> = listing
                    .objects
                    .iter()
                    .map(|o| {
                        let mut object = o.to_value(None, o.revision());
                        conversion::from_stored(self.requested, &mut object);
                        object
                    })
                    .collect();
                let list = json!({
                    "kind": format!("{kind}List"), "apiVersion": api_version, "metadata": metadata, "items": items,
                });
                value_as(StatusCode::OK, self.output, &list)
            }
        }
    }

    /// One object as a line of a watch has it, appended to `out`. `headers` where a table is to
    /// name its columns.
    pub(crate) fn write_event(&self, out: &mut Vec<u8>, object: &Object, revision: u64, headers: bool) {
        let api_version = self.requested.api_version();
        let of = TypeMeta { api_version: &api_version, kind: self.requested.kind };
        if self.output.form == Form::Plain && !conversion::differs(self.requested) {
            return object.write(out, Some(of), revision);
        }
        let value = object.to_value(Some(of), revision);
        let value = match self.output.form {
            Form::Table(version) => {
                let metadata = json!({"resourceVersion": revision.to_string()});
                self.table(version).table(std::iter::once(value), metadata, headers)
            }
            _ => self.shaped(value),
        };
        out.extend_from_slice(value.to_string().as_bytes());
    }

    /// An object of the right type that tells nothing but a revision.
    pub(crate) fn bookmark(&self, revision: u64, end_of_initial: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if end_of_initial {
            metadata = json!({
                "resourceVersion": revision.to_string(),
                "annotations": {"k8s.io/initial-events-end": "true"},
            });
        }
        match self.output.form {
            Form::Plain => json!({
                "kind": self.requested.kind, "apiVersion": self.requested.api_version(), "metadata": metadata,
            }),
            Form::Partial(version) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            }),
            Form::Table(version) => self.table(version).table(std::iter::empty(), metadata, false),
        }
    }
}

fn list_metadata(listing: &Listing) -> Value {
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    if let (Some(members), Some(next)) = (metadata.as_object_mut(), &listing.next) {
        let token = ContinueToken { revision: listing.revision, from: next.clone() };
        members.insert("continue".into(), token.encode().into());
        if let Some(remaining) = listing.remaining {
            members.insert("remainingItemCount".into(), remaining.into());
        }
    }
    metadata
}

fn plain_list(head: &Value, objects: &[Arc<Object>]) -> Vec<u8> {
    let mut out = head.to_string().into_bytes();
    out.pop();
    out.reserve(objects.iter().map(|o| o.size()).sum());
    out.extend_from_slice(b",\"items\":[");
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        object.write(&mut out, None, object.revision());
    }
    out.extend_from_slice(b"]}");
    out
}
