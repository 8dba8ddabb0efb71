//! Starting a container: image, configuration, creation, start.

use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_client::EventType;
use sampan_cri::{ContainerId, RuntimeError};
use tokio_util::sync::CancellationToken;

use super::container_config::{self, Request};
use super::{image, record};
use crate::context::Context;
use crate::pod::event::Started;
use crate::pod::memory::{FailureKind, Record, SandboxFacts};
use crate::volumes::MountedVolumes;

/// What a start needs.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// How many came before it.
    pub attempt: u32,
    /// The pod's sandbox.
    pub sandbox: &'a SandboxFacts,
    /// The pod's volumes.
    pub volumes: &'a MountedVolumes,
}

/// Starts a container. `cancel` calls it off as long as nothing was made.
pub async fn start(context: &Context, start: Start<'_>, cancel: &CancellationToken) -> Started {
    let image = tokio::select! {
        biased;
        () = cancel.cancelled() => return Started::Cancelled,
        image = image::ensure(context, start.pod, start.container) => image,
    };
    let image = match image {
        Ok(image) => image,
        Err((kind, message)) => return fail(context, start, kind, message, None),
    };
    let request = Request {
        pod: start.pod,
        container: start.container,
        attempt: start.attempt,
        addresses: &start.sandbox.addresses,
        volumes: start.volumes,
    };
    let config = match container_config::build(context, request, &image).await {
        Ok(config) => config,
        Err(message) => return fail(context, start, FailureKind::Config, message, None),
    };
    if cancel.is_cancelled() {
        return Started::Cancelled;
    }
    let runtime = &context.config.runtime;
    let id = match runtime.create_container(&start.sandbox.id, config).await {
        Ok(id) => id,
        Err(error) => return fail(context, start, FailureKind::Create, explain(&error), None),
    };
    tell(context, start, EventType::Normal, "Created", "Container created");
    if let Err(error) = runtime.start_container(&id).await {
        let left = look(context, start.pod, &id).await;
        let ended = left.filter(|record| record.exit().is_some());
        if ended.is_none() {
            // It neither runs nor has ended: nobody would ever look at it again.
            runtime.remove_container(&id).await.ok();
        }
        return fail(context, start, FailureKind::Run, explain(&error), ended);
    }
    tell(context, start, EventType::Normal, "Started", "Container started");
    match look(context, start.pod, &id).await {
        Some(record) => Started::Yes(Box::new(record)),
        None => fail(context, start, FailureKind::Run, "the container vanished".into(), None),
    }
}

async fn look(context: &Context, pod: &Pod, id: &ContainerId) -> Option<Record> {
    let status = context.config.runtime.container_status(id).await.ok()?;
    Some(record::record(context, pod, status).await)
}

fn fail(
    context: &Context,
    start: Start<'_>,
    kind: FailureKind,
    message: String,
    record: Option<Record>,
) -> Started {
    let told = match kind {
        FailureKind::Config | FailureKind::Create | FailureKind::Run => format!("Error: {message}"),
        _ => format!("Error: {}", kind.reason()),
    };
    tell(context, start, EventType::Warning, "Failed", &told);
    Started::No { kind, message, record: record.map(Box::new) }
}

fn tell(context: &Context, start: Start<'_>, kind: EventType, reason: &str, message: &str) {
    context.tell(start.pod, Some(&start.container.name), kind, reason, message);
}

/// A runtime's refusal, with its cause.
pub fn explain(error: &RuntimeError) -> String {
    sampan_client::informer::chain(error)
}
