//! Lists: selectors, pages, revisions.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{cluster, names};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_list_sees_every_write_that_was_acknowledged() {
    let c = cluster().await;
    for i in 0..50 {
        let name = format!("n{i:02}");
        c.config_map(&name, json!({})).await;
        let list = c.get(MAPS).await.expect(200);
        assert_eq!(names(&list).last().unwrap(), &name);
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(list["items"][0]["kind"], serde_json::Value::Null);
    }
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let c = cluster().await;
    for (name, labels) in
        [("a", json!({"app": "x", "env": "p"})), ("b", json!({"app": "y"})), ("c", json!({}))]
    {
        c.config_map(name, labels).await;
    }
    for (query, expected) in [
        ("labelSelector=app%3Dx", vec!["a"]),
        ("labelSelector=app+in+(x,y)", vec!["a", "b"]),
        ("labelSelector=!app", vec!["c"]),
        ("labelSelector=app!%3Dx", vec!["b", "c"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        ("fieldSelector=metadata.namespace%3Delse", vec![]),
        ("labelSelector=app&fieldSelector=metadata.name%3Da", vec!["a"]),
    ] {
        assert_eq!(names(&c.get(&format!("{MAPS}?{query}")).await.expect(200)), expected, "{query}");
    }
    let text = c.get(&format!("{MAPS}?fieldSelector=data.k%3Dv")).await.refusal(400, "BadRequest");
    assert_eq!(text, "field label not supported: data.k");
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_revision() {
    let c = cluster().await;
    for i in 0..7 {
        c.config_map(&format!("n{i}"), json!({})).await;
    }
    let first = c.get(&format!("{MAPS}?limit=3")).await.expect(200);
    assert_eq!(names(&first), ["n0", "n1", "n2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What changes meanwhile is not seen on the pages that follow.
    c.config_map("n3a", json!({})).await;
    c.delete(&format!("{MAPS}/n5"), &serde_json::Value::Null).await.expect(200);
    let mut all: BTreeSet<String> = names(&first).into_iter().collect();
    let mut page = first.clone();
    let mut pages = 1;
    while let Some(token) = page["metadata"]["continue"].as_str().filter(|t| !t.is_empty()) {
        page = c.get(&format!("{MAPS}?limit=3&continue={token}")).await.expect(200);
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        all.extend(names(&page));
        pages += 1;
    }
    assert_eq!(pages, 3);
    assert_eq!(all, (0..7).map(|i| format!("n{i}")).collect());
}

#[tokio::test]
async fn a_page_filtered_by_a_selector_is_full_and_tells_no_count() {
    let c = cluster().await;
    for i in 0..10 {
        c.config_map(&format!("n{i}"), json!({"even": (i % 2 == 0).to_string()})).await;
    }
    let query = "limit=2&labelSelector=even%3Dtrue";
    let first = c.get(&format!("{MAPS}?{query}")).await.expect(200);
    assert_eq!(names(&first), ["n0", "n2"]);
    assert!(first["metadata"]["remainingItemCount"].is_null());
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = c.get(&format!("{MAPS}?{query}&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["n4", "n6"]);
}

#[tokio::test]
async fn a_page_of_a_forgotten_revision_is_gone() {
    let c = cluster().await;
    for i in 0..4 {
        c.config_map(&format!("n{i}"), json!({})).await;
    }
    let first = c.get(&format!("{MAPS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    c.config_map("later", json!({})).await;
    c.storage.compact(c.storage.revision()).await.unwrap();
    let text = c.get(&format!("{MAPS}?limit=2&continue={token}")).await.refusal(410, "Expired");
    assert!(text.starts_with("The provided continue parameter is too old"), "{text}");
}

#[tokio::test]
async fn a_list_may_be_of_the_past_but_not_of_the_future() {
    let c = cluster().await;
    let made = c.config_map("a", json!({})).await;
    let then = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    c.config_map("b", json!({})).await;
    let exact = c.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact), ["a"]);
    assert_eq!(exact["metadata"]["resourceVersion"], then);
    for query in [format!("resourceVersion={then}"), "resourceVersion=0".to_owned(), String::new()] {
        assert_eq!(names(&c.get(&format!("{MAPS}?{query}")).await.expect(200)), ["a", "b"], "{query}");
    }
    let future = c.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert!(future.refusal(504, "Timeout").contains("Too large resource version: 999999"));
    assert_eq!(future.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn lists_of_all_namespaces_hold_every_namespace() {
    let c = cluster().await;
    c.config_map("a", json!({})).await;
    c.post("/api/v1/namespaces/kube-system/configmaps", &json!({"metadata": {"name": "b"}}))
        .await
        .expect(201);
    assert_eq!(names(&c.get("/api/v1/configmaps").await.expect(200)), ["a", "b"]);
    let page = c.get("/api/v1/configmaps?limit=1").await.expect(200);
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(
        names(&c.get(&format!("/api/v1/configmaps?limit=1&continue={token}")).await.expect(200)),
        ["b"]
    );
    let misused = c.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert!(misused.refusal(400, "BadRequest").starts_with("continue key is not valid"));
}
