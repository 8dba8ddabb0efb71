//! Who may do what: authorization, impersonation, service account tokens, reviews, audit.

use http::Method;
use sampan_apiserver::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Cluster, PATIENCE, cluster, cluster_over};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn whoever_is_not_allowed_is_told_what_is_missing() {
    let c = cluster().await;
    let jane = c.acting_as(UserInfo::new("jane", ["devs"]));
    assert_eq!(
        jane.get(MAPS).await.refusal(403, "Forbidden"),
        "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
    jane.get("/metrics").await.refusal(403, "Forbidden");
    jane.get("/apis").await.expect(200);
    c.acting_as(UserInfo::component("system:kube-scheduler")).get(MAPS).await.expect(200);
    c.acting_as(UserInfo::node("n1")).get(MAPS).await.expect(200);
}

#[tokio::test]
async fn administrators_may_act_as_others_and_nobody_else_may() {
    let c = cluster().await;
    let headers = [("impersonate-user", "jane"), ("impersonate-group", "devs")];
    let text = c.ask(Method::GET, MAPS, &headers, "").await.refusal(403, "Forbidden");
    assert!(text.contains("User \"jane\" cannot list"), "{text}");
    let masters = [("impersonate-user", "jane"), ("impersonate-group", "system:masters")];
    c.ask(Method::GET, MAPS, &masters, "").await.expect(200);
    let jane = c.acting_as(UserInfo::new("jane", []));
    let text = jane.ask(Method::GET, MAPS, &masters, "").await.refusal(403, "Forbidden");
    assert!(text.contains("cannot impersonate resource \"users\""), "{text}");
}

#[tokio::test]
async fn a_user_is_told_who_it_is_and_what_it_may() {
    let c = cluster().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let me = c.post(path, &review).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], "test-admin");
    assert!(me["status"]["userInfo"]["groups"].as_array().unwrap().contains(&json!("system:masters")));

    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let about = |verb: &str| json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}});
    assert_eq!(c.post(path, &about("delete")).await.expect(201)["status"]["allowed"], true);
    let jane = c.acting_as(UserInfo::new("jane", []));
    assert_eq!(jane.post(path, &about("delete")).await.expect(201)["status"]["allowed"], false);
    jane.post(path, &json!({"spec": {}})).await.refusal(422, "Invalid");

    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let mut about = about("get");
    about["spec"]["user"] = json!("x");
    assert_eq!(c.post(path, &about).await.expect(201)["status"]["allowed"], false);
    about["spec"]["groups"] = json!(["system:masters"]);
    assert_eq!(c.post(path, &about).await.expect(201)["status"]["allowed"], true);
    jane.post(path, &about).await.refusal(403, "Forbidden");
    let local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    assert_eq!(c.post(local, &about).await.expect(201)["status"]["allowed"], true);
    about["spec"]["resourceAttributes"]["namespace"] = json!("else");
    c.post(local, &about).await.refusal(422, "Invalid");

    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = c.post(path, &json!({"spec": {"namespace": "default"}})).await.expect(201);
    assert_eq!(rules["status"]["resourceRules"][0]["verbs"], json!(["*"]));
}

async fn token(c: &Cluster, spec: Value) -> String {
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
    let answer = c.post(path, &request).await.expect(201);
    assert!(answer["status"]["expirationTimestamp"].is_string());
    answer["status"]["token"].as_str().unwrap().to_owned()
}

async fn review(c: &Cluster, token: &str, audiences: Value) -> Value {
    let review = json!({"spec": {"token": token, "audiences": audiences}});
    c.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201)["status"].clone()
}

#[tokio::test]
async fn a_token_holds_as_long_as_its_account() {
    let c = cluster().await;
    let account = c.service_account().await;
    let token = token(&c, json!({"expirationSeconds": 600})).await;
    let status = review(&c, &token, json!([])).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(status["user"]["uid"], account["metadata"]["uid"]);
    assert!(status["user"]["groups"].as_array().unwrap().contains(&json!("system:serviceaccounts:default")));

    c.delete("/api/v1/namespaces/default/serviceaccounts/default", &Value::Null).await.expect(200);
    assert_ne!(review(&c, &token, json!([])).await["authenticated"], true);
    // Another account of the same name is another account.
    c.service_account().await;
    assert_ne!(review(&c, &token, json!([])).await["authenticated"], true);
}

#[tokio::test]
async fn a_token_bound_to_a_pod_ends_with_the_pod() {
    let c = cluster().await;
    c.service_account().await;
    let pod = c.pod("p").await;
    let bound = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]}});
    let token = token(&c, bound).await;
    let status = review(&c, &token, json!([])).await;
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    c.delete("/api/v1/namespaces/default/pods/p", &json!({"gracePeriodSeconds": 0})).await.expect(200);
    assert_ne!(review(&c, &token, json!([])).await["authenticated"], true);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let gone = json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    c.post(path, &gone).await.refusal(404, "NotFound");
    c.post(path, &json!({"spec": {"expirationSeconds": 5}})).await.refusal(422, "Invalid");
}

#[tokio::test]
async fn a_token_is_for_its_audience_alone() {
    let c = cluster().await;
    c.service_account().await;
    let vault = token(&c, json!({"audiences": ["vault"]})).await;
    assert_ne!(review(&c, &vault, json!([])).await["authenticated"], true);
    let status = review(&c, &vault, json!(["vault", "other"])).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["vault"]));
    assert_ne!(review(&c, "rubbish", json!([])).await["authenticated"], true);
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let c = cluster_over(std::sync::Arc::new(sampan_store::MemoryStore::new()), Some(path.clone())).await;
    let headers = [("audit-id", "my-request"), ("impersonate-user", "jane")];
    let answer = c.ask(Method::DELETE, &format!("{MAPS}/secretive"), &headers, "").await;
    assert_eq!(answer.headers["audit-id"], "my-request");
    answer.refusal(403, "Forbidden");
    let deadline = std::time::Instant::now() + PATIENCE;
    let entry: Value = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        if let Some(line) = text.lines().find(|line| line.contains("my-request")) {
            break serde_json::from_str(line).unwrap();
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(entry["verb"], "delete");
    assert_eq!(entry["user"]["username"], "test-admin");
    assert_eq!(entry["objectRef"]["name"], "secretive");
    assert_eq!(entry["responseStatus"]["code"], 403);
}
