//! Reading containers' logs.

use futures::StreamExt;
use serde_json::json;
use tower::ServiceExt;

use crate::harness::TestNode;

#[tokio::test]
async fn a_log_is_read_as_the_options_say() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
    assert_eq!(node.ask("/containerLogs/ns/p/a").await, (200, String::new()), "nothing was written yet");
    for text in ["one", "two", "three"] {
        node.runtime.print("a", text);
    }
    assert_eq!(node.ask("/containerLogs/ns/p/a").await, (200, "one\ntwo\nthree\n".into()));
    assert_eq!(node.ask("/containerLogs/ns/p/a?tailLines=2").await.1, "two\nthree\n");
    assert_eq!(node.ask("/containerLogs/ns/p/a?tailLines=0").await.1, "");
    assert_eq!(node.ask("/containerLogs/ns/p/a?limitBytes=5").await.1, "one\nt");
    assert_eq!(node.ask("/containerLogs/ns/p/a?sinceTime=2099-01-01T00%3A00%3A00Z").await.1, "");
    let stamped = node.ask("/containerLogs/ns/p/a?timestamps=true&tailLines=1").await.1;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && text == "three\n", "{stamped}");
    assert_eq!(node.ask("/containerLogs/ns/p/a?tailLines=-1").await.0, 400);
}

#[tokio::test]
async fn a_log_is_followed_until_its_container_ends() {
    let node = TestNode::start().await;
    node.simple("p", "Never", &["run"]);
    node.phase("p", "Running").await;
    node.runtime.print("a", "one");
    let request =
        http::Request::get("/containerLogs/ns/p/a?follow=true").body(axum::body::Body::empty()).unwrap();
    let response = node.kubelet.server().oneshot(request).await.unwrap();
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    while text != "one\n" {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    node.runtime.print("a", "two");
    while text != "one\ntwo\n" {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    node.runtime.print("a", "three");
    let container = node.runtime.newest("a").unwrap();
    node.runtime.end(&container.status.id, 0, "Completed");
    while let Some(chunk) = stream.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    assert_eq!(text, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn refusals_say_what_is_the_matter() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
    node.pod("pending", json!({
        "volumes": [{ "name": "v", "configMap": { "name": "nowhere" } }],
        "containers": [{ "name": "a", "image": "there:1", "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }]
    }));
    node.waiting("pending", "ContainerCreating").await;
    for (path, code, text) in [
        ("nope/a", 404, "pod \"nope\" does not exist\n"),
        ("p/b", 404, "container \"b\" not found in pod \"p\"\n"),
        ("p/a?previous=true", 400, "previous terminated container \"a\" in pod \"p\" not found"),
        ("pending/a", 400, "container \"a\" in pod \"pending\" is waiting to start: ContainerCreating"),
    ] {
        assert_eq!(node.ask(&format!("/containerLogs/ns/{path}")).await, (code, text.to_owned()), "{path}");
    }
}
