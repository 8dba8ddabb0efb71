//! Making and stopping a pod's sandbox, with its address.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use sampan_client::EventType;
use sampan_cri::{RuntimeError, SandboxConfig, SandboxId};

use crate::context::Context;
use crate::pod::memory::SandboxFacts;
use crate::pod::spec;

/// Makes the sandbox; `None`: it failed, and people were told.
pub async fn create(context: &Context, pod: &Pod, attempt: u32) -> Option<SandboxFacts> {
    match try_create(context, pod, attempt).await {
        Ok(facts) => Some(facts),
        Err(why) => {
            let message = format!("Failed to create pod sandbox: {why}");
            context.tell(pod, None, EventType::Warning, "FailedCreatePodSandBox", message);
            None
        }
    }
}

async fn try_create(context: &Context, pod: &Pod, attempt: u32) -> Result<SandboxFacts, String> {
    let network = &context.config.network;
    let host_network = spec::host_network(pod);
    let address = if host_network {
        network.node_address()
    } else {
        let former = context.former_addresses.lock().remove(spec::uid(pod));
        match former {
            // It was kept for this pod when the agent started.
            Some(former) => former,
            None => IpAddr::V4(network.allocate().map_err(|error| error.to_string())?),
        }
    };
    let config = SandboxConfig {
        pod: spec::reference(pod),
        attempt,
        hostname: if host_network { context.config.node_name.clone() } else { spec::hostname(pod) },
        addresses: vec![address],
        host_network,
        log_directory: context.paths.pod_logs(pod),
        host_aliases: host_aliases(pod),
    };
    match context.config.runtime.run_sandbox(config).await {
        Ok(id) => Ok(SandboxFacts { id, attempt, addresses: vec![address] }),
        Err(error) => {
            release(context, pod, &[address]);
            Err(super::start::explain(&error))
        }
    }
}

fn host_aliases(pod: &Pod) -> Vec<(IpAddr, Vec<String>)> {
    let aliases = spec::spec(pod).and_then(|spec| spec.host_aliases.as_ref());
    aliases
        .into_iter()
        .flatten()
        .filter_map(|alias| Some((alias.ip.parse().ok()?, alias.hostnames.clone().unwrap_or_default())))
        .collect()
}

/// Stops the sandbox and gives its address back.
pub async fn stop(context: &Context, pod: &Pod, facts: &SandboxFacts) {
    if let Err(error) = context.config.runtime.stop_sandbox(&facts.id).await
        && !matches!(error, RuntimeError::NotFound { .. })
    {
        tracing::warn!(
            sandbox = facts.id.0,
            error = super::start::explain(&error),
            "a sandbox was not stopped"
        );
    }
    release(context, pod, &facts.addresses);
}

fn release(context: &Context, pod: &Pod, addresses: &[IpAddr]) {
    if spec::host_network(pod) {
        return;
    }
    for address in addresses {
        if let IpAddr::V4(address) = address {
            context.config.network.release(*address);
        }
    }
}

/// Removes a sandbox of an earlier run.
pub async fn remove(context: &Context, id: &SandboxId) {
    let runtime = &context.config.runtime;
    let gone = |error: &RuntimeError| matches!(error, RuntimeError::NotFound { .. });
    for result in [runtime.stop_sandbox(id).await, runtime.remove_sandbox(id).await] {
        if let Err(error) = result
            && !gone(&error)
        {
            tracing::warn!(
                sandbox = id.0,
                error = super::start::explain(&error),
                "a sandbox was not removed"
            );
        }
    }
}
