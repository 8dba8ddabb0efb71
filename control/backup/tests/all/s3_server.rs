//! A small S3 server for tests: one bucket in memory, requests as S3-compatible servers take
//! them (signed, with the hash of the body), and failures on demand.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) const ACCESS_KEY: &str = "AKTEST";
pub(crate) const SECRET_KEY: &str = "a-secret-that-is-never-sent";
const LEAST_PART: usize = 5 << 20;

/// What goes wrong, asked with what a request does: `put`, `part`, `begin`, `complete`, `get`, `list`…
pub(crate) type Fault = Box<dyn Fn(&str, u32) -> Option<Trouble> + Send>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// Answers with this status.
    Answer(u16),
    /// Takes the request and says nothing.
    Silence,
    /// Answers with half of the object, then cuts the connection.
    Half,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Bytes>,
    uploads: HashMap<String, (String, BTreeMap<u32, Bytes>)>,
    begun: u32,
    counts: HashMap<String, u32>,
    requests: Vec<String>,
    fault: Option<Fault>,
}

#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<Inner>>);

impl Server {
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let server = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = server.router();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp, router.clone()));
            }
        });
        (server, address)
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/backups", axum::routing::any(bucket))
            .route("/backups/{*key}", axum::routing::any(object))
            .layer(DefaultBodyLimit::disable())
            .with_state(self.clone())
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        self.0.lock().unwrap().objects.clone()
    }

    pub(crate) fn replace(&self, key: &str, bytes: Vec<u8>) {
        self.0.lock().unwrap().objects.insert(key.to_owned(), bytes.into());
    }

    /// Uploads that were neither completed nor aborted.
    pub(crate) fn unfinished(&self) -> usize {
        self.0.lock().unwrap().uploads.len()
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.0.lock().unwrap().requests.clone()
    }

    pub(crate) fn fail(&self, fault: impl Fn(&str, u32) -> Option<Trouble> + Send + 'static) {
        let mut inner = self.0.lock().unwrap();
        inner.counts.clear();
        inner.fault = Some(Box::new(fault));
    }

    pub(crate) fn work(&self) {
        self.0.lock().unwrap().fault = None;
    }
}

/// What of a request must be right before anything else is looked at.
fn check(headers: &HeaderMap, body: &Bytes) -> Result<(), Response> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authorization = header("authorization");
    let signed = authorization.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/"))
        && authorization.contains("/s3/aws4_request")
        && authorization.contains("SignedHeaders=")
        && authorization.split("Signature=").nth(1).is_some_and(|signature| signature.len() == 64);
    if !signed || header("x-amz-date").is_empty() {
        return Err(failure(403, "AccessDenied"));
    }
    let shown = headers.values().any(|value| value.as_bytes().windows(9).any(|part| part == b"a-secret-"));
    assert!(!shown, "the secret key was sent");
    let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    if header("x-amz-content-sha256") != hash {
        return Err(failure(400, "XAmzContentSHA256Mismatch"));
    }
    Ok(())
}

fn failure(status: u16, code: &str) -> Response {
    let text = format!(
        "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code>\n<Message>told to\nfail</Message></Error>"
    );
    (StatusCode::from_u16(status).unwrap(), text).into_response()
}

fn xml(text: String) -> Response {
    ([("content-type", "application/xml")], format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{text}"))
        .into_response()
}

fn etag(bytes: &Bytes) -> String {
    format!(
        "\"{:x}-{}\"",
        bytes.len(),
        bytes.iter().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
    )
}

impl Server {
    /// The trouble that this request is to have.
    async fn trouble(&self, what: &str, key: &str) -> Result<bool, Response> {
        let trouble = {
            let mut inner = self.0.lock().unwrap();
            inner.requests.push(format!("{what} {key}"));
            let count = inner.counts.entry(what.to_owned()).or_default();
            *count += 1;
            let count = *count;
            inner.fault.as_ref().and_then(|fault| fault(what, count))
        };
        match trouble {
            None => Ok(false),
            Some(Trouble::Half) => Ok(true),
            Some(Trouble::Answer(status)) => Err(failure(status, "InternalError")),
            Some(Trouble::Silence) => std::future::pending().await,
        }
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = hyper_util::service::TowerToHyperService::new(router);
    let io = hyper_util::rt::TokioIo::new(stream);
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
}

fn queries(uri: &Uri) -> HashMap<String, String> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

async fn bucket(State(server): State<Server>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = check(&headers, &body) {
        return refusal;
    }
    if let Err(trouble) = server.trouble("list", "").await {
        return trouble;
    }
    let query = queries(&uri);
    let (prefix, after) = (query.get("prefix").cloned().unwrap_or_default(), query.get("continuation-token"));
    let objects = server.objects();
    // Two at a time, so that there are pages.
    let found: Vec<_> = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && !key[prefix.len()..].contains('/'))
        .filter(|(key, _)| after.is_none_or(|after| *key > after))
        .collect();
    let more = found.len() > 2;
    let page = &found[..found.len().min(2)];
    let contents: String = page
        .iter()
        .map(|(key, bytes)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-21T00:00:00.000Z</LastModified>\
                 <ETag>{}</ETag><Size>{}</Size></Contents>",
                etag(bytes).replace('"', "&quot;"),
                bytes.len()
            )
        })
        .collect();
    let next = match page.last() {
        Some((key, _)) if more => format!("<NextContinuationToken>{key}</NextContinuationToken>"),
        _ => String::new(),
    };
    xml(format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{contents}{next}</ListBucketResult>"))
}

async fn object(
    State(server): State<Server>,
    Path(key): Path<String>,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = check(&headers, &body) {
        return refusal;
    }
    let query = queries(&uri);
    let upload = query.get("uploadId").cloned();
    let part = query.get("partNumber").and_then(|number| number.parse::<u32>().ok());
    let what = match (method.as_str(), &upload, part) {
        ("POST", None, _) => "begin",
        ("POST", Some(_), _) => "complete",
        ("PUT", Some(_), Some(_)) => "part",
        ("DELETE", Some(_), _) => "abort",
        ("PUT", None, _) => "put",
        ("GET", ..) => "get",
        ("HEAD", ..) => "head",
        ("DELETE", ..) => "delete",
        _ => return failure(405, "MethodNotAllowed"),
    };
    let half = match server.trouble(what, &key).await {
        Ok(half) => half,
        Err(trouble) => return trouble,
    };
    match what {
        "get" | "head" => get(&server, &key, &headers, half),
        "begin" | "part" | "complete" | "abort" => {
            multipart(&server, what, &key, upload.unwrap_or_default(), part.unwrap_or_default(), body)
        }
        "put" => {
            let tag = etag(&body);
            server.0.lock().unwrap().objects.insert(key, body);
            ([("etag", tag)], "").into_response()
        }
        _ => {
            server.0.lock().unwrap().objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

fn get(server: &Server, key: &str, headers: &HeaderMap, half: bool) -> Response {
    let Some(bytes) = server.objects().get(key).cloned() else { return failure(404, "NoSuchKey") };
    let tag = etag(&bytes);
    let modified = "Sat, 21 Nov 2026 00:00:00 GMT";
    let range =
        headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let mut answer = Response::builder().header("etag", tag).header("last-modified", modified);
    let mut sent = bytes.clone();
    if let Some((from, to)) = range {
        let from: usize = from.parse().unwrap();
        let to = to.parse().map_or(bytes.len(), |to: usize| (to + 1).min(bytes.len()));
        sent = bytes.slice(from..to);
        let range = format!("bytes {from}-{}/{}", to - 1, bytes.len());
        answer = answer.status(206).header("content-range", range);
    }
    answer = answer.header("content-length", sent.len());
    if half {
        let pieces = [Ok(sent.slice(..sent.len() / 2)), Err(std::io::Error::other("cut"))];
        return answer.body(axum::body::Body::from_stream(futures::stream::iter(pieces))).unwrap();
    }
    answer.body(sent.into()).unwrap()
}

fn multipart(server: &Server, what: &str, key: &str, upload: String, part: u32, body: Bytes) -> Response {
    let mut inner = server.0.lock().unwrap();
    match what {
        "begin" => {
            inner.begun += 1;
            let id = format!("upload-{}", inner.begun);
            inner.uploads.insert(id.clone(), (key.to_owned(), BTreeMap::new()));
            xml(format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        "part" => match inner.uploads.get_mut(&upload) {
            Some((at, parts)) if at == key => {
                let tag = etag(&body);
                parts.insert(part, body);
                ([("etag", tag)], "").into_response()
            }
            _ => failure(404, "NoSuchUpload"),
        },
        "abort" => match inner.uploads.remove(&upload) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => failure(404, "NoSuchUpload"),
        },
        _ => {
            let Some((key, parts)) = inner.uploads.remove(&upload) else {
                return failure(404, "NoSuchUpload");
            };
            let text = String::from_utf8(body.to_vec()).unwrap();
            let in_order = (1..).zip(parts.keys()).all(|(expected, number)| expected == *number);
            let named = text.matches("<PartNumber>").count() == parts.len();
            let last = parts.len().saturating_sub(1);
            if !in_order || !named || parts.values().take(last).any(|part| part.len() < LEAST_PART) {
                return failure(400, "InvalidPart");
            }
            let whole = parts.values().flat_map(|part| part.iter().copied()).collect::<Vec<_>>();
            inner.objects.insert(key.clone(), whole.into());
            xml(format!(
                "<CompleteMultipartUploadResult><Key>{key}</Key><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>"
            ))
        }
    }
}
