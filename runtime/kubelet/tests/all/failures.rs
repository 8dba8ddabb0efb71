//! Pods that cannot run, and what people are told.

use serde_json::json;

use crate::harness::{TestNode, eventually};

fn with_image(image: &str, policy: &str) -> serde_json::Value {
    json!({ "containers": [{ "name": "a", "image": image, "imagePullPolicy": policy }] })
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_reported_and_retried_later() {
    let node = TestNode::start().await;
    node.pod("p", with_image("missing:1", "IfNotPresent"));
    assert_eq!(node.waiting("p", "ErrImagePull").await, "no such image anywhere");
    let message = node.waiting("p", "ImagePullBackOff").await;
    assert_eq!(message, "Back-off pulling image \"missing:1\": ErrImagePull: no such image anywhere");
    assert_eq!(node.event("p", "BackOff").await, "Back-off pulling image \"missing:1\"");
    assert_eq!(node.event("p", "Pulling").await, "Pulling image \"missing:1\"");
    node.api.delete_pod("ns", "p", 30);
    node.gone("p").await;
}

#[tokio::test]
async fn pull_policies_are_kept() {
    let node = TestNode::start().await;
    node.pod("never", with_image("missing:1", "Never"));
    let message = node.waiting("never", "ErrImageNeverPull").await;
    assert_eq!(message, "Container image \"missing:1\" is not present with pull policy of Never");
    node.pod("wrong", with_image("Wrong:1", "Always"));
    let message = node.waiting("wrong", "InvalidImageName").await;
    assert!(message.contains("couldn't parse image name \"Wrong:1\": invalid reference format"), "{message}");
    node.pod("absent", with_image("absent:1", "IfNotPresent"));
    node.phase("absent", "Running").await;
    node.pod("always", with_image("there:1", "Always"));
    node.phase("always", "Running").await;
    assert_eq!(*node.images.pulled.lock(), ["absent:1", "there:1"]);
}

#[tokio::test]
async fn a_missing_config_map_is_named_and_waited_for() {
    let node = TestNode::start().await;
    node.pod(
        "p",
        json!({ "containers": [{
        "name": "a", "image": "there:1", "command": ["run", "$(COLOR)"],
        "env": [{ "name": "COLOR", "valueFrom": { "configMapKeyRef": { "name": "cfg", "key": "color" } } }]
    }] }),
    );
    assert_eq!(node.waiting("p", "CreateContainerConfigError").await, "configmap \"cfg\" not found");
    assert_eq!(node.event("p", "Failed").await, "Error: configmap \"cfg\" not found");
    node.api.create("configmaps", "ns", json!({ "metadata": { "name": "cfg" }, "data": { "size": "1" } }));
    let message = node
        .until("p", "the key is missed", |pod| {
            crate::harness::waiting(pod)["message"] == "couldn't find key color in ConfigMap ns/cfg"
        })
        .await;
    assert_eq!(message["status"]["phase"], "Pending");
    node.api.edit("configmaps", "ns", "cfg", |map| map["data"]["color"] = json!("red"));
    node.phase("p", "Running").await;
    assert_eq!(node.runtime.newest("a").unwrap().config.command, ["run", "red"]);
}

#[tokio::test]
async fn a_container_that_cannot_be_started_is_reported() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["cannot-start"]);
    node.waiting("p", "CrashLoopBackOff").await;
    assert_eq!(node.event("p", "Failed").await, "Error: it cannot be started");
}

#[tokio::test]
async fn a_pod_beyond_the_nodes_means_is_rejected() {
    let node = TestNode::start_with(|config| config.max_pods = 1).await;
    node.simple("first", "Never", &["run"]);
    node.phase("first", "Running").await;
    node.simple("second", "Never", &["run"]);
    let pod = node.phase("second", "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfpods");
    let message = "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1";
    assert_eq!(pod["status"]["message"], format!("Pod was rejected: {message}"));
    assert_eq!(node.event("second", "OutOfpods").await, message);
    let first = node.runtime.newest("a").unwrap();
    node.runtime.end(&first.status.id, 0, "Completed");
    node.phase("first", "Succeeded").await;
    node.simple("third", "Never", &["run"]);
    node.phase("third", "Running").await;
    node.api.delete_pod("ns", "second", 30);
    node.gone("second").await;
}

#[tokio::test]
async fn a_volume_of_an_unknown_kind_is_named() {
    let node = TestNode::start().await;
    node.pod("p", json!({
        "volumes": [{ "name": "v", "nfs": { "server": "s", "path": "/" } }],
        "containers": [{ "name": "a", "image": "there:1", "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }]
    }));
    assert_eq!(
        node.event("p", "FailedMount").await,
        "MountVolume.SetUp failed for volume \"v\" : volume source \"nfs\" is not supported by this node"
    );
    node.waiting("p", "ContainerCreating").await;
    node.api.delete_pod("ns", "p", 30);
    node.gone("p").await;
}

#[tokio::test]
async fn a_volume_that_outgrows_its_limit_evicts_its_pod() {
    let node = TestNode::start().await;
    node.pod("p", json!({
        "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "64Ki" } }],
        "containers": [{
            "name": "a", "image": "there:1", "command": ["run"], "volumeMounts": [{ "name": "v", "mountPath": "/v" }]
        }]
    }));
    node.phase("p", "Running").await;
    let mount = node.runtime.newest("a").unwrap().config.mounts[0].clone();
    std::fs::write(mount.host_path.join("big"), vec![1; 200 << 10]).unwrap();
    let pod = node.phase("p", "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(pod["status"]["message"], "Usage of EmptyDir volume \"v\" exceeds the limit \"64Ki\". ");
    let gone = || (!mount.host_path.exists()).then_some(());
    eventually("its volumes are given back", gone, String::new).await;
}
