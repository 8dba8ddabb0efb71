//! What pods ask for and what nodes offer, as numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What a container without a CPU request counts as when nodes are compared, in thousandths of a core.
const DEFAULT_CPU_MILLIS: i64 = 100;
/// What a container without a memory request counts as when nodes are compared, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource name: CPU in thousandths of a core, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    /// The amounts of a Kubernetes resource list. Entries that do not parse count as nothing
    /// (the API server accepts none such).
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let Ok(quantity) = sampan_api::quantity::Quantity::parse(&quantity.0) else { continue };
            let amount = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
            amounts.0.insert(name.clone(), amount);
        }
        amounts
    }

    /// The amount of one resource.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All amounts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds other amounts to these.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let entry = self.0.entry(name.to_owned()).or_default();
            *entry = entry.saturating_add(amount);
        }
    }

    /// Takes other amounts from these.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let entry = self.0.entry(name.to_owned()).or_default();
            *entry = entry.saturating_sub(amount);
        }
        self.0.retain(|_, amount| *amount != 0);
    }

    /// Raises each amount to at least the other's.
    fn raise(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let entry = self.0.entry(name.to_owned()).or_default();
            *entry = (*entry).max(amount);
        }
    }

    fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }
}

/// What a pod needs of a node: the sum over its containers and sidecars, or what its largest
/// moment of initialisation needs, whichever is more, plus the pod's overhead (KEP-753).
pub fn pod_requests(pod: &Pod) -> Amounts {
    pod.spec.as_ref().map(|spec| total(spec, container_requests)).unwrap_or_default()
}

/// As [`pod_requests`], with a default for containers that ask for no CPU or memory, so that
/// they are spread as well.
pub fn pod_requests_for_scoring(pod: &Pod) -> Amounts {
    pod.spec.as_ref().map(|spec| total(spec, container_requests_or_default)).unwrap_or_default()
}

fn total(spec: &PodSpec, requests: fn(&Container) -> Amounts) -> Amounts {
    let mut running = Amounts::default();
    for container in &spec.containers {
        running.add(&requests(container));
    }
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let wanted = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&wanted);
            running.add(&wanted);
            starting.raise(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add(&wanted);
            starting.raise(&moment);
        }
    }
    running.raise(&starting);
    // Pod-level resources, where given, stand for the containers' sum (KEP-2837).
    if let Some(level) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        for (name, amount) in Amounts::of(Some(level)).iter() {
            running.set(name, amount);
        }
    }
    running.add(&Amounts::of(spec.overhead.as_ref()));
    running
}

fn container_requests(container: &Container) -> Amounts {
    Amounts::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn container_requests_or_default(container: &Container) -> Amounts {
    let mut amounts = container_requests(container);
    if amounts.get("cpu") == 0 {
        amounts.set("cpu", DEFAULT_CPU_MILLIS);
    }
    if amounts.get("memory") == 0 {
        amounts.set("memory", DEFAULT_MEMORY);
    }
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn asks(name: &str, cpu: &str) -> serde_json::Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu, "memory": "10Mi"}}})
    }

    #[test]
    fn containers_add_up_and_init_containers_do_not() {
        let cases = [
            (json!({"containers": [asks("a", "100m"), asks("b", "200m")]}), 300),
            (json!({"containers": [asks("a", "100m")], "initContainers": [asks("i", "500m")]}), 500),
            (
                json!({"containers": [asks("a", "100m")], "initContainers": [asks("i", "50m"), asks("j", "60m")]}),
                100,
            ),
            (json!({"containers": [asks("a", "100m")], "overhead": {"cpu": "10m"}}), 110),
            (json!({"containers": [asks("a", "100m")], "resources": {"requests": {"cpu": "1"}}}), 1000),
        ];
        for (spec, millis) in cases {
            assert_eq!(pod_requests(&pod(spec.clone())).get("cpu"), millis, "{spec}");
        }
    }

    #[test]
    fn sidecars_count_beside_containers_and_later_init_containers() {
        let mut sidecar = asks("s", "100m");
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"containers": [asks("a", "100m")], "initContainers": [sidecar, asks("i", "150m")]});
        assert_eq!(pod_requests(&pod(spec)).get("cpu"), 250);
    }

    #[test]
    fn scoring_counts_containers_without_requests() {
        let pod = pod(json!({"containers": [{"name": "a"}]}));
        assert_eq!(pod_requests(&pod), Amounts::default());
        assert_eq!(pod_requests_for_scoring(&pod).get("cpu"), DEFAULT_CPU_MILLIS);
        assert_eq!(pod_requests_for_scoring(&pod).get("memory"), DEFAULT_MEMORY);
    }
}
