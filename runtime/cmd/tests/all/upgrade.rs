//! A rolling upgrade and the way back: servers and nodes of two versions in one cluster.
//!
//! The same is done with the present binary in the place of the older one (as which it behaves)
//! and with a real one, whose path is in `SAMPAN_PREVIOUS`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::agents::{create, joining, node_ready, ready};
use crate::cluster::{PATIENCE, restarts_of};
use crate::machine::{Build, Machine, leader, reads, three_of, write};

/// What the older version is at.
const OLD: &str = "The cluster is at level 2 (0.3)";
/// What all together come to.
const NEW: &str = "The cluster is at level 3 (0.4).";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_machine_by_machine_and_the_way_back_ends_with_the_last() {
    rolling(Build::Emulating("0.3")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the previous version's binary: SAMPAN_PREVIOUS=PATH"]
async fn a_cluster_of_the_previous_version_is_upgraded_machine_by_machine() {
    let path = std::env::var_os("SAMPAN_PREVIOUS").expect("SAMPAN_PREVIOUS");
    rolling(Build::Other(PathBuf::from(path))).await;
}

#[tokio::test]
async fn a_version_that_nobody_can_behave_as_is_refused_with_those_that_there_are() {
    let mut machine = Machine::server("s1", &["--cluster-init"]);
    machine.build = Build::Emulating("0.1");
    let line = machine.refused();
    assert!(line.contains("--emulated-version") && line.contains("0.2, 0.3, 0.4"), "{line}");
    assert!(!machine.data_dir().exists(), "nothing was begun");
}

/// What `sampan member list` of the present binary says on a server, whatever that runs.
fn members(server: &Machine) -> String {
    let mut command = crate::cluster::sampan();
    let output = command.args(["member", "list", "--data-dir"]).arg(server.data_dir()).output().unwrap();
    assert!(output.status.success(), "{output:?}\n{}", server.errors());
    String::from_utf8(output.stdout).unwrap()
}

async fn reaches(server: &Machine, level: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !members(server).contains(level) {
        assert!(Instant::now() < deadline, "{}\n{}", members(server), server.errors());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Writes through one server, until told to stop; the names of what it acknowledged.
async fn writes(client: kube::Client, prefix: String, stop: Arc<AtomicBool>) -> Vec<String> {
    let maps = Api::<ConfigMap>::default_namespaced(client);
    let mut written = Vec::new();
    loop {
        let name = format!("{prefix}-{}", written.len());
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => written.push(name),
            // The answer to an earlier try was lost.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => written.push(name),
            // The leader may be the one that is being replaced.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        }
        if stop.load(Ordering::SeqCst) {
            return written;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The names that a watch tells of, from now on, until it has told of `last`.
async fn watched(client: kube::Client, from: String, last: String) -> Vec<String> {
    let maps = Api::<ConfigMap>::default_namespaced(client);
    let mut events = maps.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        if let WatchEvent::Added(map) = event.unwrap() {
            names.push(map.metadata.name.unwrap());
        }
        if names.last() == Some(&last) {
            return names;
        }
    }
    panic!("the watch ended: {names:?}")
}

/// Starts a server again as `build`, while a second one takes writes and a third one is watched.
async fn replace(servers: &mut [Machine; 3], place: usize, build: &Build, step: &str) {
    let (writer, watcher) =
        (servers[(place + 1) % 3].client().await, servers[(place + 2) % 3].client().await);
    let maps = Api::<ConfigMap>::default_namespaced(watcher.clone());
    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let last = format!("{step}-last");
    let watch = tokio::spawn(watched(watcher, from, last.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let write_all = tokio::spawn(writes(writer, step.to_owned(), Arc::clone(&stop)));
    tokio::time::sleep(Duration::from_millis(300)).await;

    servers[place].stop();
    servers[place].build = build.clone();
    servers[place].start().await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    stop.store(true, Ordering::SeqCst);
    let mut written = write_all.await.unwrap();
    assert!(written.len() > 5, "{step}: {written:?}");
    for server in &*servers {
        assert!(
            reads(server, written.last().unwrap()).await,
            "{step}: {} reads what was written",
            server.name
        );
    }
    write(&servers[place], &last).await;
    written.push(last);
    let seen = tokio::time::timeout(PATIENCE, watch).await.expect("the watch sees the last").unwrap();
    assert_eq!(seen, written, "{step}: a watch tells of each once, in order");
}

/// A node and a pod on it.
async fn node(name: &str, build: &Build, server: &Machine) -> Machine {
    let mut agent = joining(name, server);
    agent.build = build.clone();
    agent.spawn();
    let client = server.client().await;
    node_ready(&client, &agent, "True").await;
    let pod = json!({
        "metadata": {"name": format!("on-{name}")},
        "spec": {"nodeName": name, "terminationGracePeriodSeconds": 1, "containers": [
            {"name": "c", "image": "sampan/hello-http"},
        ]},
    });
    create(&client, &agent, pod).await;
    agent
}

/// The pod of a node, which is ready.
async fn pod_of(agent: &Machine, servers: &[Machine; 3]) -> Pod {
    let client = servers[1].client().await;
    node_ready(&client, agent, "True").await;
    ready(&client, agent, &format!("on-{}", agent.name)).await
}

async fn rolling(old: Build) {
    let mut servers = three_of(old.clone()).await;
    // A node of either version, from the beginning.
    let mut nodes =
        [node("late", &old, &servers[0]).await, node("early", &Build::Present, &servers[1]).await];
    let before = [pod_of(&nodes[0], &servers).await, pod_of(&nodes[1], &servers).await];

    for (place, step) in [(2, "third"), (1, "second")] {
        replace(&mut servers, place, &Build::Present, step).await;
        reaches(&servers[place], OLD).await;
    }
    // With an older leader, and with a newer one.
    for step in ["one", "other"] {
        for server in &servers {
            write(server, &format!("{step}-{}", server.name)).await;
        }
        if leader(&servers, &servers[1]) == 0 {
            replace(&mut servers, 0, &old, "handed-over").await;
        }
    }
    // One goes back, as long as it can, and comes again.
    replace(&mut servers, 2, &old, "back").await;
    replace(&mut servers, 2, &Build::Present, "again").await;
    reaches(&servers[2], OLD).await;
    for (agent, before) in nodes.iter().zip(&before) {
        let now = pod_of(agent, &servers).await;
        assert_eq!(
            (now.metadata.uid.as_ref(), restarts_of(&now)),
            (before.metadata.uid.as_ref(), restarts_of(before))
        );
    }

    replace(&mut servers, 0, &Build::Present, "last").await;
    for server in &servers {
        reaches(server, NEW).await;
    }
    no_way_back(&mut servers, &old).await;
    // Nodes are not bound to it: one is replaced when it suits.
    for (agent, before) in nodes.iter().zip(&before) {
        let now = pod_of(agent, &servers).await;
        assert_eq!(
            (now.metadata.uid.as_ref(), restarts_of(&now)),
            (before.metadata.uid.as_ref(), restarts_of(before))
        );
    }
    nodes[0].stop();
    nodes[0].build = Build::Present;
    nodes[0].spawn();
    let now = pod_of(&nodes[0], &servers).await;
    assert_eq!(now.metadata.uid, before[0].metadata.uid);
}

/// Once all have gone on, an older one is refused, whether it was a member or wants to be one.
async fn no_way_back(servers: &mut [Machine; 3], old: &Build) {
    servers[1].stop();
    servers[1].build = old.clone();
    let line = servers[1].refused();
    assert!(line.contains("format 4") && line.contains("up to 3"), "{line}");
    servers[1].build = Build::Present;
    servers[1].start().await;
    write(&servers[1], "unharmed").await;
    assert!(reads(&servers[0], "unharmed").await);

    let (url, token) = (servers[0].url(), servers[0].token("server"));
    let mut newcomer = Machine::server("s4", &["--server", &url, "--token", &token]);
    newcomer.build = old.clone();
    let line = newcomer.refused();
    assert!(line.contains("s4 is too old for this cluster") && line.contains("level 2 (0.3)"), "{line}");
    assert!(!members(&servers[0]).contains("s4"));
}
