//! What a pod refers to: the objects that must be at hand to start it. Pure.

use std::collections::BTreeSet;

use sampan_api::meta::ObjectMeta;
use serde_json::Value;

/// What the keys of an object are under `/registry/core/`: `(plural, namespace, name)`.
pub(crate) type Reference = (&'static str, String, String);

/// Everything that a pod refers to, its namespace and service account included.
pub(crate) fn of_pod(pod: &Value) -> BTreeSet<Reference> {
    let namespace = ObjectMeta::of(pod).namespace();
    let mut found = BTreeSet::new();
    found.insert(("namespaces", String::new(), namespace.to_owned()));
    let Some(spec) = pod.get("spec") else { return found };
    let mut add = |plural, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            found.insert((plural, namespace.to_owned(), name.to_owned()));
        }
    };
    add("serviceaccounts", spec.get("serviceAccountName"));
    for reference in spec.get("imagePullSecrets").and_then(Value::as_array).into_iter().flatten() {
        add("secrets", reference.get("name"));
    }
    for part in ["volumes", "containers", "initContainers", "ephemeralContainers"] {
        if let Some(value) = spec.get(part) {
            walk(value, &mut add);
        }
    }
    found
}

/// Finds references at any depth of volumes and containers.
fn walk(value: &Value, add: &mut impl FnMut(&'static str, Option<&Value>)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, add)),
        Value::Object(members) => {
            for (name, member) in members {
                match name.as_str() {
                    "configMap" | "configMapRef" | "configMapKeyRef" => add("configmaps", member.get("name")),
                    // As a volume, and as a part of a projected one.
                    "secret" => {
                        add("secrets", member.get("secretName"));
                        add("secrets", member.get("name"));
                    }
                    "secretRef" | "secretKeyRef" => add("secrets", member.get("name")),
                    _ => walk(member, add),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_a_pod_may_have_them() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {
                "serviceAccountName": "robot",
                "imagePullSecrets": [{"name": "pull"}],
                "volumes": [
                    {"name": "a", "configMap": {"name": "files"}},
                    {"name": "b", "secret": {"secretName": "keys"}},
                    {"name": "c", "projected": {"sources": [
                        {"configMap": {"name": "kube-root-ca.crt"}}, {"secret": {"name": "part"}},
                        {"serviceAccountToken": {"path": "token"}}
                    ]}},
                    {"name": "d", "emptyDir": {}}
                ],
                "containers": [{"name": "c", "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
                    {"name": "C", "value": "configMap"}
                ]}],
                "initContainers": [{"name": "i", "envFrom": [
                    {"configMapRef": {"name": "all"}}, {"secretRef": {"name": "all"}}
                ]}]
            }
        });
        let found: Vec<String> =
            of_pod(&pod).into_iter().map(|(plural, _, name)| format!("{plural}/{name}")).collect();
        assert_eq!(
            found,
            [
                "configmaps/all",
                "configmaps/env",
                "configmaps/files",
                "configmaps/kube-root-ca.crt",
                "namespaces/ns",
                "secrets/all",
                "secrets/env",
                "secrets/keys",
                "secrets/part",
                "secrets/pull",
                "serviceaccounts/robot"
            ]
        );
    }
}
