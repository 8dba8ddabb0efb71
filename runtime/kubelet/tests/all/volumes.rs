//! What containers see of volumes.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{TestNode, eventually};

fn mounted(node: &TestNode, path: &str) -> (PathBuf, bool) {
    let container = node.runtime.newest("a").unwrap();
    let mount = container.config.mounts.iter().find(|mount| mount.container_path == path).unwrap().clone();
    (mount.host_path, mount.read_only)
}

fn pod(volumes: Value, mounts: Value) -> Value {
    json!({
        "volumes": volumes,
        "containers": [{ "name": "a", "image": "there:1", "command": ["run"], "volumeMounts": mounts,
            "env": [{ "name": "PART", "value": "deep" }] }]
    })
}

#[tokio::test]
async fn every_kind_of_volume_shows_its_content() {
    let node = TestNode::start().await;
    let host = tempfile::tempdir().unwrap();
    node.api.create("configmaps", "ns", json!({ "metadata": { "name": "cfg" }, "data": { "k": "v1" } }));
    node.api.create("secrets", "ns", json!({ "metadata": { "name": "sec" }, "data": { "s": "c2VjcmV0" } }));
    let volumes = json!([
        { "name": "empty", "emptyDir": {} },
        { "name": "host", "hostPath": { "path": host.path(), "type": "Directory" } },
        { "name": "cfg", "configMap": { "name": "cfg" } },
        { "name": "sec", "secret": { "secretName": "sec", "defaultMode": 0o400 } },
        { "name": "down", "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
        { "name": "opt", "configMap": { "name": "nowhere", "optional": true } },
        { "name": "unused", "configMap": { "name": "nowhere" } },
        { "name": "proj", "projected": { "sources": [
            { "configMap": { "name": "cfg", "items": [{ "key": "k", "path": "renamed" }] } },
            { "secret": { "name": "sec" } },
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 600 } }
        ] } }
    ]);
    let mounts = json!([
        { "name": "empty", "mountPath": "/empty" }, { "name": "host", "mountPath": "/host", "readOnly": true },
        { "name": "cfg", "mountPath": "/cfg" }, { "name": "sec", "mountPath": "/sec" },
        { "name": "down", "mountPath": "/down" }, { "name": "opt", "mountPath": "/opt" },
        { "name": "proj", "mountPath": "/proj" }, { "name": "cfg", "mountPath": "/one", "subPath": "k" },
        { "name": "empty", "mountPath": "/part", "subPathExpr": "$(PART)/er" }
    ]);
    node.pod("p", pod(volumes, mounts));
    node.phase("p", "Running").await;
    let read = |path: &str, file: &str| fs::read_to_string(mounted(&node, path).0.join(file)).unwrap();
    assert_eq!(read("/cfg", "k"), "v1");
    assert_eq!(read("/sec", "s"), "secret");
    assert_eq!(read("/down", "name"), "p");
    assert_eq!((read("/proj", "renamed"), read("/proj", "s")), ("v1".into(), "secret".into()));
    assert_eq!(read("/proj", "token"), "token-1");
    assert_eq!(fs::read_to_string(mounted(&node, "/one").0).unwrap(), "v1");
    assert!(mounted(&node, "/part").0.ends_with("deep/er") && mounted(&node, "/part").0.is_dir());
    assert_eq!(mounted(&node, "/host"), (host.path().to_owned(), true));
    let read_only: Vec<bool> = ["/empty", "/cfg", "/sec", "/proj"].map(|path| mounted(&node, path).1).into();
    assert_eq!(read_only, [false, true, true, true]);
    fs::write(host.path().join("kept"), "x").unwrap();
    let places = ["/empty", "/cfg", "/sec", "/proj"].map(|path| mounted(&node, path).0);
    node.api.delete_pod("ns", "p", 30);
    node.gone("p").await;
    assert!(places.iter().all(|place| !place.exists()));
    assert!(host.path().join("kept").exists(), "what is the node's stays");
}

#[tokio::test]
async fn changes_reach_running_pods() {
    let node = TestNode::start().await;
    node.api.create("configmaps", "ns", json!({ "metadata": { "name": "cfg" }, "data": { "k": "v1" } }));
    let volumes = json!([
        { "name": "cfg", "configMap": { "name": "cfg" } },
        { "name": "down", "downwardAPI": { "items": [{ "path": "l", "fieldRef": { "fieldPath": "metadata.labels" } }] } }
    ]);
    let mounts = json!([
        { "name": "cfg", "mountPath": "/cfg" }, { "name": "down", "mountPath": "/down" },
        { "name": "cfg", "mountPath": "/one", "subPath": "k" }
    ]);
    node.pod("p", pod(volumes, mounts));
    node.phase("p", "Running").await;
    let content =
        |path: &str, file: &str| fs::read_to_string(mounted(&node, path).0.join(file)).unwrap_or_default();
    node.api.edit("configmaps", "ns", "cfg", |map| map["data"] = json!({ "k": "v2", "new": "n" }));
    eventually("v2", || (content("/cfg", "k") == "v2").then_some(()), String::new).await;
    assert_eq!(content("/cfg", "new"), "n");
    assert_eq!(fs::read_to_string(mounted(&node, "/one").0).unwrap(), "v1", "a part stays as it was");
    node.api.edit("pods", "ns", "p", |pod| pod["metadata"]["labels"] = json!({ "a": "b" }));
    eventually("labels", || (content("/down", "l") == "a=\"b\"").then_some(()), String::new).await;
}

#[tokio::test]
async fn a_pod_waits_for_the_volumes_it_needs() {
    let node = TestNode::start().await;
    node.pod(
        "p",
        pod(
            json!([{ "name": "c", "configMap": { "name": "late" } }]),
            json!([{ "name": "c", "mountPath": "/c" }]),
        ),
    );
    let told = node.event("p", "FailedMount").await;
    assert_eq!(told, "MountVolume.SetUp failed for volume \"c\" : configmap \"late\" not found");
    node.api.create("configmaps", "ns", json!({ "metadata": { "name": "late" }, "data": {} }));
    node.phase("p", "Running").await;
}

#[tokio::test]
async fn the_environment_is_built_from_everything_a_pod_refers_to() {
    let node = TestNode::start_with(|config| config.api_service = Some(("10.43.0.1".into(), 443))).await;
    node.api.create("secrets", "ns", json!({ "metadata": { "name": "sec" }, "data": { "PASS": "eA==" } }));
    node.pod("p", json!({ "containers": [{
        "name": "a", "image": "there:1", "command": ["run", "$(IP)"], "args": ["$(KUBERNETES_SERVICE_HOST)"],
        "envFrom": [{ "secretRef": { "name": "sec" } }],
        "env": [
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } }
        ],
        "resources": { "limits": { "memory": "64Mi", "cpu": "250m" } }
    }] }));
    node.phase("p", "Running").await;
    let config = node.runtime.newest("a").unwrap().config;
    assert_eq!(config.command, ["run", "127.42.0.1"]);
    assert_eq!(config.args, ["10.43.0.1"]);
    let value =
        |name: &str| config.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!((value("PASS"), value("MEM"), value("IP")), (Some("x"), Some("64"), Some("127.42.0.1")));
    assert_eq!(config.resources.cpu_limit_millis, Some(250));
    assert_eq!(config.resources.memory_limit_bytes, Some(64 << 20));
}
