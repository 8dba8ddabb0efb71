//! Reading a pod's specification: its identity, its containers and their roles.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec};
use sampan_cri::PodRef;
use std::time::Duration;

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An init container: must end well before the next one starts.
    Init,
    /// A restartable init container: starts before the next one and runs beside the rest.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// The pod's specification. Pods without one do not pass the API server.
pub fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

/// All containers with their roles: init containers first, each group in order.
pub fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    init_containers(pod).chain(main_containers(pod).map(|container| (Role::Main, container)))
}

/// Init containers in order.
pub fn init_containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    spec(pod).and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (if sidecar { Role::Sidecar } else { Role::Init }, container)
    })
}

/// `spec.containers` in order.
pub fn main_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec(pod).into_iter().flat_map(|spec| spec.containers.iter())
}

/// A container by name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, &'a Container)> {
    containers(pod).find(|(_, container)| container.name == name)
}

/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The pod's UID.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod, for the runtime.
pub fn reference(pod: &Pod) -> PodRef {
    PodRef { namespace: namespace(pod).into(), name: name(pod).into(), uid: uid(pod).into() }
}

/// The pod as messages name it: `name_namespace(uid)`.
pub fn format(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The pod as the object of an event; with a container, its field path.
pub fn object_reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(|name| {
            let list = if init_containers(pod).any(|(_, init)| init.name == name) {
                "initContainers"
            } else {
                "containers"
            };
            format!("spec.{list}{{{name}}}")
        }),
    }
}

/// Whether the pod shares the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).and_then(|spec| spec.host_network).unwrap_or(false)
}

/// How long the pod may take to end: its deletion's grace period, else its own.
pub fn grace_period(pod: &Pod) -> Duration {
    let own = spec(pod).and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    let seconds = match &pod.metadata.deletion_timestamp {
        Some(_) => pod.metadata.deletion_grace_period_seconds.unwrap_or(own),
        None => own,
    };
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Whether somebody asked for the pod's deletion.
pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The phase that the API server holds.
pub fn reported_phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether a phase is final.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// The host name that the pod's containers see.
pub fn hostname(pod: &Pod) -> String {
    let spec = spec(pod);
    let wanted = spec
        .and_then(|spec| spec.hostname_override.as_deref().or(spec.hostname.as_deref()))
        .unwrap_or_else(|| name(pod));
    // A host name has 63 characters at most and does not end in a dash or a dot.
    wanted.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}
