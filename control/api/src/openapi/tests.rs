use super::*;
use crate::scheme;

fn rows(group: &str) -> Vec<&'static Resource> {
    scheme::resources().iter().filter(|resource| resource.group == group).collect()
}

fn document(group: &str) -> Value {
    v3_document(group, "v1", &rows(group), "v1.35.0+test", Features::default())
}

fn component<'d>(document: &'d Value, name: &str) -> &'d Value {
    &document["components"]["schemas"][name]
}

#[test]
fn components_say_how_fields_merge() {
    let document = document("");
    let spec = component(&document, "io.k8s.api.core.v1.PodSpec");
    let containers = &spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["items"], json!({"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}));
    assert_eq!(spec["properties"]["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(spec["properties"]["nodeSelector"]["x-kubernetes-map-type"], "atomic");
    assert_eq!(spec["required"], json!(["containers"]));
    let ports = &component(&document, "io.k8s.api.core.v1.Container")["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    let port = component(&document, "io.k8s.api.core.v1.ContainerPort");
    assert_eq!(port["properties"]["protocol"]["default"], "TCP");
    assert_eq!(port["properties"]["containerPort"]["format"], "int32");
}

#[test]
fn every_merge_rule_of_the_table_is_in_the_document() {
    let document = document("");
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut rules = 0;
    for message in schemas.keys().filter_map(|name| schema::message(name)) {
        for field in message.fields.iter().filter(|field| field.patch.merge) {
            let property = &schemas[message.name]["properties"][field.name];
            let strategy = property["x-kubernetes-patch-strategy"].as_str().unwrap();
            assert!(strategy.starts_with("merge"), "{}.{}", message.name, field.name);
            assert_eq!(property["x-kubernetes-patch-merge-key"].as_str(), field.patch.merge_key);
            rules += 1;
        }
    }
    assert!(rules > 25, "{rules}");
}

#[test]
fn kinds_and_special_types_are_marked() {
    let document = document("");
    let pod = component(&document, "io.k8s.api.core.v1.Pod");
    let gvk = json!([{"group": "", "version": "v1", "kind": "Pod"}]);
    assert_eq!(pod["x-kubernetes-group-version-kind"], gvk);
    assert!(pod["description"].as_str().unwrap().starts_with("Pod is a collection"));
    assert!(pod.get("required").is_none());
    assert_eq!(
        pod["properties"]["spec"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}])
    );
    let port = component(&document, "io.k8s.apimachinery.pkg.util.intstr.IntOrString");
    assert_eq!(port["format"], "int-or-string");
    let time = component(&document, "io.k8s.apimachinery.pkg.apis.meta.v1.Time");
    assert_eq!((time["type"].as_str(), time["format"].as_str()), (Some("string"), Some("date-time")));
    let quantity = component(&document, "io.k8s.apimachinery.pkg.api.resource.Quantity");
    assert_eq!(quantity["oneOf"], json!([{"type": "string"}, {"type": "number"}]));
    let secret = component(&document, "io.k8s.api.core.v1.Secret");
    assert_eq!(
        secret["properties"]["data"]["additionalProperties"],
        json!({"type": "string", "format": "byte"})
    );
}

#[test]
fn references_lead_somewhere_and_nothing_stands_unreferenced() {
    for group in ["", "coordination.k8s.io", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io"]
    {
        let document = document(group);
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let references: std::collections::BTreeSet<&str> = text
            .split("\"#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        for reference in &references {
            assert!(schemas.contains_key(*reference), "{group}: {reference}");
        }
        for name in schemas.keys().filter(|name| !name.ends_with(".WatchEvent")) {
            assert!(references.contains(name.as_str()), "{group}: {name}");
        }
    }
    let lease = document("coordination.k8s.io");
    assert!(lease["components"]["schemas"].get("io.k8s.api.core.v1.Pod").is_none());
}

#[test]
fn patch_lists_its_media_types_and_parameters() {
    let document = document("");
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let gvk = json!({"group": "", "version": "v1", "kind": "Pod"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
    let media: Vec<_> = patch["requestBody"]["content"].as_object().unwrap().keys().collect();
    assert_eq!(
        media,
        [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json"
        ]
    );
    let names: Vec<_> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let features = Features { server_side_apply: true };
    let applied = v3_document("", "v1", &rows(""), "v1.35.0", features);
    let patch = &applied["paths"]["/api/v1/nodes/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/apply-patch+yaml").is_some());
}

#[test]
fn paths_have_the_operations_that_are_served() {
    let document = document("");
    let cases = [
        ("/api/v1/", "get", "getCoreV1APIResources"),
        ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces"),
        ("/api/v1/namespaces/{namespace}/pods", "get", "listCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods", "delete", "deleteCoreV1CollectionNamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "get", "readCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "put", "replaceCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "delete", "deleteCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/log", "get", "readCoreV1NamespacedPodLog"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/binding", "post", "createCoreV1NamespacedPodBinding"),
        ("/api/v1/namespaces/{name}", "get", "readCoreV1Namespace"),
        ("/api/v1/nodes", "get", "listCoreV1Node"),
    ];
    for (path, method, id) in cases {
        assert_eq!(document["paths"][path][method]["operationId"], id, "{method} {path}");
    }
    assert!(document["paths"]["/api/v1/namespaces"].get("delete").is_none());
    let log = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/log"]["get"];
    assert_eq!(log["responses"]["200"]["content"], json!({"text/plain": {"schema": {"type": "string"}}}));
    let token = &document["paths"]["/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"]["post"];
    assert_eq!(
        token["x-kubernetes-group-version-kind"],
        json!({"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"})
    );
}

#[test]
fn operation_ids_are_unique_and_documents_are_always_the_same() {
    for group in ["", "coordination.k8s.io", "authorization.k8s.io"] {
        let first = document(group);
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in first["paths"].as_object().unwrap() {
            for (method, operation) in
                item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters")
            {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{method} {path}: {id}");
            }
        }
        assert_eq!(first.to_string(), document(group).to_string());
    }
}

#[test]
fn the_hash_follows_what_the_document_says() {
    let hash =
        |version: &str, rows: &[&'static Resource], features| v3_hash("", "v1", rows, version, features);
    let all = rows("");
    let plain = hash("v1.35.0", &all, Features::default());
    assert_eq!(plain, hash("v1.35.0", &all, Features::default()));
    assert_ne!(plain, hash("v1.35.1", &all, Features::default()));
    assert_ne!(plain, hash("v1.35.0", &all[1..], Features::default()));
    assert_ne!(plain, hash("v1.35.0", &all, Features { server_side_apply: true }));
}

#[test]
fn the_index_points_at_the_documents() {
    assert_eq!(
        v3_index([("", "v1", "AB"), ("apps", "v1", "CD")]),
        json!({"paths": {
            "api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=AB"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=CD"},
        }})
    );
}
