//! The API over a node's connection, requests in the other direction, and moves between servers.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use futures::{StreamExt, TryStreamExt};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use sampan_agent::{ApiError, ApiOverStreams};
use sampan_apiserver::{Body, NodeConnector};
use sampan_transport::{Role, Target};
use serde_json::json;

use crate::cluster::*;

fn kubelet(text: &'static str) -> Router {
    Router::new().route("/healthz", get(move || async move { text }))
}

async fn ask(server: &TestServer, node: &str, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = server.gateway.request(node, request).await.map_err(|error| error.to_string())?;
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

fn client(link: &TestLink) -> kube::Client {
    kube::Client::new(ApiOverStreams::new(link.link.clone()), "default")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_writes_and_watches_as_itself() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    let link = TestLink::start(&authority, "n1", vec![one.address()]);
    link.at(&one).await;
    let nodes: Api<Node> = Api::all(client(&link));
    let mut watch = nodes.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    nodes.create(&PostParams::default(), &from(json!({"metadata": {"name": "n1"}}))).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    nodes.patch("n1", &PatchParams::default(), &patch).await.unwrap();
    let listed = nodes.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items[0].metadata.labels.as_ref().unwrap()["a"], "b");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap().unwrap() {
            WatchEvent::Added(_) => seen.push("added"),
            WatchEvent::Modified(_) => seen.push("modified"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["added", "modified"]);
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(who.to_string().into_bytes())
        .unwrap();
    let answer: serde_json::Value = client(&link).request(request).await.unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "system:node:n1");
    let missing = nodes.get("n2").await.unwrap_err();
    assert!(matches!(missing, kube::Error::Api(status) if status.code == 404));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_reaches_the_kubelet_through_the_nodes_connection() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    assert_eq!(ask(&one, "n1", "/healthz").await.unwrap_err(), "node \"n1\" is not connected");
    let link = TestLink::start(&authority, "n1", vec![one.address()]);
    link.at(&one).await;
    eventually("the gateway knows the node", || async { one.gateway.connected().pop() }).await;
    assert_eq!(ask(&one, "n1", "/healthz").await.unwrap(), "the node is still starting");
    link.router.connect(kubelet("well"));
    assert_eq!(ask(&one, "n1", "/healthz").await.unwrap(), "well");
    let connected = one.gateway.connected();
    assert_eq!(connected.len(), 1);
    assert_eq!((connected[0].node.as_str(), connected[0].quic), ("n1", true));
    assert!(one.gateway.disconnect(connected[0].key, "removed"));
    assert!(!one.gateway.disconnect(one.key, "no node has this key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_a_node_gives_up_does_not_cost_it_the_one_that_it_keeps() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    let (node, addresses) = (node_endpoint(&authority, "n1"), vec![one.address()]);
    let target = Target { addresses, role: Role::Server, key: Some(one.key), allow_tcp: false };
    let since = || one.gateway.connected().pop().map(|connected| connected.since);
    let kept = node.connect(&target).await.unwrap();
    let first = eventually("it is connected", || async { since() }).await;
    let given_up = node.connect(&target).await.unwrap();
    eventually("the other way came in later", || async { since().filter(|since| *since != first) }).await;
    given_up.close("it has another one");
    eventually("the first one is in use", || async { since().filter(|since| *since == first) }).await;
    assert_eq!(kept.close_reason(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_connection_fail_at_once_and_those_under_way_end_with_it() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    let link = TestLink::start(&authority, "n1", vec![one.address()]);
    link.at(&one).await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&link), "default");
    let watch = maps.watch(&WatchParams::default(), "0").await.unwrap();
    one.vanish().await;
    let rest: Result<Vec<_>, _> = tokio::time::timeout(PATIENCE, watch.try_collect()).await.expect("it ends");
    // How a broken stream is told is kube's matter; what counts is that nobody waits on it.
    drop(rest);
    let mut state = link.link.state();
    state.wait_for(|state| state.connected.is_none()).await.unwrap();
    let begun = Instant::now();
    let request = Request::get("/version").body(Body::empty()).unwrap();
    let refused = ApiOverStreams::new(link.link.clone()).request(request).await;
    assert!(matches!(refused, Err(ApiError::NotConnected)), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    one.reappear().await;
    link.at(&one).await;
    assert_eq!(link.link.state().borrow().generation, 2);
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_server_is_replaced_by_another_that_it_told_of() {
    let authority = Authority::new();
    let [mut one, two] = servers(&authority, ["one", "two"]).await;
    tell(&[&one, &two], Some(&one));
    // Only the first is named; the second is learnt of.
    let link = TestLink::start(&authority, "n1", vec![one.address()]);
    link.at(&one).await;
    link.link.state().wait_for(|state| state.servers.servers.len() == 2).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client(&link), "default");
    let map = from(json!({"metadata": {"name": "a"}}));
    maps.create(&PostParams::default(), &map).await.unwrap();
    one.vanish().await;
    link.at(&two).await;
    assert_eq!(maps.get("a").await.unwrap().metadata.name.as_deref(), Some("a"));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(link.link.state().borrow().connected.as_ref().unwrap().server, "two");
    // What was learnt is known to the next run.
    let text = std::fs::read_to_string(link.dir.path().join("servers.json")).unwrap();
    assert!(text.contains(&two.address()) && text.contains(&two.key.to_string()), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_follows_the_leader_without_a_moment_unconnected() {
    let authority = Authority::new();
    let [one, two, three] = servers(&authority, ["one", "two", "three"]).await;
    let all = [&one, &two, &three];
    tell(&all, None);
    let link = TestLink::start(&authority, "n1", vec![one.address()]);
    link.at(&one).await;
    link.router.connect(kubelet("well"));
    let maps: Api<ConfigMap> = Api::namespaced(client(&link), "default");
    let mut watch = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    tell(&all, Some(&two));
    link.at(&two).await;
    // What was under way on the old connection goes on for a while.
    let map = from(json!({"metadata": {"name": "a"}}));
    maps.create(&PostParams::default(), &map).await.unwrap();
    let event = tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap();
    assert!(matches!(event, Some(WatchEvent::Added(_))), "{event:?}");
    tell(&all, Some(&three));
    link.at(&three).await;
    assert_eq!(link.link.state().borrow().generation, 1, "there always was a connection");
    eventually("old connections are closed", || async {
        (one.gateway.connected().is_empty() && two.gateway.connected().is_empty()).then_some(())
    })
    .await;
    assert_eq!(ask(&three, "n1", "/healthz").await.unwrap(), "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_out_of_reach_costs_nothing() {
    let authority = Authority::new();
    let [one, mut two] = servers(&authority, ["one", "two"]).await;
    two.vanish().await;
    tell(&[&one, &two], Some(&two));
    let link = TestLink::start(&authority, "n1", vec![one.address()]);
    link.at(&one).await;
    link.link.state().wait_for(|state| state.servers.leader.is_some()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client(&link), "default");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        maps.list(&ListParams::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    two.reappear().await;
    link.at(&two).await;
    assert_eq!(link.link.state().borrow().generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_stands_in_where_udp_is_swallowed() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    let link = TestLink::start(&authority, "n1", vec![one.listen_tcp().await]);
    link.at(&one).await;
    link.router.connect(kubelet("over TCP"));
    assert!(!link.link.state().borrow().connected.as_ref().unwrap().quic);
    let maps: Api<ConfigMap> = Api::namespaced(client(&link), "default");
    let mut watch = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "a"}}))).await.unwrap();
    let event = tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap();
    assert!(matches!(event, Some(WatchEvent::Added(_))), "{event:?}");
    assert_eq!(ask(&one, "n1", "/healthz").await.unwrap(), "over TCP");
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_gives_way_when_quic_works_again() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    let link = TestLink::start(&authority, "n1", vec![one.listen_tcp().await]);
    link.at(&one).await;
    let mut state = link.link.state();
    assert!(!state.borrow().connected.as_ref().unwrap().quic);
    // The address that is told takes QUIC.
    tell(&[&one], Some(&one));
    let quic = state.wait_for(|state| state.connected.as_ref().is_some_and(|c| c.quic));
    assert_eq!(tokio::time::timeout(PATIENCE, quic).await.expect("it moves").unwrap().generation, 1);
    let maps: Api<ConfigMap> = Api::namespaced(client(&link), "default");
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watches_leave_streams_for_writes() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    for address in [one.address(), one.listen_tcp().await] {
        let link = TestLink::start(&authority, "n1", vec![address]);
        link.at(&one).await;
        let maps: Api<ConfigMap> = Api::namespaced(client(&link), "default");
        let (mut held, mut refused) = (Vec::new(), 0);
        for _ in 0..150 {
            match maps.watch(&WatchParams::default(), "0").await {
                Ok(watch) => held.push(watch),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0 && held.len() >= 40, "{} held, {refused} refused", held.len());
        let all = ListParams::default();
        let listed = tokio::time::timeout(PATIENCE, maps.list(&all));
        listed.await.expect("a stream is free").unwrap();
        held.clear();
        eventually("streams are given back", || async {
            maps.watch(&WatchParams::default(), "0").await.ok().map(drop)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_survives_another_address() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    let link = TestLink::start(&authority, "n1", vec![one.address()]);
    link.at(&one).await;
    link.router.connect(kubelet("still there"));
    let nodes: Api<Node> = Api::all(client(&link));
    node(&one.admin(), "n1").await;
    let before = link.endpoint.local_address();
    link.endpoint.rebind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_ne!(link.endpoint.local_address(), before);
    nodes.get("n1").await.unwrap();
    assert_eq!(ask(&one, "n1", "/healthz").await.unwrap(), "still there");
    assert_eq!(link.link.state().borrow().generation, 1);
}
