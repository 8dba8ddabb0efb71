//! Leases.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::checks::{Errors, each};
use super::view::{int, member, opt_text, text};

/// What is wrong with a lease, new or changed.
pub fn validate(lease: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    let spec = member(lease, "spec");
    let path = FieldPath::new("spec");
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let path = path.child("leaseDurationSeconds");
        out.push(FieldError::invalid(&path, seconds, "must be greater than 0"));
    }
    if let Some(count) = int(spec, "leaseTransitions").filter(|count| *count < 0) {
        let path = path.child("leaseTransitions");
        out.push(FieldError::invalid(&path, count, "must be greater than or equal to 0"));
    }
    if let Some(name) = opt_text(spec, "strategy") {
        strategy(name, &path.child("strategy"), &mut out);
    }
    if !text(spec, "preferredHolder").is_empty() && text(spec, "strategy").is_empty() {
        let text = "may only be specified if `strategy` is defined";
        out.push(FieldError::forbidden(&path.child("preferredHolder"), text));
    }
    out
}

/// Kubernetes' own strategies have bare names. The doubled path is Kubernetes' own, too.
fn strategy(name: &str, path: &FieldPath, out: &mut Errors) {
    let path = path.child("strategy");
    if name.contains('/') {
        each(&path, name, names::is_qualified_name(name), out);
    } else if name != "OldestEmulationVersion" {
        out.push(FieldError::not_supported(&path, name, &["OldestEmulationVersion"]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn leases() {
        for (spec, expected) in [
            (json!({"holderIdentity": "h", "leaseDurationSeconds": 40, "leaseTransitions": 0}), vec![]),
            (
                json!({"leaseDurationSeconds": 0, "leaseTransitions": -1}),
                vec![
                    "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                    "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (json!({"strategy": "example.com/mine", "preferredHolder": "p"}), vec![]),
            (
                json!({"strategy": "x"}),
                vec![
                    r#"spec.strategy.strategy: Unsupported value: "x": supported values: "OldestEmulationVersion""#,
                ],
            ),
            (
                json!({"preferredHolder": "p"}),
                vec!["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
            ),
        ] {
            assert_eq!(texts(&validate(&json!({"spec": spec}))), expected, "{spec}");
        }
    }
}
