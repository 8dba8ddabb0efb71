//! The strategies of the kinds that are served: a file for each kind.
//!
//! They decide with `crate::validation` what is valid and print with `super::columns`; the registry
//! and the watch cache call them through [`Strategy`].

mod config_map;
mod event;
mod lease;
mod namespace;
mod node;
mod pod;
mod qos;
mod secret;
mod service_account;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use sampan_api::scheme::{self, Resource};
use serde_json::Value;

use super::strategy::Strategy;
use crate::validation::view::restore;

/// Every strategy, one for each stored resource.
pub fn all() -> Vec<Arc<dyn Strategy>> {
    let resources = scheme::resources();
    resources.iter().filter(|resource| resource.storage.is_some()).filter_map(of_resource).collect()
}

/// The strategy of a resource, in the API in which it is stored.
fn of_resource(resource: &'static Resource) -> Option<Arc<dyn Strategy>> {
    Some(match (resource.group, resource.plural) {
        ("", "configmaps") => Arc::new(config_map::ConfigMaps(resource)),
        ("", "events") => Arc::new(event::Events(resource)),
        ("", "namespaces") => Arc::new(namespace::Namespaces(resource)),
        ("", "nodes") => Arc::new(node::Nodes(resource)),
        ("", "pods") => Arc::new(pod::Pods(resource)),
        ("", "secrets") => Arc::new(secret::Secrets(resource)),
        ("", "serviceaccounts") => Arc::new(service_account::ServiceAccounts(resource)),
        ("coordination.k8s.io", "leases") => Arc::new(lease::Leases(resource)),
        _ => return None,
    })
}

/// Leaves of the object only status and metadata; the rest is as it was.
fn keep_all_but_status(object: &mut Value, old: &Value) {
    let names: Vec<String> = [&*object, old]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(|members| members.keys().cloned())
        .filter(|name| !matches!(name.as_str(), "status" | "metadata" | "kind" | "apiVersion"))
        .collect();
    for name in names {
        restore(object, old, &name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_stored_resource_has_one_strategy() {
        let stored: BTreeSet<_> =
            scheme::resources().iter().filter_map(|resource| resource.storage).collect();
        let strategies = all();
        let kept: BTreeSet<_> =
            strategies.iter().filter_map(|strategy| strategy.resource().storage).collect();
        assert_eq!(kept, stored);
        assert_eq!(strategies.len(), stored.len());
    }

    #[test]
    fn every_strategy_prints_a_cell_for_each_column_of_any_object() {
        let now = "2025-01-01T00:00:00Z".parse().unwrap();
        for strategy in all() {
            for object in [json!({}), json!({"metadata": {"name": "n"}, "spec": {}, "status": {}})] {
                let kind = strategy.resource().kind;
                assert_eq!(strategy.cells(&object, now).len(), strategy.columns().len(), "{kind}");
                for label in strategy.field_labels() {
                    strategy.field_value(&object, label);
                }
            }
        }
    }

    #[test]
    fn a_status_update_leaves_the_rest_alone() {
        let old = json!({"metadata": {"a": 1}, "spec": {"b": 1}, "status": {"c": 1}});
        let mut new = json!({"metadata": {"a": 2}, "spec": {"b": 2}, "status": {"c": 2}, "data": {}});
        keep_all_but_status(&mut new, &old);
        assert_eq!(new, json!({"metadata": {"a": 2}, "spec": {"b": 1}, "status": {"c": 2}}));
    }
}
