//! The server in process: the same filters and endpoints, without a socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::auth::UserInfo;
use crate::body::Body;
use crate::core::Core;
use crate::filters::{self, Caller};

/// The API server as a tower service that acts for one user. Whoever holds it is that user: it is
/// given to parts of this process and never to requests from outside.
#[derive(Clone)]
pub struct LocalService {
    core: Arc<Core>,
    user: Arc<UserInfo>,
}

impl LocalService {
    pub(super) fn new(core: Arc<Core>, user: UserInfo) -> Self {
        Self { core, user: Arc::new(user) }
    }
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = Arc::clone(&self.core);
        let caller = Caller::Local(Arc::clone(&self.user));
        Box::pin(async move { Ok(filters::handle(core, caller, request.map(Body::new)).await) })
    }
}
