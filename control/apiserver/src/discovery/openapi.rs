//! OpenAPI v3: an index and a document for each group and version, made when first asked for and
//! kept compressed. OpenAPI v2 is not served.

use std::collections::HashMap;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, LOCATION, VARY};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use sampan_api::openapi::{self, Features};
use sampan_api::scheme::{self, GroupVersion};
use sampan_api::status::Status;

use super::GIT_VERSION;
use crate::body::Body;
use crate::endpoints::{Call, respond};

const FEATURES: Features = Features { server_side_apply: false };
const LEVEL: i32 = 3;

/// The documents made so far, compressed.
#[derive(Default)]
pub(super) struct OpenApi {
    documents: Mutex<HashMap<GroupVersion, Bytes>>,
}

impl OpenApi {
    fn document(&self, gv: GroupVersion) -> Result<Vec<u8>, Status> {
        let failed =
            |e: std::io::Error| Status::internal(format!("the OpenAPI document cannot be kept: {e}"));
        if let Some(kept) = self.documents.lock().get(&gv).cloned() {
            return zstd::decode_all(&*kept).map_err(failed);
        }
        let document = openapi::v3_document(gv.group, gv.version, &gv.resources(), GIT_VERSION, FEATURES);
        let text = document.to_string().into_bytes();
        let kept = zstd::encode_all(text.as_slice(), LEVEL).map_err(failed)?;
        self.documents.lock().insert(gv, kept.into());
        Ok(text)
    }
}

fn hash(gv: GroupVersion) -> String {
    openapi::v3_hash(gv.group, gv.version, &gv.resources(), GIT_VERSION, FEATURES)
}

/// Answers `/openapi/v3` and below.
pub(super) fn serve(call: &Call, rest: &[&str]) -> Result<Response<Body>, Status> {
    let (group, version) = match rest {
        [] => return Ok(index()),
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Status::no_such_resource()),
    };
    let gv = scheme::group_versions().iter().find(|gv| gv.group == group && gv.version == version);
    let gv = *gv.ok_or_else(Status::no_such_resource)?;
    let hash = hash(gv);
    let asked = call.query.get("hash");
    if asked.is_some_and(|asked| asked != hash) {
        return Ok(redirect(&call.info.path, &hash));
    }
    let mut response =
        respond::bytes(StatusCode::OK, "application/json", call.core.documents.openapi.document(gv)?);
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        headers.insert(ETAG, tag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if asked.is_some() {
        // What a hash names never changes.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    Ok(response)
}

fn index() -> Response<Body> {
    let hashes: Vec<(GroupVersion, String)> =
        scheme::group_versions().iter().map(|gv| (*gv, hash(*gv))).collect();
    let entries = hashes.iter().map(|(gv, hash)| (gv.group, gv.version, hash.as_str()));
    respond::json(StatusCode::OK, &openapi::v3_index(entries))
}

fn redirect(path: &str, hash: &str) -> Response<Body> {
    let mut response = respond::bytes(StatusCode::MOVED_PERMANENTLY, "text/plain", Bytes::new());
    if let Ok(location) = HeaderValue::from_str(&format!("{path}?hash={hash}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
