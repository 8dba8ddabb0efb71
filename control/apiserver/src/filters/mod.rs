//! The filter chain, through which every request goes, from whichever side it comes:
//! panics and metrics → limits → authentication → audit → impersonation → authorization → endpoint.
//!
//! A file a filter; this one is the order. Admission comes later, in the registry, where the object
//! is known.

pub(crate) mod audit;
pub(crate) mod authn;
mod authz;
mod extension;
mod impersonation;
mod limits;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use http::{HeaderValue, Request, Response};
use sampan_api::status::Status;

use crate::body::Body;
use crate::core::Core;
use crate::discovery;
use crate::endpoints::query::Query;
use crate::endpoints::request_info::RequestInfo;
use crate::endpoints::{self, Call, respond};
use crate::metrics;
use crate::registry::Warnings;

pub(crate) use authn::Caller;

const AUDIT_ID: &str = "audit-id";

/// Serves one request.
pub(crate) async fn handle(core: Arc<Core>, caller: Caller, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let id = request_id(&request);
    let head = request.method() == http::Method::HEAD;
    let labels = metrics::Labels::of(&info);
    let work = Box::pin(chain(core, caller, request, info, query, id.clone()));
    let mut response = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(audit_id = id, "a request made the server panic; the request alone is lost");
            respond::status(&Status::internal("the server panicked while it served the request"))
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    response
        .headers_mut()
        .entry(http::header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    labels.record(response.status(), started.elapsed());
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// The client's own id for the request, if it is a decent one; else a new one.
fn request_id(request: &Request<Body>) -> String {
    let given = request.headers().get(AUDIT_ID).and_then(|v| v.to_str().ok());
    match given.filter(|id| !id.is_empty() && id.len() <= 64) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

async fn chain(
    core: Arc<Core>,
    caller: Caller,
    request: Request<Body>,
    info: RequestInfo,
    query: Query,
    id: String,
) -> Response<Body> {
    let received = jiff::Timestamp::now();
    let (parts, body) = request.into_parts();
    let claimed = caller.claimed();
    let user = match authn::authenticate(&core, caller, &parts.headers, &info).await {
        Ok(user) => user,
        Err(status) => {
            if let Some(log) = &core.audit {
                let entry = audit::Entry::new((&id, false), received, &claimed, &info, &parts);
                log.write(entry.refuse(&status));
            }
            return respond::status(&status);
        }
    };
    let extended = core.extension.clone().filter(|_| !info.is_resource && extension::is_below(&info.path));
    let long_running = info.is_long_running(&query) || extended.is_some();
    let entry =
        core.audit.as_ref().map(|_| audit::Entry::new((&id, long_running), received, &user, &info, &parts));
    let warnings = Warnings::default();
    let call = Call {
        core: Arc::clone(&core),
        info,
        query,
        headers: parts.headers,
        user,
        body: bytes::Bytes::new(),
        warnings,
        now: received,
    };
    let answered = match extended {
        Some(router) => {
            let head = (parts.method, parts.uri, parts.version);
            extension::serve(call, router, head, body).await
        }
        None => limits::within_deadline(long_running, serve(call, body)).await,
    };
    let (response, impersonated) = answered.unwrap_or_else(|status| (respond::status(&status), None));
    if let (Some(log), Some(entry)) = (&core.audit, entry) {
        log.write(entry.finish(impersonated.as_deref(), response.status()));
    }
    response
}

/// The inner filters and the endpoint. Also the user that was impersonated, for the audit log.
async fn serve(mut call: Call, body: Body) -> Result<(Response<Body>, Option<String>), Status> {
    let impersonated = admit(&mut call).await?;
    call.body = limits::read(body).await?;
    let call = Arc::new(call);
    let answered = if call.info.is_resource {
        endpoints::dispatch(Arc::clone(&call)).await
    } else {
        discovery::serve(&call).await
    };
    let mut response = answered.unwrap_or_else(|status| respond::status(&status));
    for warning in call.warnings.take() {
        if let Ok(value) = HeaderValue::from_str(&warning_header(&warning)) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    Ok((response, impersonated))
}

/// Impersonation and authorization. The user that was impersonated, if one was.
async fn admit(call: &mut Call) -> Result<Option<String>, Status> {
    let impersonated = impersonation::apply(call)?;
    authz::check(call).await?;
    Ok(impersonated)
}

/// A warning as RFC 7234 wants it: one line, quoted.
fn warning_header(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    format!("299 - \"{quoted}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_on_one_line() {
        assert_eq!(warning_header("unknown field \"spec.x\""), "299 - \"unknown field \\\"spec.x\\\"\"");
        assert_eq!(warning_header("a\nb\\"), "299 - \"a b\\\\\"");
    }
}
