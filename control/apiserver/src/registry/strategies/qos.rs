//! The quality-of-service class of a pod: how firmly its resources are promised.

use std::collections::BTreeMap;

use sampan_api::quantity::Quantity;
use serde_json::Value;

use crate::validation::resources::quantity;
use crate::validation::view::{list, map, member, part};

const COUNTED: &[&str] = &["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort`. Resources of the pod as a whole stand for those of
/// its containers.
pub(super) fn class(spec: &Value) -> &'static str {
    let of_pod = part(spec, "resources")
        .filter(|resources| ["limits", "requests"].iter().any(|name| !map(resources, name).is_empty()));
    let of_containers = || {
        let all = list(spec, "containers").iter().chain(list(spec, "initContainers"));
        all.map(|container| member(container, "resources")).collect()
    };
    let resources: Vec<&Value> = of_pod.map_or_else(of_containers, |resources| vec![resources]);
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut all_limited = true;
    for resources in resources {
        add(&mut requests, resources, "requests");
        all_limited &= add(&mut limits, resources, "limits") == COUNTED.len();
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds what counts; answers how many amounts there were.
fn add<'a>(sums: &mut BTreeMap<&'a str, Quantity>, resources: &'a Value, name: &str) -> usize {
    let mut found = 0;
    for (name, value) in map(resources, name).iter().filter(|(name, _)| COUNTED.contains(&name.as_str())) {
        if let Some(amount) = quantity(value).filter(|amount| *amount > Quantity::ZERO) {
            *sums.entry(name).or_default() += amount;
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_follow_requests_and_limits() {
        let both = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        for (resources, expected) in [
            (vec![json!({})], "BestEffort"),
            (vec![json!({"limits": {"cpu": "0"}})], "BestEffort"),
            (
                vec![json!({"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}})],
                "BestEffort",
            ),
            (vec![json!({"requests": {"cpu": "1"}})], "Burstable"),
            (vec![json!({"limits": both("1", "1Gi"), "requests": both("1000m", "1024Mi")})], "Guaranteed"),
            (vec![json!({"limits": both("1", "1Gi"), "requests": both("500m", "1Gi")})], "Burstable"),
            (vec![json!({"limits": both("1", "1Gi"), "requests": both("1", "1Gi")}), json!({})], "Burstable"),
            (vec![json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})], "Burstable"),
        ] {
            let containers: Vec<Value> = resources.iter().map(|r| json!({"resources": r})).collect();
            assert_eq!(class(&json!({"containers": containers})), expected, "{resources:?}");
        }
        let spec = json!({"containers": [{}],
            "resources": {"limits": both("1", "1Gi"), "requests": both("1", "1Gi")}});
        assert_eq!(class(&spec), "Guaranteed");
        let spec = json!({"containers": [{"resources": {"limits": both("1", "1Gi"), "requests": both("1", "1Gi")}}],
            "initContainers": [{}]});
        assert_eq!(class(&spec), "Burstable");
    }
}
