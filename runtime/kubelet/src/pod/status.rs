//! A pod's status, put together from what the node knows of it. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::{Memory, Sandbox};
use super::spec::{self, Role};
use super::{conditions, container_status, phase, resources};

/// Builds the status that the API should hold now. `before` is the one that was last built.
pub fn status(
    pod: &Pod,
    memory: &Memory,
    before: Option<&PodStatus>,
    node: IpAddr,
    now: Timestamp,
) -> PodStatus {
    let reported = pod.status.clone().unwrap_or_default();
    let base = PodStatus {
        host_ip: Some(node.to_string()),
        host_ips: Some(vec![HostIP { ip: node.to_string() }]),
        start_time: reported.start_time.clone().or(Some(Time(whole_seconds(memory.started_at)))),
        qos_class: reported.qos_class.clone().or_else(|| Some(resources::qos_class(pod).into())),
        nominated_node_name: reported.nominated_node_name.clone(),
        observed_generation: pod.metadata.generation,
        resource_claim_statuses: reported.resource_claim_statuses.clone(),
        ..Default::default()
    };
    if let Some(verdict) = memory.verdict.as_ref().filter(|verdict| verdict.rejected) {
        return PodStatus {
            phase: Some("Failed".into()),
            reason: Some(verdict.reason.clone()),
            message: Some(verdict.message.clone()),
            host_ip: None,
            host_ips: None,
            ..base
        };
    }
    let (mut init, mut main) = (Vec::new(), Vec::new());
    for (role, container) in spec::containers(pod) {
        let status = container_status::status(pod, memory, role, container, now);
        if role == Role::Main { main.push(status) } else { init.push(status) }
    }
    let ending = memory.is_ending() || spec::is_deleted(pod);
    let ended = ending && memory.is_still();
    let phase = match &memory.verdict {
        Some(_) if ended => "Failed",
        _ => phase::phase(pod, &init, &main, ended),
    };
    let verdict = memory.verdict.as_ref().filter(|_| phase == "Failed");
    let conditions = conditions::conditions(pod, memory, &init, &main, phase);
    let addresses = addresses(memory);
    PodStatus {
        phase: Some(phase.into()),
        reason: verdict.map(|verdict| verdict.reason.clone()),
        message: verdict.map(|verdict| verdict.message.clone()),
        conditions: Some(conditions::dated(pod, before, conditions, whole_seconds(now))),
        init_container_statuses: Some(init).filter(|list| !list.is_empty()),
        container_statuses: Some(main),
        pod_ip: addresses.first().map(ToString::to_string),
        pod_ips: Some(addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect::<Vec<_>>())
            .filter(|list| !list.is_empty()),
        ..base
    }
}

/// The pod's addresses; an ended pod keeps showing those it had.
fn addresses(memory: &Memory) -> Vec<IpAddr> {
    match &memory.sandbox {
        Sandbox::Ready(facts) | Sandbox::Stopping(facts) | Sandbox::Stopped(facts) => facts.addresses.clone(),
        Sandbox::Absent | Sandbox::Creating | Sandbox::Failed { .. } => Vec::new(),
    }
}

/// The API's times have whole seconds.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
