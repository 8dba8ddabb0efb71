//! Nodes whose servers are elsewhere: joining, logs through the connection, losing every server.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::{Api, LogParams, PostParams};
use serde_json::json;

use crate::cluster::{PATIENCE, client_of, is_ready, restarts_of};
use crate::machine::{Machine, first, three};

pub(crate) fn joining(name: &str, server: &Machine) -> Machine {
    let token = server.token("agent");
    Machine::agent(name, &["--node-ip", "127.0.0.1", "--server", &server.url(), "--token", &token])
}

pub(crate) async fn until<T, Fut: Future<Output = Option<T>>>(
    what: &str,
    machine: &Machine,
    look: impl Fn() -> Fut,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: {}", machine.errors());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn node_ready(client: &kube::Client, agent: &Machine, wanted: &str) {
    let nodes = Api::<Node>::all(client.clone());
    until("the node's condition", agent, || async {
        let node = nodes.get_opt(&agent.name).await.ok()??;
        let conditions = node.status?.conditions?;
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == wanted).then_some(())
    })
    .await;
}

async fn node_named_ready(client: &kube::Client, agent: &Machine, name: &str) {
    let nodes = Api::<Node>::all(client.clone());
    until(name, agent, || async {
        let conditions = nodes.get_opt(name).await.ok()??.status?.conditions?;
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(())
    })
    .await;
}

pub(crate) async fn create(client: &kube::Client, agent: &Machine, manifest: serde_json::Value) {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let pod: Pod = serde_json::from_value(manifest).unwrap();
    // The default service account may still be to come.
    until("the pod is taken", agent, || async { pods.create(&PostParams::default(), &pod).await.ok() }).await;
}

pub(crate) async fn ready(client: &kube::Client, agent: &Machine, name: &str) -> Pod {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    until(name, agent, || async { pods.get_opt(name).await.ok().flatten().filter(is_ready) }).await
}

/// A pod that serves and that needs a config map and a secret to start.
fn web(name: &str) -> serde_json::Value {
    json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": "sampan/hello-http",
            "env": [
                {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "greeting"}}},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
            ],
        }]},
    })
}

pub(crate) async fn words_and_keys(client: &kube::Client) {
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "words"}, "data": {"greeting": "ahoy"}})).unwrap();
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &map).await.unwrap();
    let secret: Secret = serde_json::from_value(
        json!({"metadata": {"name": "keys"}, "stringData": {"password": "correct-horse-battery"}}),
    )
    .unwrap();
    Api::<Secret>::default_namespaced(client.clone()).create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_runs_pods_and_is_reached_through_its_own_connection() {
    let server = first(&[]).await;
    let mut agent = joining("edge", &server);
    agent.spawn();
    let client = server.client().await;
    node_ready(&client, &agent, "True").await;
    create(&client, &agent, json!({
        "metadata": {"name": "said"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "sampan/hello", "args": ["over", "there"]}]},
    }))
    .await;
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let log = until("the log", &agent, || async {
        let log = pods.logs("said", &LogParams::default()).await.ok()?;
        log.contains("over").then_some(log)
    })
    .await;
    assert!(log.contains("there"), "{log}");
    let pod = pods.get("said").await.unwrap();
    assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("edge"));

    // The next start needs no token: the node is known by its key.
    agent.stop();
    agent.set_arguments(&["agent", "--local-listen-port", "0", "--node-ip", "127.0.0.1"]);
    agent.spawn();
    node_ready(&client, &agent, "True").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_servers_keeps_and_even_starts_its_pods() {
    let mut server = first(&[]).await;
    let mut agent = joining("edge", &server);
    agent.spawn();
    let client = server.client().await;
    node_ready(&client, &agent, "True").await;
    words_and_keys(&client).await;
    create(&client, &agent, web("web")).await;
    let before = ready(&client, &agent, "web").await;
    let url = format!("http://{}:8080/healthz", before.status.as_ref().unwrap().pod_ip.as_ref().unwrap());
    assert!(answers(&url).await);

    // Losing every server leaves the pod running.
    server.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(answers(&url).await);

    // A node that boots while they are away starts its pods from what it kept, sealed.
    agent.stop();
    assert!(!holds(&agent.data_dir(), b"correct-horse-battery"), "secrets are not readable on disk");
    agent.spawn();
    until("the pod is served offline", &agent, || async { answers(&url).await.then_some(()) }).await;
    let kubeconfig = agent.data_dir().join("kubeconfig.yaml");
    let local = until("the local API", &agent, || async { client_of(&kubeconfig).await.ok() }).await;
    let seen = ready(&local, &agent, "web").await;
    assert_eq!(seen.metadata.uid, before.metadata.uid);
    let refused = Api::<Pod>::default_namespaced(local).delete("web", &Default::default()).await;
    assert!(refused.is_err(), "the local API is for reading");

    // When a server is back, it is the same pod, and it goes on.
    server.start().await;
    let client = server.client().await;
    node_ready(&client, &agent, "True").await;
    let after = ready(&client, &agent, "web").await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert!(restarts_of(&after) <= restarts_of(&seen), "reconnecting restarts nothing");
    assert!(answers(&url).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_run_and_boot_while_their_servers_have_no_quorum() {
    let mut servers = three().await;
    let client = servers[0].client().await;
    // The first server runs pods itself from now on.
    let own = ["server", "--bind-address", "127.0.0.1", "--node-ip", "127.0.0.1", "--cluster-init"];
    servers[0].stop();
    servers[0].set_arguments(&own);
    servers[0].start().await;
    let mut agent = joining("edge", &servers[0]);
    agent.spawn();
    for name in ["edge", "s1"] {
        node_named_ready(&client, &agent, name).await;
    }
    words_and_keys(&client).await;
    let mut urls = Vec::new();
    let mut before = Vec::new();
    for node in ["edge", "s1"] {
        let mut manifest = web(&format!("on-{node}"));
        manifest["spec"]["nodeName"] = node.into();
        create(&client, &agent, manifest).await;
        let pod = ready(&client, &agent, &format!("on-{node}")).await;
        urls.push(format!("http://{}:8080/healthz", pod.status.as_ref().unwrap().pod_ip.as_ref().unwrap()));
        before.push(pod);
    }
    // The copies are written within seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;

    // Without a quorum pods go on.
    servers[1].kill();
    servers[2].kill();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for url in &urls {
        assert!(answers(url).await, "{url}: {}", servers[0].errors());
    }
    // An agent and a server that boot now start theirs.
    agent.kill();
    servers[0].kill();
    servers[0].spawn();
    agent.spawn();
    for (url, machine) in urls.iter().zip([&agent, &servers[0]]) {
        until("a pod is served without a quorum", machine, || async { answers(url).await.then_some(()) })
            .await;
    }
    // With a quorum they go over, and nothing is restarted.
    for server in &mut servers[1..] {
        server.spawn();
    }
    let client = until("the API is back", &servers[0], || async {
        let client = client_of(&servers[0].kubeconfig()).await.ok()?;
        Api::<Node>::all(client.clone()).get("edge").await.ok().map(|_| client)
    })
    .await;
    for (url, before) in urls.iter().zip(&before) {
        let name = before.metadata.name.as_deref().unwrap();
        let pods = Api::<Pod>::default_namespaced(client.clone());
        // The restart of the node itself is told once.
        let after = until("its status is sent", &agent, || async {
            let pod = pods.get(name).await.ok()?;
            (is_ready(&pod) && restarts_of(&pod) == restarts_of(before) + 1).then_some(pod)
        })
        .await;
        assert_eq!(after.metadata.uid, before.metadata.uid);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let later = pods.get(name).await.unwrap();
        assert_eq!(restarts_of(&later), restarts_of(&after), "going over restarts nothing");
        assert!(answers(url).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_moves_to_another_server_and_logs_come_from_any() {
    let mut servers = three().await;
    let mut agent = joining("edge", &servers[0]);
    agent.spawn();
    let client = servers[0].client().await;
    node_ready(&client, &agent, "True").await;
    create(&client, &agent, json!({
        "metadata": {"name": "said"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "sampan/hello", "args": ["hello"]}]},
    }))
    .await;
    for server in &servers {
        let pods = Api::<Pod>::default_namespaced(server.client().await);
        until(&format!("logs through {}", server.name), server, || async {
            pods.logs("said", &LogParams::default()).await.ok().filter(|log| log.contains("hello"))
        })
        .await;
    }
    let lost = crate::machine::leader(&servers, &servers[0]);
    servers[lost].kill();
    let left = &servers[(lost + 1) % 3];
    let client = left.client().await;
    create(
        &client,
        &agent,
        json!({
            "metadata": {"name": "after"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "sampan/hello"}]},
        }),
    )
    .await;
    let pods = Api::<Pod>::default_namespaced(client);
    until("a pod after the loss", &agent, || async {
        let phase = pods.get("after").await.ok()?.status?.phase?;
        (phase == "Succeeded").then_some(())
    })
    .await;
}

async fn answers(url: &str) -> bool {
    let url = url.to_owned();
    let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await else { return false };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
    matches!(read, Ok(Ok(_))) && answer.starts_with("HTTP/1.1 200")
}

/// Whether any file below `directory` holds `needle`.
fn holds(directory: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        let content = std::fs::read(&path).unwrap_or_default();
        content.windows(needle.len()).any(|window| window == needle)
    })
}
