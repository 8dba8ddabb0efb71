//! Create, read, update, patch and delete, by the general rules.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{cluster, names};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_new_object_gets_what_the_server_sets() {
    let c = cluster().await;
    let body = json!({"metadata": {"name": "a", "generateName": "ignored-", "uid": "mine", "generation": 7,
        "creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": "2001-01-01T00:00:00Z"}});
    let made = c.post(MAPS, &body).await.expect(201);
    assert_eq!(made["kind"], "ConfigMap");
    assert_eq!(made["apiVersion"], "v1");
    let meta = &made["metadata"];
    assert_eq!(meta["namespace"], "default");
    assert_ne!(meta["uid"], "mine");
    assert_ne!(meta["creationTimestamp"], "2001-01-01T00:00:00Z");
    assert_eq!(meta["deletionTimestamp"], Value::Null);
    assert_eq!(meta["generation"], Value::Null);
    assert!(meta["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(c.get(&format!("{MAPS}/a")).await.expect(200), made);
    assert_eq!(c.post(MAPS, &body).await.refusal(409, "AlreadyExists"), "configmaps \"a\" already exists");
}

#[tokio::test]
async fn names_are_generated_and_checked() {
    let c = cluster().await;
    let made = c.post(MAPS, &json!({"metadata": {"generateName": "web-"}})).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let text = c.post(MAPS, &json!({"metadata": {"name": "Not A Name"}})).await.refusal(422, "Invalid");
    assert!(text.starts_with("ConfigMap \"Not A Name\" is invalid: metadata.name: Invalid value: \"Not A Name\": a lowercase RFC 1123"), "{text}");
    let status = c.post(MAPS, &json!({"metadata": {}})).await;
    assert!(status.refusal(422, "Invalid").contains("name or generateName is required"));
    assert_eq!(status.json()["details"]["causes"][0]["reason"], "FieldValueRequired");
}

#[tokio::test]
async fn a_new_object_must_not_have_a_resource_version_or_another_namespace() {
    let c = cluster().await;
    let text =
        c.post(MAPS, &json!({"metadata": {"name": "a", "resourceVersion": "5"}})).await.refusal(500, "");
    assert_eq!(text, "resourceVersion should not be set on objects to be created");
    let text = c
        .post(MAPS, &json!({"metadata": {"name": "a", "namespace": "else"}}))
        .await
        .refusal(400, "BadRequest");
    assert_eq!(text, "the namespace of the provided object does not match the namespace sent on the request");
}

#[tokio::test]
async fn an_update_must_be_of_the_newest_version_if_it_names_one() {
    let c = cluster().await;
    let first = c.config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    let mut second = first.clone();
    second["data"]["k"] = json!("w");
    let second = c.put(&path, &second).await.expect(200);
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    assert_eq!(first["metadata"]["uid"], second["metadata"]["uid"]);
    let text = c.put(&path, &first).await.refusal(409, "Conflict");
    assert_eq!(
        text,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    let unconditional = json!({"metadata": {"name": "a"}, "data": {"k": "x"}});
    assert_eq!(c.put(&path, &unconditional).await.expect(200)["data"]["k"], "x");
    let other = json!({"metadata": {"name": "a", "uid": "else"}});
    assert!(
        c.put(&path, &other)
            .await
            .refusal(409, "Conflict")
            .contains("Precondition failed: UID in precondition: else")
    );
    let renamed = json!({"metadata": {"name": "b"}});
    assert_eq!(
        c.put(&path, &renamed).await.refusal(400, "BadRequest"),
        "the name of the object (b) does not match the name on the URL (a)"
    );
    c.put(&format!("{MAPS}/none"), &json!({"metadata": {"name": "none"}})).await.refusal(404, "NotFound");
}

#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let c = cluster().await;
    let made = c.config_map("a", json!({"x": "y"})).await;
    let before = c.storage.revision();
    let path = format!("{MAPS}/a");
    assert_eq!(c.put(&path, &made).await.expect(200), made);
    assert_eq!(c.patch(&path, "merge-patch", &json!({"data": {"k": "v"}})).await.expect(200), made);
    assert_eq!(c.storage.revision(), before);
}

#[tokio::test]
async fn patches_of_all_three_kinds_are_applied() {
    let c = cluster().await;
    c.config_map("a", json!({"x": "y"})).await;
    let path = format!("{MAPS}/a");
    let merged = c.patch(&path, "merge-patch", &json!({"data": {"k": null, "n": "1"}})).await.expect(200);
    assert_eq!(merged["data"], json!({"n": "1"}));
    let operations = json!([{"op": "test", "path": "/data/n", "value": "1"}, {"op": "add", "path": "/data/m", "value": "2"}]);
    assert_eq!(c.patch(&path, "json-patch", &operations).await.expect(200)["data"]["m"], "2");
    let strategic = json!({"metadata": {"labels": {"x": null, "z": "1"}}});
    let patched = c.patch(&path, "strategic-merge-patch", &strategic).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"z": "1"}));

    let failing = json!([{"op": "test", "path": "/data/n", "value": "9"}]);
    c.patch(&path, "json-patch", &failing).await.refusal(422, "Invalid");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"q": "1"}});
    c.patch(&path, "merge-patch", &stale).await.refusal(409, "Conflict");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let apply = c.ask(Method::PATCH, &path, &headers, "{}").await;
    assert!(apply.refusal(415, "UnsupportedMediaType").contains("application/strategic-merge-patch+json"));
    c.patch(&format!("{MAPS}/none"), "merge-patch", &json!({})).await.refusal(404, "NotFound");
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_about_or_ignored() {
    let c = cluster().await;
    let body = json!({"metadata": {"name": "a"}, "dada": {}});
    let text = c.post(&format!("{MAPS}?fieldValidation=Strict"), &body).await.refusal(400, "BadRequest");
    assert_eq!(text, "strict decoding error: unknown field \"dada\"");
    let warned = c.post(MAPS, &body).await;
    assert_eq!(warned.expect(201)["dada"], Value::Null);
    assert_eq!(warned.warnings(), ["299 - \"unknown field \\\"dada\\\"\""]);
    let ignored = c
        .post(&format!("{MAPS}?fieldValidation=Ignore"), &json!({"metadata": {"name": "b"}, "dada": 1}))
        .await;
    assert!(ignored.warnings().is_empty());
    ignored.expect(201);
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_changes_nothing() {
    let c = cluster().await;
    let before = c.storage.revision();
    let made = c.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.expect(201);
    assert!(made["metadata"]["uid"].is_string());
    c.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "A"}})).await.refusal(422, "Invalid");
    c.post(&format!("{MAPS}?dryRun=Some"), &json!({"metadata": {"name": "a"}})).await.refusal(422, "Invalid");
    assert_eq!(c.storage.revision(), before);

    let made = c.config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    c.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}}))
        .await
        .refusal(409, "AlreadyExists");
    let patched =
        c.patch(&format!("{path}?dryRun=All"), "merge-patch", &json!({"data": {"k": "w"}})).await.expect(200);
    assert_eq!(patched["data"]["k"], "w");
    c.delete(&format!("{path}?dryRun=All"), &Value::Null).await.expect(200);
    c.delete(&path, &json!({"dryRun": ["All"]})).await.expect(200);
    assert_eq!(c.get(&path).await.expect(200), made);
}

#[tokio::test]
async fn a_deletion_can_be_bound_to_one_object_in_one_version() {
    let c = cluster().await;
    let made = c.config_map("a", json!({})).await;
    let path = format!("{MAPS}/a");
    let other = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "else"}});
    assert!(
        c.delete(&path, &other).await.refusal(409, "Conflict").contains("the UID in the precondition (else)")
    );
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    c.delete(&path, &stale).await.refusal(409, "Conflict");
    let right = json!({"propagationPolicy": "Background", "preconditions": {"uid": made["metadata"]["uid"],
        "resourceVersion": made["metadata"]["resourceVersion"]}});
    let done = c.delete(&path, &right).await.expect(200);
    assert_eq!(done["status"], "Success");
    assert_eq!(done["details"]["name"], "a");
    assert_eq!(done["details"]["kind"], "configmaps");
    assert_eq!(done["details"]["uid"], made["metadata"]["uid"]);
    assert_eq!(c.delete(&path, &Value::Null).await.refusal(404, "NotFound"), "configmaps \"a\" not found");
    c.delete(&path, &json!({"propagationPolicy": "Sideways"})).await.refusal(422, "Invalid");
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let c = cluster().await;
    c.post(MAPS, &json!({"metadata": {"name": "a", "finalizers": ["example.com/f"]}})).await.expect(201);
    let path = format!("{MAPS}/a");
    let marked = c.delete(&path, &Value::Null).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let before = c.storage.revision();
    c.delete(&path, &Value::Null).await.expect(200);
    assert_eq!(c.storage.revision(), before);
    let more = json!({"metadata": {"finalizers": ["example.com/f", "example.com/g"]}});
    assert!(
        c.patch(&path, "merge-patch", &more)
            .await
            .refusal(422, "Invalid")
            .contains("no new finalizers can be added")
    );
    c.patch(&path, "merge-patch", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    c.get(&path).await.refusal(404, "NotFound");
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let c = cluster().await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        c.config_map(name, json!({"l": label})).await;
    }
    let gone = c.delete(&format!("{MAPS}?labelSelector=l%3Dx"), &Value::Null).await.expect(200);
    assert_eq!(names(&gone), ["a", "c"]);
    assert_eq!(names(&c.get(MAPS).await.expect(200)), ["b"]);
}

#[tokio::test]
async fn an_endless_body_is_refused() {
    let c = cluster().await;
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v".repeat(4 << 20)}});
    c.post(MAPS, &body).await.refusal(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn namespaces_hold_objects_and_end_in_order() {
    let c = cluster().await;
    let names = names(&c.get("/api/v1/namespaces").await.expect(200));
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let missing = c.post("/api/v1/namespaces/none/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(missing.refusal(404, "NotFound"), "namespaces \"none\" not found");
    let text = c.delete("/api/v1/namespaces/default", &Value::Null).await.refusal(403, "Forbidden");
    assert_eq!(text, "namespaces \"default\" is forbidden: this namespace may not be deleted");

    let made = c.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await.expect(201);
    assert_eq!(made["status"]["phase"], "Active");
    let ending = c.delete("/api/v1/namespaces/team", &Value::Null).await.expect(200);
    assert_eq!(ending["status"]["phase"], "Terminating");
    let refused = c.post("/api/v1/namespaces/team/configmaps", &json!({"metadata": {"name": "a"}})).await;
    let text = refused.refusal(403, "Forbidden");
    assert!(
        text.ends_with("unable to create new content in namespace team because it is being terminated"),
        "{text}"
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");

    let mut finalized = ending.clone();
    finalized["spec"]["finalizers"] = json!([]);
    c.put("/api/v1/namespaces/team/finalize", &finalized).await.expect(200);
    c.get("/api/v1/namespaces/team").await.refusal(404, "NotFound");
}

#[tokio::test]
async fn what_is_not_served_is_said_so() {
    let c = cluster().await;
    c.get("/apis/apps/v1/deployments").await.refusal(404, "NotFound");
    c.get("/api/v1/namespaces/default/nodes").await.refusal(404, "NotFound");
    c.get("/nonsense").await.refusal(404, "NotFound");
    c.post("/api/v1/configmaps", &json!({})).await.refusal(405, "MethodNotAllowed");
    c.post(&format!("{MAPS}/a"), &json!({})).await.refusal(405, "MethodNotAllowed");
    c.get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").await.refusal(405, "MethodNotAllowed");
    c.get(&format!("{MAPS}/a/status")).await.refusal(404, "NotFound");
}

#[tokio::test]
async fn objects_come_as_tables_metadata_and_yaml() {
    let c = cluster().await;
    let made = c.config_map("a", json!({"x": "y"})).await;
    let table =
        c.get_as(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let table = c
        .get_as(&format!("{MAPS}/a?includeObject=Object"), "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .expect(200);
    assert_eq!(table["rows"][0]["object"], made);
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = c.get_as(MAPS, accept).await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"], made["metadata"]);
    assert_eq!(list["items"][0]["data"], Value::Null);
    let yaml = c.get_as(&format!("{MAPS}/a"), "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    let text = String::from_utf8(yaml.text.to_vec()).unwrap();
    assert!(text.contains("name: a"), "{text}");
    c.get_as(MAPS, "application/vnd.kubernetes.protobuf").await.refusal(406, "NotAcceptable");
}

#[tokio::test]
async fn yaml_bodies_and_head_requests_are_understood() {
    let c = cluster().await;
    let yaml = "metadata:\n  name: x\ndata:\n  k: v\n";
    let made = c.ask(Method::POST, MAPS, &[("content-type", "application/yaml")], yaml).await.expect(201);
    assert_eq!(made["data"]["k"], "v");
    let head = c.ask(Method::HEAD, &format!("{MAPS}/x"), &[], "").await;
    assert_eq!(head.code, 200);
    assert!(head.text.is_empty());
}

/// A field of a protobuf message that holds bytes.
fn bytes_field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend_from_slice(bytes);
    out
}

#[tokio::test]
async fn protobuf_bodies_are_understood_and_answered_in_json() {
    let c = cluster().await;
    let kind =
        |kind: &str| bytes_field(1, &[bytes_field(1, b"v1"), bytes_field(2, kind.as_bytes())].concat());
    let envelope = |name: &str, raw: Vec<u8>| [b"k8s\0".to_vec(), kind(name), bytes_field(2, &raw)].concat();
    let data = [bytes_field(1, b"k"), bytes_field(2, b"v")].concat();
    let map = [bytes_field(1, &bytes_field(1, b"a")), bytes_field(2, &data)].concat();
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ];
    let made = c.ask(Method::POST, MAPS, &headers, envelope("ConfigMap", map)).await.expect(201);
    assert_eq!(made["metadata"]["name"], "a");
    assert_eq!(made["data"]["k"], "v");
    // gracePeriodSeconds: 0, dryRun: All
    let options = [vec![1 << 3, 0], bytes_field(5, b"All")].concat();
    c.ask(Method::DELETE, &format!("{MAPS}/a"), &headers, envelope("DeleteOptions", options))
        .await
        .expect(200);
    c.get(&format!("{MAPS}/a")).await.expect(200);
    c.ask(Method::POST, MAPS, &headers, b"rubbish".to_vec()).await.refusal(400, "BadRequest");
}
