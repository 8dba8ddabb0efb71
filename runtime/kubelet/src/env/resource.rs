//! `resourceFieldRef`: a container's own limits and requests as numbers.

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use sampan_api::quantity::Quantity;

use crate::pod::resources::{self, Amounts};

/// What a selector stands for, for `container`. A limit that is not set is what the node gives.
pub fn value(
    selector: &ResourceFieldSelector,
    container: &Container,
    allocatable: &Amounts,
) -> Result<String, String> {
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known =
        matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    let amount = match list {
        _ if !known => return Err(unsupported()),
        "limits" => resources::limit(container, resource)
            .filter(|limit| !limit.is_zero())
            .or_else(|| allocatable.get(resource).copied())
            .unwrap_or_default(),
        "requests" => resources::request(container, resource).unwrap_or_default(),
        _ => return Err(unsupported()),
    };
    Ok(divided(amount, selector.divisor.as_ref().map(resources::amount)).to_string())
}

/// How many times `divisor` goes into `amount`, rounded up; none, or one of nothing, counts as one.
fn divided(amount: Quantity, divisor: Option<Quantity>) -> i64 {
    let divisor = divisor
        .filter(|divisor| !divisor.is_zero() && !divisor.is_negative())
        .unwrap_or_else(|| Quantity::from_units(1));
    // A divisor is whole, or a thousandth of a CPU; in its unit rounding up first changes nothing.
    let (amount, divisor) = if divisor.is_whole() {
        (amount.value(), divisor.value())
    } else {
        (amount.milli_value(), divisor.milli_value())
    };
    amount.div_euclid(divisor) + i64::from(amount.rem_euclid(divisor) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_divided_and_rounded_up() {
        let container: Container = serde_json::from_value(json!({
            "name": "a",
            "resources": { "limits": { "memory": "100Mi" }, "requests": { "cpu": "250m", "memory": "64Mi" } }
        }))
        .unwrap();
        let allocatable = Amounts::from([("cpu".to_owned(), Quantity::from_units(4))]);
        for (resource, divisor, want) in [
            ("limits.memory", "0", "104857600"),
            ("limits.memory", "1Mi", "100"),
            ("limits.cpu", "1", "4"),
            ("limits.cpu", "1m", "4000"),
            ("requests.cpu", "1", "1"),
            ("requests.cpu", "1m", "250"),
            ("requests.memory", "1Ki", "65536"),
            ("requests.memory", "3", "22369622"),
            ("requests.cpu", "100m", "3"),
            ("requests.cpu", "-1", "1"),
            ("limits.ephemeral-storage", "1", "0"),
        ] {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({ "resource": resource, "divisor": divisor })).unwrap();
            assert_eq!(
                value(&selector, &container, &allocatable).as_deref(),
                Ok(want),
                "{resource} / {divisor}"
            );
        }
        let wrong: ResourceFieldSelector =
            serde_json::from_value(json!({ "resource": "limits.gpu" })).unwrap();
        assert!(value(&wrong, &container, &allocatable).is_err());
    }
}
