//! Pods, from creation to their end.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, LogParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, is_ready, phase_of, restarts_of};

fn reason(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_with_its_configuration_and_ends() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let map: ConfigMap = serde_json::from_value(
        json!({"metadata": {"name": "m"}, "data": {"word": "Ahoy", "file.txt": "deck"}}),
    )
    .unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    cluster
        .create_pod(json!({
            "metadata": {"name": "hello"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "c", "image": "sampan/hello", "args": ["to", "$(NAME)"],
                    "env": [
                        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "word"}}},
                    ],
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}],
                }],
                "volumes": [{"name": "config", "configMap": {"name": "m"}}],
            },
        }))
        .await;
    let pod = cluster.wait_for_phase("hello", "Succeeded").await;
    let status = pod.status.unwrap();
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (0, Some("Completed")));
    let log = cluster.pods().await.logs("hello", &LogParams::default()).await.unwrap();
    for part in ["to", "hello", "Ahoy", "deck"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_pod_answers_on_its_address_until_it_is_deleted() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod(json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{
                "name": "c", "image": "sampan/hello-http", "ports": [{"containerPort": 8080}],
                "env": [{"name": "GREETING", "value": "Ahoy"}],
            }]},
        }))
        .await;
    let pod = cluster.wait_for("web", is_ready).await;
    let address = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    let answer = get(&address).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Ahoy"), "{answer}");
    let pods = cluster.pods().await;
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    let gone = kube::runtime::wait::await_condition(
        pods,
        "web",
        kube::runtime::wait::conditions::is_deleted(pod.metadata.uid.as_deref().unwrap()),
    );
    tokio::time::timeout(crate::cluster::PATIENCE, gone).await.unwrap().unwrap();
    assert!(get(&address).await.is_err(), "nobody listens any more");
}

async fn get(address: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect((address, 8080)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_is_told_as_kubernetes_tells_it() {
    let cluster = Cluster::start().await;
    let pod = |name: &str, container: serde_json::Value| {
        let mut spec = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}});
        for (key, value) in container.as_object().unwrap() {
            spec["spec"]["containers"][0][key] = value.clone();
        }
        spec
    };
    cluster.create_pod(pod("absent", json!({"image": "example.com/none:1"}))).await;
    cluster
        .create_pod(pod("never", json!({"image": "example.com/none:1", "imagePullPolicy": "Never"})))
        .await;
    cluster.create_pod(pod("malformed", json!({"image": "Not//valid"}))).await;
    let missing = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]);
    cluster.create_pod(pod("unconfigured", json!({"image": "sampan/hello", "env": missing}))).await;
    cluster.create_pod(pod("crashing", json!({"image": "sampan/hello"}))).await;
    for (name, reasons) in [
        ("absent", vec!["ErrImagePull", "ImagePullBackOff"]),
        ("never", vec!["ErrImageNeverPull"]),
        ("malformed", vec!["InvalidImageName"]),
        ("unconfigured", vec!["CreateContainerConfigError"]),
    ] {
        cluster.wait_for(name, |pod| reason(pod).is_some_and(|r| reasons.contains(&r.as_str()))).await;
    }
    let pod = cluster.wait_for("crashing", |pod| reason(pod).as_deref() == Some("CrashLoopBackOff")).await;
    assert!(restarts_of(&pod) >= 1);
    assert_eq!(phase_of(&pod), "Running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_why_and_runs_once_it_fits() {
    let cluster = Cluster::start().await;
    cluster
        .create_pod(json!({
            "metadata": {"name": "picky"},
            "spec": {
                "nodeSelector": {"deck": "upper"},
                "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "sampan/hello"}],
            },
        }))
        .await;
    let message = |pod: &Pod| {
        let conditions = pod.status.clone().and_then(|s| s.conditions).unwrap_or_default();
        conditions
            .into_iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")
            .and_then(|c| c.message)
    };
    let pod = cluster.wait_for("picky", |pod| message(pod).is_some()).await;
    assert_eq!(
        message(&pod).unwrap(),
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    );
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client().await);
    let patch = json!({"metadata": {"labels": {"deck": "upper"}}});
    nodes.patch("test", &Default::default(), &kube::api::Patch::Merge(patch)).await.unwrap();
    cluster.wait_for_phase("picky", "Succeeded").await;
}
