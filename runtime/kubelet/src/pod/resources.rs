//! What a pod asks of the node: requests, limits and the quality-of-service class.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WrittenQuantity;
use sampan_api::quantity::Quantity;

use super::spec::{self, Role};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads an amount; one that cannot be read counts as nothing (the API server lets none through).
pub fn amount(written: &WrittenQuantity) -> Quantity {
    Quantity::parse(&written.0).unwrap_or_default()
}

/// Reads a list of amounts; one that is not there is empty.
pub fn amounts(list: Option<&BTreeMap<String, WrittenQuantity>>) -> Amounts {
    list.into_iter().flatten().map(|(name, written)| (name.clone(), amount(written))).collect()
}

/// What the pod asks for: its running containers together, or its greediest moment while
/// starting; requests that were left out count as the limit.
pub fn requests(pod: &Pod) -> Amounts {
    total(pod, container_requests)
}

/// What the pod may use at most, as far as limits are set.
pub fn limits(pod: &Pod) -> Amounts {
    total(pod, |container| amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref())))
}

fn total(pod: &Pod, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut running = Amounts::new();
    for container in spec::main_containers(pod) {
        add(&mut running, &of(container));
    }
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for (role, container) in spec::init_containers(pod) {
        let wanted = of(container);
        match role {
            Role::Sidecar => {
                add(&mut running, &wanted);
                add(&mut sidecars, &wanted);
                raise(&mut starting, &sidecars);
            }
            _ => {
                let mut moment = sidecars.clone();
                add(&mut moment, &wanted);
                raise(&mut starting, &moment);
            }
        }
    }
    raise(&mut running, &starting);
    if let Some(spec) = spec::spec(pod) {
        // Requests of the pod as a whole stand in for the sum.
        for (name, amount) in amounts(spec.resources.as_ref().and_then(|r| r.requests.as_ref())) {
            running.insert(name, amount);
        }
        add(&mut running, &amounts(spec.overhead.as_ref()));
    }
    running
}

/// A container's requests; a limit without a request counts as one.
pub fn container_requests(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    let mut wanted = amounts(resources.and_then(|r| r.limits.as_ref()));
    wanted.extend(amounts(resources.and_then(|r| r.requests.as_ref())));
    wanted
}

/// One limit of a container.
pub fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    quantity(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// One request of a container.
pub fn request(container: &Container, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    quantity(resources.requests.as_ref(), resource).or_else(|| quantity(resources.limits.as_ref(), resource))
}

fn quantity(list: Option<&BTreeMap<String, WrittenQuantity>>, resource: &str) -> Option<Quantity> {
    list?.get(resource).map(amount)
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += *amount;
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let entry = to.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// The pod's quality-of-service class.
pub fn qos_class(pod: &Pod) -> &'static str {
    let of_pod = spec::spec(pod).and_then(|spec| spec.resources.as_ref());
    let lists: Vec<Option<&ResourceRequirements>> = match of_pod {
        Some(whole) if has_compute(whole) => vec![Some(whole)],
        _ => spec::containers(pod).map(|(_, container)| container.resources.as_ref()).collect(),
    };
    if !lists.iter().flatten().any(|resources| has_compute(resources)) {
        return "BestEffort";
    }
    let guaranteed = lists.iter().all(|resources| resources.is_some_and(is_guaranteed));
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn has_compute(resources: &ResourceRequirements) -> bool {
    COMPUTE.iter().any(|name| {
        [resources.requests.as_ref(), resources.limits.as_ref()]
            .into_iter()
            .any(|list| quantity(list, name).is_some_and(|amount| !amount.is_zero()))
    })
}

fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    COMPUTE.iter().all(|name| {
        let Some(limit) = quantity(resources.limits.as_ref(), name).filter(|limit| !limit.is_zero()) else {
            return false;
        };
        quantity(resources.requests.as_ref(), name).is_none_or(|request| request == limit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "spec": value })).unwrap()
    }

    fn cpu(list: &Amounts) -> i64 {
        list.get("cpu").copied().unwrap_or_default().milli_value()
    }

    #[test]
    fn a_pods_request_is_its_greediest_moment() {
        let container =
            |name: &str, cpu: &str| json!({ "name": name, "resources": { "requests": { "cpu": cpu } } });
        let sidecar = |name: &str, cpu: &str| json!({ "name": name, "restartPolicy": "Always", "resources": { "requests": { "cpu": cpu } } });
        let cases = [
            (json!([container("a", "100m"), container("b", "200m")]), json!([]), 300),
            (json!([container("a", "100m")]), json!([container("i", "1")]), 1000),
            (json!([container("a", "100m")]), json!([sidecar("s", "50m"), container("i", "1")]), 1050),
            (json!([container("a", "100m")]), json!([container("i", "120m"), sidecar("s", "50m")]), 150),
        ];
        for (main, init, want) in cases {
            let pod = pod(json!({ "containers": main, "initContainers": init }));
            assert_eq!(cpu(&requests(&pod)), want, "{pod:?}");
        }
    }

    #[test]
    fn a_limit_without_a_request_is_a_request() {
        let pod = pod(json!({ "containers": [{ "name": "a", "resources": { "limits": { "cpu": "2" } } }] }));
        assert_eq!(cpu(&requests(&pod)), 2000);
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        let both = json!({ "cpu": "1", "memory": "1Gi" });
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({ "limits": both }), "Guaranteed"),
            (json!({ "limits": both, "requests": both }), "Guaranteed"),
            (json!({ "limits": both, "requests": { "cpu": "500m" } }), "Burstable"),
            (json!({ "requests": both }), "Burstable"),
            (json!({ "limits": { "cpu": "1" } }), "Burstable"),
        ] {
            let pod = pod(json!({ "containers": [{ "name": "a", "resources": resources }] }));
            assert_eq!(qos_class(&pod), class, "{resources}");
        }
    }
}
