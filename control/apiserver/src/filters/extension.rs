//! Routes that this server serves beside the Kubernetes API: everything below `/sampan/v1/` goes,
//! behind the same filters, to a router that was given with the configuration.
//!
//! Bodies are streamed both ways: the router limits what it reads, and how long that may take.

use axum::Router;
use http::{Method, Request, Response, Uri, Version};
use sampan_api::status::Status;
use tower::ServiceExt;

use crate::auth::{EXTENSION_ROOT, at_or_below};
use crate::body::Body;
use crate::endpoints::Call;

/// Whether a path belongs to the router.
pub(super) fn is_below(path: &str) -> bool {
    at_or_below(path, EXTENSION_ROOT)
}

/// Serves a request that has been authenticated. Also the user that was impersonated, for the audit log.
pub(super) async fn serve(
    mut call: Call,
    router: Router,
    (method, uri, version): (Method, Uri, Version),
    body: Body,
) -> Result<(Response<Body>, Option<String>), Status> {
    let impersonated = super::admit(&mut call).await?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = call.headers;
    request.extensions_mut().insert(call.user);
    let Ok(response) = router.oneshot(request).await;
    Ok((response, impersonated))
}
