//! Discovery, OpenAPI, version, health, metrics.

use serde_json::Value;

use crate::harness::cluster;

#[tokio::test]
async fn both_forms_of_discovery_are_served() {
    let c = cluster().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = c.get_as("/api", accept).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert_eq!(answer.json()["items"][0]["versions"][0]["version"], "v1");
    let groups = c.get("/apis").await.expect(200);
    assert_eq!(groups["kind"], "APIGroupList");
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"coordination.k8s.io"), "{names:?}");
    assert_eq!(c.get("/api").await.expect(200)["versions"][0], "v1");
    assert_eq!(c.get("/api/v1").await.expect(200)["groupVersion"], "v1");
    assert_eq!(c.get("/apis/events.k8s.io").await.expect(200)["preferredVersion"]["version"], "v1");
    c.get("/apis/none").await.refusal(404, "NotFound");
    c.get("/openapi/v2").await.refusal(404, "NotFound");
}

#[tokio::test]
async fn kube_discovers_what_is_served() {
    let c = cluster().await;
    let discovered = kube::Discovery::new(c.client()).run().await.unwrap();
    let core = discovered.groups().find(|g| g.name().is_empty()).unwrap();
    assert!(core.recommended_resources().iter().any(|(resource, _)| resource.kind == "Pod"));
    let version = c.client().apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "35"));
    assert!(version.git_version.starts_with("v1.35.0+sampan."));
}

#[tokio::test]
async fn openapi_documents_are_named_by_their_hash() {
    let c = cluster().await;
    let index = c.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    let twice = [c.get(url).await, c.get(url).await];
    assert_eq!(twice[0].text, twice[1].text);
    let document: Value = twice[0].expect(200);
    assert!(document["components"]["schemas"]["io.k8s.api.core.v1.Pod"].is_object());
    assert!(document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"].is_object());
    let moved = c.get("/openapi/v3/api/v1?hash=old").await;
    assert_eq!(moved.code, 301);
    assert_eq!(moved.headers["location"], url);
    c.get("/openapi/v3/apis/none/v1").await.refusal(404, "NotFound");
}

#[tokio::test]
async fn health_is_told_in_a_word_or_check_by_check() {
    let c = cluster().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/store"] {
        let answer = c.get(path).await;
        assert_eq!((answer.code.as_u16(), &answer.text[..]), (200, b"ok".as_slice()), "{path}");
    }
    let verbose = c.get("/readyz?verbose").await;
    let text = String::from_utf8(verbose.text.to_vec()).unwrap();
    assert!(text.contains("[+]watch-cache ok\n") && text.ends_with("readyz check passed\n"), "{text}");
    c.get("/readyz/none").await.refusal(404, "NotFound");
    c.server.shutdown();
    let down = c.get("/readyz").await;
    assert_eq!(down.code, 500);
    assert!(String::from_utf8_lossy(&down.text).contains("[-]shutdown failed"));
}

#[tokio::test]
async fn requests_are_counted() {
    let c = cluster().await;
    c.get("/api/v1/nodes").await.expect(200);
    let text = String::from_utf8(c.get("/metrics").await.text.to_vec()).unwrap();
    assert!(text.contains("apiserver_request_total{"), "{text}");
    assert!(text.contains("apiserver_request_duration_seconds_bucket"), "{text}");
    assert!(
        text.lines().any(|l| l.starts_with("apiserver_request_total") && l.contains("resource=\"nodes\""))
    );
    assert!(text.contains("sampan_store_revision"), "{text}");
}
