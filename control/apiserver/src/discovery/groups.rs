//! Discovery: which groups, versions and resources there are, from the scheme.

use sampan_api::scheme::{self, GroupVersion, Resource, Subresource, Verb};
use serde_json::{Map, Value, json};

/// The version of aggregated discovery that a client accepts, if it accepts any.
pub(super) fn aggregated_version(accept: &str) -> Option<&'static str> {
    accept.split(',').find_map(|range| {
        let parts: Vec<&str> = range.split(';').map(str::trim).collect();
        let has = |part: &str| parts.contains(&part);
        let aggregated =
            has("application/json") && has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList");
        match aggregated {
            true if has("v=v2") => Some("v2"),
            true if has("v=v2beta1") => Some("v2beta1"),
            _ => None,
        }
    })
}

/// Every path of discovery.
pub(super) fn paths() -> Vec<String> {
    let mut paths: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .to_vec();
    for gv in scheme::group_versions() {
        if gv.group.is_empty() {
            paths.push(format!("/api/{gv}"));
        } else {
            paths.push(format!("/apis/{}", gv.group));
            paths.push(format!("/apis/{gv}"));
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// `/api`, the old form.
pub(super) fn versions(advertise: &str) -> Value {
    let versions: Vec<&str> =
        scheme::group_versions().iter().filter(|gv| gv.group.is_empty()).map(|gv| gv.version).collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": advertise}],
    })
}

/// `/apis`, the old form.
pub(super) fn group_list() -> Value {
    let groups: Vec<Value> = named_groups().into_iter().map(group_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(super) fn group(name: &str) -> Option<Value> {
    let known = named_groups().into_iter().find(|group| *group == name)?;
    let mut value = group_value(known);
    let members = value.as_object_mut()?;
    members.insert("kind".into(), "APIGroup".into());
    members.insert("apiVersion".into(), "v1".into());
    Some(value)
}

/// The groups with names, in order.
fn named_groups() -> Vec<&'static str> {
    let mut names: Vec<&str> =
        scheme::group_versions().iter().map(|gv| gv.group).filter(|g| !g.is_empty()).collect();
    names.dedup();
    names
}

fn group_value(name: &str) -> Value {
    let versions: Vec<Value> = scheme::group_versions()
        .iter()
        .filter(|gv| gv.group == name)
        .map(|gv| json!({"groupVersion": gv.to_string(), "version": gv.version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": name, "versions": versions, "preferredVersion": preferred})
}

/// `/api/v1`, `/apis/<group>/<version>`.
pub(super) fn resources(group: &str, version: &str) -> Option<Value> {
    let gv = scheme::group_versions().iter().find(|gv| gv.group == group && gv.version == version)?;
    let mut list = Vec::new();
    for resource in gv.resources() {
        list.push(resource_value(resource));
        list.extend(resource.subresources.iter().map(|sub| subresource_value(resource, sub)));
    }
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv.to_string(), "resources": list}),
    )
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|v| v.as_str()).collect()
}

fn resource_value(resource: &Resource) -> Value {
    let mut value = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs(resource.verbs),
    });
    name_lists(&mut value, resource);
    value
}

/// Short names and categories, where there are any.
fn name_lists(value: &mut Value, resource: &Resource) {
    let Some(members) = value.as_object_mut() else { return };
    for (name, list) in [("shortNames", resource.short_names), ("categories", resource.categories)] {
        if !list.is_empty() {
            members.insert(name.into(), list.into());
        }
    }
}

fn subresource_value(resource: &Resource, subresource: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", resource.plural, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind,
        "verbs": verbs(subresource.verbs),
    });
    if let (Some(members), Some((group, version))) = (value.as_object_mut(), subresource.group_version) {
        members.insert("group".into(), group.into());
        members.insert("version".into(), version.into());
    }
    value
}

/// `/api`, aggregated.
pub(super) fn aggregated_core(version: &str) -> Value {
    aggregated(version, vec![aggregated_group("")])
}

/// `/apis`, aggregated.
pub(super) fn aggregated_groups(version: &str) -> Value {
    aggregated(version, named_groups().into_iter().map(aggregated_group).collect())
}

fn aggregated(version: &str, items: Vec<Value>) -> Value {
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &str) -> Value {
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    let versions: Vec<Value> = scheme::group_versions()
        .iter()
        .filter(|gv| gv.group == group)
        .map(|gv| {
            let resources: Vec<Value> =
                gv.resources().into_iter().map(|r| aggregated_resource(*gv, r)).collect();
            json!({"version": gv.version, "freshness": "Current", "resources": resources})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(gv: GroupVersion, resource: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": kind(gv.group, gv.version, resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(resource.verbs),
    });
    name_lists(&mut value, resource);
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            let (group, version) = sub.group_version.unwrap_or((gv.group, gv.version));
            let mut members = Map::new();
            members.insert("subresource".into(), sub.name.into());
            members.insert("responseKind".into(), kind(group, version, sub.kind));
            members.insert("verbs".into(), verbs(sub.verbs));
            Value::Object(members)
        })
        .collect();
    if let Some(members) = value.as_object_mut().filter(|_| !subresources.is_empty()) {
        members.insert("subresources".into(), subresources.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregated_discovery_is_asked_for_by_its_full_media_type() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let older =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_version(kubectl), Some("v2"));
        assert_eq!(aggregated_version(older), Some("v2beta1"));
        assert_eq!(aggregated_version("application/json"), None);
        assert_eq!(aggregated_version("*/*"), None);
    }

    #[test]
    fn every_row_of_the_scheme_is_discovered_in_both_forms() {
        let (core, named) = (aggregated_core("v2"), aggregated_groups("v2"));
        for row in scheme::resources() {
            let list = resources(row.group, row.version).unwrap();
            let names: Vec<&str> =
                list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
            assert!(names.contains(&row.plural), "{row}");
            for sub in row.subresources {
                assert!(
                    names.contains(&format!("{}/{}", row.plural, sub.name).as_str()),
                    "{row}/{}",
                    sub.name
                );
            }
            let document = if row.group.is_empty() { &core } else { &named };
            let found = document["items"].as_array().unwrap().iter().any(|group| {
                group["versions"].as_array().unwrap().iter().any(|version| {
                    let resources = version["resources"].as_array().unwrap();
                    resources
                        .iter()
                        .any(|r| r["resource"] == row.plural && r["responseKind"]["group"] == row.group)
                })
            });
            assert!(found, "{row}");
        }
    }

    #[test]
    fn tokens_are_known_to_be_of_the_authentication_group() {
        let list = resources("", "v1").unwrap();
        let token =
            list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "serviceaccounts/token");
        assert_eq!(token.unwrap()["group"], "authentication.k8s.io");
        assert!(group("nowhere.k8s.io").is_none());
        assert!(resources("", "v2").is_none());
    }
}
