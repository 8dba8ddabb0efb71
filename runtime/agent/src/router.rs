//! A node's own server, once there is one: who made the connection may do so before the kubelet is
//! made.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::Router;
use http::{Request, Response};
use sampan_apiserver::{Body, NodeConnector, NodeError};
use tower::ServiceExt;

/// The kubelet's router of one node of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct NodeRouter {
    node: String,
    router: Arc<OnceLock<Router>>,
}

impl NodeRouter {
    /// The node `name`, whose kubelet is yet to come.
    pub fn new(name: impl Into<String>) -> Self {
        Self { node: name.into(), router: Arc::default() }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The kubelet answers from now on. A second one is ignored: there is one kubelet in a process.
    pub fn connect(&self, router: Router) {
        drop(self.router.set(router));
    }

    /// Answers a request as the kubelet does; without one it is 503.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let Some(router) = self.router.get() else {
            let mut response = Response::new(Body::from("the node is still starting"));
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            return response;
        };
        match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// The router as a service.
    pub(crate) fn service(
        &self,
    ) -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static {
        let own = self.clone();
        tower::service_fn(move |request| {
            let own = own.clone();
            async move { Ok(own.answer(request).await) }
        })
    }
}

#[async_trait]
impl NodeConnector for NodeRouter {
    async fn request(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, NodeError> {
        if node != self.node {
            return Err(NodeError::NotConnected(node.to_owned()));
        }
        Ok(self.answer(request).await)
    }
}
