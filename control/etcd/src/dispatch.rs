//! From a request to the service that answers it.
//!
//! Calls that write are short, and many: they go straight to their service, and are run by the
//! connection's task. All others are routed, and have tasks of their own, as they may take long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Status, TimeoutExpired};
use tower::ServiceExt;

use crate::auth::AuthService;
use crate::cluster::ClusterService;
use crate::context::Context;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::maintenance::MaintenanceService;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::{Kv, KvServer};
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::unary::{self, Begun};
use crate::watch::WatchService;

/// The most bytes that a request may have, as etcd's: its 1.5 MiB and what surrounds them.
const MAX_REQUEST: usize = (1536 + 512) << 10;
/// Answers are as large as they need to be.
const MAX_RESPONSE: usize = i32::MAX as usize;
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";

type Answer = Result<Response<Body>, Infallible>;

/// See the module's description.
#[derive(Clone)]
pub(crate) struct Dispatch {
    kv: Arc<KvService>,
    routes: Routes,
}

impl Dispatch {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        macro_rules! service {
            ($server:ident, $service:ident) => {
                service!($server, Arc::new($service { context: Arc::clone(context) }))
            };
            ($server:ident, $service:expr) => {
                $server::from_arc($service)
                    .max_decoding_message_size(MAX_REQUEST)
                    .max_encoding_message_size(MAX_RESPONSE)
            };
        }
        let kv = Arc::new(KvService { context: Arc::clone(context) });
        let routes = Routes::new(service!(KvServer, Arc::clone(&kv)))
            .add_service(service!(WatchServer, WatchService))
            .add_service(service!(LeaseServer, LeaseService))
            .add_service(service!(ClusterServer, ClusterService))
            .add_service(service!(MaintenanceServer, MaintenanceService))
            .add_service(service!(AuthServer, AuthService));
        Self { kv, routes: routes.prepare() }
    }
}

impl hyper::service::Service<Request<Incoming>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Answer>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let limit = limit(request.headers());
        let (kv, routes) = (Arc::clone(&self.kv), self.routes.clone());
        let answer: Self::Future = match request.uri().path() {
            PUT => Box::pin(direct(routes, request, move |put| async move { kv.put(put).await })),
            TXN => Box::pin(direct(routes, request, move |txn| async move { kv.txn(txn).await })),
            _ => Box::pin(routed(routes, request)),
        };
        match limit {
            Some(limit) => Box::pin(within(limit, answer)),
            None => answer,
        }
    }
}

/// Has `act` answer, if the request is a simple one.
async fn direct<Q, A, F>(
    routes: Routes,
    request: Request<Incoming>,
    act: impl FnOnce(tonic::Request<Q>) -> F,
) -> Answer
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let (head, body) = request.into_parts();
    Ok(match unary::begin(body).await {
        Ok(Begun::Whole(message)) => unary::answer(act(tonic::Request::new(message)).await),
        Ok(Begun::Pieces(body)) => return routed(routes, Request::from_parts(head, body)).await,
        Err(status) => status.into_http(),
    })
}

/// Has a task of its own answer; it ends with the call.
async fn routed<B>(routes: Routes, request: Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
{
    let task = AbortOnDropHandle::new(tokio::spawn(routes.oneshot(request)));
    task.await.unwrap_or_else(|error| Ok(Status::internal(error.to_string()).into_http()))
}

/// Gives up on an answer that does not begin in time.
async fn within(limit: Duration, answer: BoxFuture<'static, Answer>) -> Answer {
    let late = |_| Ok(Status::from_error(Box::new(TimeoutExpired(()))).into_http());
    tokio::time::timeout(limit, answer).await.unwrap_or_else(late)
}

/// How long the client waits, if it says so; see "gRPC over HTTP2". One that says nonsense waits for ever.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_limit_is_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            limit(&headers)
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("0S"), Some(Duration::ZERO));
        assert_eq!(read("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        assert_eq!(read("8n"), Some(Duration::from_nanos(8)));
        for nonsense in ["", "S", "5", "+5S", "-5S", "123456789S", "5s", "5 S"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
        assert_eq!(limit(&HeaderMap::new()), None);
    }
}
