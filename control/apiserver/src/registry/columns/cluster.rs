//! Namespaces, service accounts, leases.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, age, column, name};
use crate::registry::strategy::Column;
use crate::validation::view::{list, member, text};

/// The columns of namespaces.
pub(crate) const NAMESPACE: &[Column] = &[NAME, column("Status", "The status of the namespace"), AGE];

/// The cells of a namespace.
pub(crate) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(member(object, "status"), "phase").into(), age(object, now)]
}

/// The columns of service accounts.
pub(crate) const SERVICE_ACCOUNT: &[Column] = &[
    NAME,
    column(
        "Secrets",
        "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use. Pods are only limited to this list if this service account has a \"kubernetes.io/enforce-mountable-secrets\" annotation set to \"true\". The \"kubernetes.io/enforce-mountable-secrets\" annotation is deprecated since v1.32. Prefer separate namespaces to isolate access to mounted secrets. This field should not be used to find auto-generated service account token secrets for use outside of pods. Instead, tokens can be requested directly using the TokenRequest API, or service account token secrets can be manually created. More info: https://kubernetes.io/docs/concepts/configuration/secret",
    ),
    AGE,
];

/// The cells of a service account.
pub(crate) fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), list(object, "secrets").len().into(), age(object, now)]
}

/// The columns of leases.
pub(crate) const LEASE: &[Column] = &[
    NAME,
    column(
        "Holder",
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
    ),
    AGE,
];

/// The cells of a lease.
pub(crate) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(member(object, "spec"), "holderIdentity").into(), age(object, now)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells() {
        let now = "2025-01-03T00:00:00Z".parse().unwrap();
        let object = json!({
            "metadata": {"name": "n", "creationTimestamp": "2025-01-01T00:00:00Z"},
            "spec": {"holderIdentity": "h"},
            "status": {"phase": "Active"},
            "secrets": [{"name": "a"}],
        });
        assert_eq!(namespace(&object, now), [json!("n"), json!("Active"), json!("2d")]);
        assert_eq!(service_account(&object, now), [json!("n"), json!(1), json!("2d")]);
        assert_eq!(lease(&object, now), [json!("n"), json!("h"), json!("2d")]);
    }
}
