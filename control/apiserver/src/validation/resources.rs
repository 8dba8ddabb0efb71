//! Resource lists: names, quantities, requests against limits, claims.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use sampan_api::quantity::Quantity;
use serde_json::{Map, Value};

use super::checks::{Errors, NOT_NEGATIVE, dns_label, each};
use super::view::{list, map, member, part, text};

const HUGE_PAGES: &str = "hugepages-";
const CONTAINER_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const POD_LEVEL_RESOURCES: &[&str] = &["cpu", "hugepages-", "memory"];

/// Names without a domain that mean something somewhere (quotas know more than containers do).
const STANDARD_RESOURCES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources that are counted in whole numbers.
const COUNTED_RESOURCES: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whose resources a list of requirements describes; the names allowed differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// A container's.
    Container,
    /// A whole pod's.
    Pod,
}

/// A quantity, where there is a readable one.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    Quantity::from_json(value).ok()
}

/// The quantity of a resource in a list, where there is one.
pub(crate) fn quantity_of(resources: &Value, name: &str) -> Option<Quantity> {
    quantity(member(resources, name))
}

/// Whether a resource is one of huge pages.
pub(crate) fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether a name belongs to Kubernetes itself: no domain, or one of `kubernetes.io`.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a name is one of somebody's own resources (devices).
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether limits may exceed requests.
fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

fn is_counted(name: &str) -> bool {
    COUNTED_RESOURCES.contains(&name) || is_extended(name)
}

/// A quantity that is not negative, and whole where the resource is counted.
pub(crate) fn quantity_value(name: &str, value: &Value, path: &FieldPath, out: &mut Errors) {
    let amount = match Quantity::from_json(value) {
        Ok(amount) => amount,
        Err(error) => {
            out.push(FieldError::invalid(path, value.clone(), error.to_string()));
            return;
        }
    };
    if amount.is_negative() {
        out.push(FieldError::invalid(path, amount.to_string(), NOT_NEGATIVE));
    }
    if is_counted(name) && !is_whole(amount) {
        out.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
}

/// Whether a quantity has no fraction (to a thousandth, as Kubernetes looks).
pub(crate) fn is_whole(amount: Quantity) -> bool {
    amount.milli_value() % 1000 == 0
}

fn resource_name(name: &str, path: &FieldPath, out: &mut Errors) -> bool {
    let before = out.len();
    each(path, name, names::is_qualified_name(name), out);
    if out.len() > before {
        return false;
    }
    let standard =
        STANDARD_RESOURCES.contains(&name) || is_huge_pages(name) || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !standard {
        out.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
        return false;
    }
    true
}

fn container_resource_name(name: &str, path: &FieldPath, out: &mut Errors) {
    resource_name(name, path, out);
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !is_huge_pages(name) {
            out.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        out.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

fn pod_resource_name(name: &str, path: &FieldPath, out: &mut Errors) {
    let known = matches!(name, "cpu" | "memory") || is_huge_pages(name);
    if resource_name(name, path, out) && !known {
        out.push(FieldError::not_supported(path, name, POD_LEVEL_RESOURCES));
    }
}

impl Level {
    fn check_name(self, name: &str, path: &FieldPath, out: &mut Errors) {
        match self {
            Self::Container => container_resource_name(name, path, out),
            Self::Pod => pod_resource_name(name, path, out),
        }
    }
}

/// The requirements of a container or a pod.
pub(crate) fn requirements(
    requirements: &Value,
    level: Level,
    claims: &[&str],
    path: &FieldPath,
    out: &mut Errors,
) {
    let limits = map(requirements, "limits");
    let requests = map(requirements, "requests");
    resource_list(limits, level, &path.child("limits"), out);
    let requests_path = path.child("requests");
    for (name, value) in requests {
        one_resource(name, value, level, &requests_path.key(name), out);
        if let Some(amount) = quantity(value) {
            against_limit(name, amount, limits.get(name), path, out);
        }
    }
    let any = |matches: fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| matches(name));
    if any(is_huge_pages) && !any(|name| matches!(name, "cpu" | "memory")) {
        out.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    claim_names(list(requirements, "claims"), claims, &path.child("claims"), out);
}

/// A list of resources by name.
pub(crate) fn resource_list(
    resources: &Map<String, Value>,
    level: Level,
    path: &FieldPath,
    out: &mut Errors,
) {
    for (name, value) in resources {
        one_resource(name, value, level, &path.key(name), out);
    }
}

fn one_resource(name: &str, value: &Value, level: Level, path: &FieldPath, out: &mut Errors) {
    level.check_name(name, path, out);
    quantity_value(name, value, path, out);
    if let (Some(size), Some(amount)) = (name.strip_prefix(HUGE_PAGES), quantity(value)) {
        let page = Quantity::parse(size).ok().filter(|page| *page > Quantity::default() && is_whole(*page));
        let divides = page.is_some_and(|page| amount.value() % page.value() == 0);
        if !divides {
            let text = format!("{amount} is not positive integer multiple of {name}");
            out.push(FieldError::invalid(path, amount.to_string(), text));
        }
    }
}

fn against_limit(name: &str, amount: Quantity, limit: Option<&Value>, path: &FieldPath, out: &mut Errors) {
    let Some(limit) = limit.and_then(quantity) else {
        if !allows_overcommit(name) {
            let text = "Limit must be set for non overcommitable resources";
            out.push(FieldError::required(&path.child("limits"), text));
        }
        return;
    };
    let path = path.child("requests");
    if amount != limit && !allows_overcommit(name) {
        let text = format!("must be equal to {name} limit of {limit}");
        out.push(FieldError::invalid(&path, amount.to_string(), text));
    } else if amount > limit {
        let text = format!("must be less than or equal to {name} limit of {limit}");
        out.push(FieldError::invalid(&path, amount.to_string(), text));
    }
}

/// The claims that a container uses: each one once, and each one of the pod's.
fn claim_names(claims: &[Value], of_pod: &[&str], path: &FieldPath, out: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            out.push(FieldError::required(&path, ""));
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if seen.iter().any(|s| s == name) {
            out.push(FieldError::duplicate(&path, name));
        } else {
            if !request.is_empty() {
                dns_label(request, &path.child("request"), out);
            }
            if seen.contains(&key) {
                out.push(FieldError::duplicate(&path, key.clone()));
            } else if request.is_empty() {
                let within = |s: &&String| s.split_once('/').is_some_and(|(claim, _)| claim == name);
                out.extend(seen.iter().filter(within).map(|_| FieldError::duplicate(&path, name)));
            }
            seen.push(key);
        }
        if !of_pod.contains(&name) {
            out.push(unknown_claim(name, of_pod, &path));
        }
    }
}

fn unknown_claim(name: &str, of_pod: &[&str], path: &FieldPath) -> FieldError {
    let mut error = FieldError::not_found(path, name);
    let mut known = of_pod.to_vec();
    known.sort_unstable();
    error.detail = match known.as_slice() {
        [] => "must be one of the names in pod.spec.resourceClaims which is empty".to_owned(),
        known => format!("must be one of the names in pod.spec.resourceClaims: {}", known.join(", ")),
    };
    error
}

/// The resources of a pod as a whole, against those of its containers.
pub(crate) fn of_pod(spec: &Value, claims: &[&str], path: &FieldPath, out: &mut Errors) {
    let Some(resources) = part(spec, "resources") else { return };
    if part(resources, "claims").is_some() {
        let text = "claims cannot be set for Resources at pod-level";
        out.push(FieldError::forbidden(&path.child("claims"), text));
    }
    requirements(resources, Level::Pod, claims, path, out);
    let requests = member(resources, "requests");
    for (name, sum) in sum_of_requests(spec) {
        let of_pod = quantity_of(requests, &name).unwrap_or_default();
        if sum > of_pod {
            let path = path.child("requests").key(&name);
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            out.push(FieldError::invalid(&path, of_pod.to_string(), text));
        }
    }
    for (i, container) in list(spec, "containers").iter().enumerate() {
        for (name, value) in map(member(container, "resources"), "limits") {
            let Some(of_pod) = quantity_of(member(resources, "limits"), name) else { continue };
            let Some(of_container) = quantity(value).filter(|amount| *amount > of_pod) else { continue };
            let path = path.child("containers").index(i).key(name).child("limits");
            let text = format!("must be less than or equal to pod limits of {of_pod}");
            out.push(FieldError::invalid(&path, of_container.to_string(), text));
        }
    }
}

/// What a pod's containers request at most at one time: all containers and sidecars together, or
/// an init container with the sidecars started before it.
fn sum_of_requests(spec: &Value) -> Vec<(String, Quantity)> {
    let mut running = Amounts::default();
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for container in list(spec, "containers") {
        running.add(container);
    }
    for container in list(spec, "initContainers") {
        if text(container, "restartPolicy") == "Always" {
            running.add(container);
            sidecars.add(container);
            starting.raise_to(&sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            with_sidecars.add(container);
            starting.raise_to(&with_sidecars);
        }
    }
    running.raise_to(&starting);
    running.0
}

/// Quantities by resource name.
#[derive(Clone, Default)]
struct Amounts(Vec<(String, Quantity)>);

impl Amounts {
    fn slot(&mut self, name: &str) -> Option<&mut Quantity> {
        if !self.0.iter().any(|(known, _)| known == name) {
            self.0.push((name.to_owned(), Quantity::default()));
        }
        self.0.iter_mut().find(|(known, _)| known == name).map(|(_, amount)| amount)
    }

    fn add(&mut self, container: &Value) {
        for (name, value) in map(member(container, "resources"), "requests") {
            if let (Some(amount), Some(slot)) = (quantity(value), self.slot(name)) {
                *slot += amount;
            }
        }
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if let Some(slot) = self.slot(name).filter(|slot| **slot < *amount) {
                *slot = *amount;
            }
        }
    }
}

#[cfg(test)]
mod tests;
