//! Nodes that hang on another server.

use axum::Router;
use axum::routing::get;
use http::Request;
use http_body_util::BodyExt;
use sampan_agent::NodeRouter;
use sampan_apiserver::{Body, NodeConnector, NodeError};

use crate::cluster::*;

fn kubelet(text: &'static str) -> Router {
    Router::new().route("/healthz", get(move || async move { text }))
}

async fn ask(server: &TestServer, node: &str) -> Result<String, NodeError> {
    let request = Request::get("/healthz").body(Body::empty()).unwrap();
    let answer = server.gateway.request(node, request).await?;
    Ok(String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_reached_through_the_server_that_it_is_connected_to() {
    let authority = Authority::new();
    let [one, mut two, three] = servers(&authority, ["one", "two", "three"]).await;
    tell(&[&one, &two, &three], Some(&two));
    let link = TestLink::start(&authority, "n1", vec![two.address()]);
    link.at(&two).await;
    link.router.connect(kubelet("by relay"));
    for server in [&one, &three, &two] {
        eventually("the node is found", || async { ask(server, "n1").await.ok() }).await;
        assert_eq!(ask(server, "n1").await.unwrap(), "by relay");
    }
    assert!(matches!(ask(&one, "n9").await, Err(NodeError::NotConnected(node)) if node == "n9"));
    // It moves: where it was is forgotten.
    two.vanish().await;
    tell(&[&one, &two, &three], Some(&three));
    eventually("the node is found elsewhere", || async { ask(&one, "n1").await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_own_node_is_reached_from_the_other_servers() {
    let authority = Authority::new();
    let [one, two] = servers(&authority, ["one", "two"]).await;
    tell(&[&one, &two], Some(&one));
    let local = NodeRouter::new("two");
    local.connect(kubelet("in process"));
    two.gateway.connect_local(local);
    assert_eq!(ask(&two, "two").await.unwrap(), "in process");
    assert_eq!(ask(&one, "two").await.unwrap(), "in process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_connection_takes_the_older_ones_place() {
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    let first = TestLink::start(&authority, "n1", vec![one.address()]);
    first.at(&one).await;
    first.router.connect(kubelet("first"));
    eventually("the first answers", || async { ask(&one, "n1").await.ok().filter(|t| t == "first") }).await;
    // The same name with another key: the older one is shown the door.
    let mut lost = first.link.state();
    let second = TestLink::start(&authority, "n1", vec![one.address()]);
    second.at(&one).await;
    second.router.connect(kubelet("second"));
    let shown = lost.wait_for(|state| state.connected.is_none());
    tokio::time::timeout(PATIENCE, shown).await.expect("it is closed").unwrap();
    drop(first);
    eventually("the second answers", || async { ask(&one, "n1").await.ok().filter(|t| t == "second") }).await;
    assert_eq!(one.gateway.connected().len(), 1);
}
