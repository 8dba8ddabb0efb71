//! Setting a pod's volumes up and telling people when that fails.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sampan_client::EventType;

use crate::context::Context;
use crate::pod::spec;
use crate::volumes::MountedVolumes;

/// Sets the volumes up, or brings them up to date; `None`: it failed, and people were told.
pub async fn set_up(
    context: &Context,
    pod: &Pod,
    addresses: &[IpAddr],
) -> Option<(MountedVolumes, Option<Timestamp>)> {
    match context.volumes.set_up(pod, &context.facts(addresses)).await {
        Ok(outcome) => {
            for warning in outcome.warnings {
                context.tell(pod, None, EventType::Warning, "MemoryMediumUnavailable", warning);
            }
            Some((outcome.mounted, outcome.resync_at))
        }
        Err(error) => {
            context.tell(pod, None, EventType::Warning, "FailedMount", error.to_string());
            None
        }
    }
}

/// Takes the volumes down.
pub async fn release(context: &Context, pod: &Pod) {
    if let Err(error) = context.volumes.release(spec::uid(pod)).await {
        tracing::warn!(pod = spec::format(pod), %error, "volumes were not removed");
    }
}
