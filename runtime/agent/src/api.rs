//! The API over a node's connection: a tower service for [`kube::Client::new`]. Each request is a
//! stream of its own, so that a long watch holds nobody up and needs no share of a window.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use sampan_apiserver::Body;
use sampan_transport::{Purpose, TransportError};

use crate::http1;
use crate::link::Link;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no connection to a server now.
    #[error("no server can be reached")]
    NotConnected,
    /// The connection took no new stream: it is ending.
    #[error("the connection to the server takes no request")]
    Open(#[source] TransportError),
    /// The connection broke, or what came was no HTTP.
    #[error("the request to the server failed on its way")]
    Broken(#[source] hyper::Error),
}

/// The API by way of whichever server the node is connected to. Requests made while there is none
/// fail at once; those under way end when their connection does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiOverStreams {
    link: Link,
}

impl ApiOverStreams {
    /// The API over a link.
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When there is no connection, or it ends before the answer's head has come.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connection = self.link.connection().ok_or(ApiError::NotConnected)?;
        let stream = connection.open(Purpose::Api).await.map_err(ApiError::Open)?;
        http1::send(stream, request).await.map_err(ApiError::Broken)
    }
}

impl<B> tower::Service<Request<B>> for ApiOverStreams
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move { own.request(request).await })
    }
}
