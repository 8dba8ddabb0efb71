//! Stopping a container.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use sampan_cri::{ContainerId, RuntimeError};

use super::record;
use crate::context::Context;
use crate::pod::memory::Record;

/// The pause before a stop that the runtime refused is reported, so that it is not tried again
/// at once for ever.
const REFUSED: Duration = Duration::from_secs(1);

/// Stops a container; returns what is known of it then. Nothing: the runtime knows it no more.
pub async fn stop(context: &Context, pod: &Pod, id: &ContainerId, grace: Duration) -> Option<Record> {
    let runtime = &context.config.runtime;
    match runtime.stop_container(id, grace).await {
        Ok(()) | Err(RuntimeError::NotFound { .. }) => {}
        Err(error) => {
            tracing::warn!(
                container = id.0,
                error = super::start::explain(&error),
                "a container was not stopped"
            );
            tokio::time::sleep(REFUSED).await;
        }
    }
    let status = runtime.container_status(id).await.ok()?;
    Some(record::record(context, pod, status).await)
}
