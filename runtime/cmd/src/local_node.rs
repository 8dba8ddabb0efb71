//! This process's own node, reached by the API server without a socket.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::Router;
use http::{Request, Response};
use sampan_apiserver::{Body, NodeConnector, NodeError};
use tower::ServiceExt;

/// The node agent's server, once there is one. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct LocalNode {
    agent: Arc<OnceLock<(String, Router)>>,
}

impl LocalNode {
    /// The agent of the node `name` answers from now on.
    pub(crate) fn connect(&self, name: &str, agent: Router) {
        // A second agent in one process would be a mistake; the first stays.
        drop(self.agent.set((name.to_owned(), agent)));
    }
}

#[async_trait]
impl NodeConnector for LocalNode {
    async fn request(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, NodeError> {
        let Some((_, agent)) = self.agent.get().filter(|(name, _)| name == node) else {
            return Err(NodeError::NotConnected(node.to_owned()));
        };
        let answer: Result<Response<axum::body::Body>, Infallible> =
            agent.clone().oneshot(request.map(axum::body::Body::new)).await;
        match answer {
            Ok(response) => Ok(response.map(Body::new)),
            Err(never) => match never {},
        }
    }
}
