//! The agent's own server, as a router: logs, pods, statistics, metrics, health. It is served in
//! process to the API server; nothing here authenticates anybody, whoever mounts it does.

mod container_logs;
pub mod cri_log;
pub mod follow;
pub mod log_options;
pub mod log_reader;
mod metrics;
pub mod stats;
mod summary;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

use crate::manager::Manager;

/// The router over a node's pods.
pub fn router(manager: Arc<Manager>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs::get))
        .route("/stats/summary", get(summary::get))
        .route("/metrics/resource", get(metrics::get))
        .with_state(manager)
}

/// All pods of the node, with their statuses as the node knows them.
async fn pods(State(manager): State<Arc<Manager>>) -> Response {
    let mut items = Vec::new();
    for slot in manager.all() {
        let mut pod = Pod::clone(&slot.pod());
        pod.status = slot.status().or(pod.status);
        items.push(pod);
    }
    json(&List::<Pod> { items, ..Default::default() })
}

/// An answer in JSON.
fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
