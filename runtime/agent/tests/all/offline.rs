//! The kubelet's client with and without servers.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use sampan_agent::Agent;
use serde_json::json;

use crate::cluster::*;

fn ours() -> ListParams {
    ListParams::default().fields("spec.nodeName=n1")
}

fn pods(agent: &Agent) -> Api<Pod> {
    Api::all(agent.client())
}

/// Reads what a kubelet would read, so that the mirror has it.
async fn read_all(agent: &Agent) {
    let client = agent.client();
    Api::<Node>::all(client.clone()).get("n1").await.unwrap();
    pods(agent).list(&ours()).await.unwrap();
    for name in ["files", "kube-root-ca.crt"] {
        Api::<ConfigMap>::namespaced(client.clone(), "default").get(name).await.unwrap();
    }
    Api::<Secret>::namespaced(client.clone(), "default").get("keys").await.unwrap();
}

fn token_request(pod: &Pod) -> TokenRequest {
    from(json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.metadata.uid
    }}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_from_its_mirror_and_lists_anew_when_a_server_is_back() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    tell(&[&one], Some(&one));
    let admin = one.admin();
    furnish(&admin).await;
    node(&admin, "n1").await;
    let made = pod(&admin, "p", &["run"]).await;
    let dir = tempfile::tempdir().unwrap();
    let first = agent(&authority, dir.path(), vec![one.address()]).await;
    read_all(&first).await;
    let accounts = |agent: &Agent| Api::<ServiceAccount>::namespaced(agent.client(), "default");
    let params = PostParams::default();
    let token =
        accounts(&first).create_token_request("default", &params, &token_request(&made)).await.unwrap();
    assert_eq!(first.api_link().borrow().generation, 1);
    first.stop().await;
    one.vanish().await;

    // Only what the first run learnt leads to the server.
    let second = agent(&authority, dir.path(), Vec::new()).await;
    let listed = pods(&second).list(&ours()).await.unwrap();
    let found = &listed.items[0].metadata;
    assert_eq!((listed.items.len(), &found.uid), (1, &made.metadata.uid));
    assert_eq!(found.resource_version, made.metadata.resource_version);
    assert_eq!(found.creation_timestamp, made.metadata.creation_timestamp);
    let secrets: Api<Secret> = Api::namespaced(second.client(), "default");
    assert_eq!(secrets.get("keys").await.unwrap().data.unwrap()["k"].0, b"a well kept secret");
    assert!(secrets.get_opt("others").await.unwrap().is_none());
    let cached = accounts(&second).create_token_request("default", &params, &token_request(&made)).await;
    assert_eq!(cached.unwrap().status.unwrap().token, token.status.unwrap().token);
    let version = listed.metadata.resource_version.unwrap();
    let watching = WatchParams::default().fields("spec.nodeName=n1");
    let mut watch = pods(&second).watch(&watching, &version).await.unwrap().boxed();
    let quiet = tokio::time::timeout(Duration::from_millis(300), watch.try_next()).await;
    assert!(quiet.is_err(), "nothing happens without a server: {quiet:?}");

    one.reappear().await;
    let event = tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap();
    assert!(matches!(&event, Some(WatchEvent::Error(status)) if status.code == 410), "{event:?}");
    pod(&one.admin(), "q", &["run"]).await;
    let link = *second.api_link().wait_for(|link| link.generation == 1).await.unwrap();
    assert_eq!(link.cached_before, 1);
    let listed = pods(&second).list(&ours()).await.unwrap();
    assert_eq!(listed.items.len(), 2);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_refused_and_shown_to_local_readers() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    let admin = one.admin();
    furnish(&admin).await;
    node(&admin, "n1").await;
    let made = pod(&admin, "p", &["run"]).await;
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(&authority, dir.path(), vec![one.address()]).await;
    read_all(&agent).await;
    let maps: Api<ConfigMap> = Api::namespaced(agent.client(), "default");
    assert!(maps.get_opt("optional").await.unwrap().is_none());
    one.vanish().await;
    agent.link().wait_for(|state| state.connected.is_none()).await.unwrap();
    let status =
        json!({"metadata": {"uid": made.metadata.uid}, "status": {"phase": "Failed", "message": "alone"}});
    let own: Api<Pod> = Api::namespaced(agent.client(), "default");
    let patched = own.patch_status("p", &PatchParams::default(), &Patch::Strategic(&status)).await;
    assert!(matches!(&patched, Err(kube::Error::Api(status)) if status.code == 503), "{patched:?}");
    let found = own.get("p").await.unwrap();
    assert_eq!(found.status.unwrap().message.as_deref(), Some("alone"));
    assert_eq!(found.metadata.resource_version, made.metadata.resource_version);
    let other = json!({"metadata": {"uid": "another"}, "status": {"message": "wrong"}});
    own.patch_status("p", &PatchParams::default(), &Patch::Strategic(&other)).await.unwrap_err();
    assert_eq!(own.get("p").await.unwrap().status.unwrap().message.as_deref(), Some("alone"));
    assert!(maps.get_opt("optional").await.unwrap().is_none(), "the server said that there is none");
    // Of what was never asked for, the server may have something.
    let unknown = own.get("unknown").await.unwrap_err();
    assert!(matches!(unknown, kube::Error::Api(status) if status.code == 503));
    // A list waits: the mirror may lag behind.
    let (listing, begun) = (pods(&agent), Instant::now());
    let list = tokio::spawn(async move { listing.list(&ours()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!list.is_finished());
    one.reappear().await;
    let listed = tokio::time::timeout(PATIENCE, list).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(listed.items[0].status.as_ref().unwrap().message, None, "the server was not told");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_lease_is_renewed_locally_and_then_at_the_server() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    let admin = one.admin();
    node(&admin, "n1").await;
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(&authority, dir.path(), vec![one.address()]).await;
    let leases: Api<Lease> = Api::namespaced(agent.client(), "kube-node-lease");
    let post = PostParams::default();
    let lease = from(json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}}));
    let mut lease: Lease = leases.create(&post, &lease).await.unwrap();
    one.vanish().await;
    agent.link().wait_for(|state| state.connected.is_none()).await.unwrap();
    lease.spec.as_mut().unwrap().lease_duration_seconds = Some(7);
    let renewed = leases.replace("n1", &post, &lease).await.unwrap();
    assert_eq!(renewed.metadata.resource_version, lease.metadata.resource_version);
    assert_eq!(leases.get("n1").await.unwrap().spec.unwrap().lease_duration_seconds, Some(7));
    one.reappear().await;
    agent.link().wait_for(|state| state.connected.is_some()).await.unwrap();
    leases.replace("n1", &post, &renewed).await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mirror_a_node_waits_for_a_server() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    let admin = one.admin();
    node(&admin, "n1").await;
    let seeds = vec![one.address()];
    one.vanish().await;
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(&authority, dir.path(), seeds).await;
    let nodes: Api<Node> = Api::all(agent.client());
    let reading = tokio::spawn(async move { nodes.get("n1").await });
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!reading.is_finished(), "an empty answer would be a lie");
    one.reappear().await;
    let found = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap().unwrap();
    assert_eq!(found.metadata.name.as_deref(), Some("n1"));
    let link = *agent.api_link().wait_for(|link| link.generation == 1).await.unwrap();
    assert_eq!(link.cached_before, 0, "nothing came from a cache");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_any_server_is_refused() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let config =
        sampan_agent::AgentConfig::new("n1", dir.path(), node_endpoint(&authority, "n1"), Vec::new());
    let refused = Agent::start(config).await.unwrap_err();
    assert!(matches!(refused, sampan_agent::AgentError::NoServers), "{refused}");
}
