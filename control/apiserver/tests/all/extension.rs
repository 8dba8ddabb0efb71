//! Routes below `/sampan/v1/`: behind the same filters, streaming both ways.

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use sampan_apiserver::{Body, UserInfo};
use sampan_store::MemoryStore;
use serde_json::json;
use tokio::sync::mpsc;

use crate::harness::{Cluster, cluster, cluster_with};

async fn who(Extension(user): Extension<UserInfo>) -> String {
    user.name
}

/// Says of each piece of the body how long it is, as soon as it comes.
async fn lengths(request: Request<Body>) -> Body {
    let pieces = request.into_body().into_data_stream();
    Body::from_stream(pieces.map(|piece| piece.map(|piece| Bytes::from(format!("{} ", piece.len())))))
}

async fn extended() -> Cluster {
    let router = Router::new()
        .route("/sampan/v1/ca", get(who))
        .route("/sampan/v1/tokens", get(who))
        .route("/sampan/v1/members", get(who))
        .route("/sampan/v1/lengths", post(lengths));
    cluster_with(Arc::new(MemoryStore::new()), |config| config.extension = Some(router)).await
}

#[tokio::test]
async fn requests_pass_the_filters_first() {
    let cluster = extended().await;
    assert_eq!(cluster.get("/sampan/v1/tokens").await.text, "test-admin");
    let headers = [("impersonate-user", "jane")];
    let answer = cluster.ask(Method::GET, "/sampan/v1/ca", &headers, Body::empty()).await;
    assert_eq!(answer.text, "jane");
    let refused = cluster.ask(Method::GET, "/sampan/v1/tokens", &headers, Body::empty()).await;
    let message = refused.refusal(403, "Forbidden");
    assert_eq!(message, "forbidden: User \"jane\" cannot get path \"/sampan/v1/tokens\"");
    for (user, path, code) in [
        (UserInfo::anonymous(), "/sampan/v1/ca", 200),
        (UserInfo::anonymous(), "/sampan/v1/members", 403),
        (UserInfo::node("n1"), "/sampan/v1/tokens", 403),
        (UserInfo::server("s1"), "/sampan/v1/members", 200),
        (UserInfo::server("s1"), "/sampan/v1/tokens", 403),
        (UserInfo::component("system:kube-scheduler"), "/sampan/v1/tokens", 403),
    ] {
        let name = user.name.clone();
        assert_eq!(cluster.acting_as(user).get(path).await.code.as_u16(), code, "{name} {path}");
    }
    assert_eq!(cluster.get("/sampan/v1/nowhere").await.code, 404);
}

#[tokio::test]
async fn bodies_stream_both_ways_and_may_be_large() {
    let cluster = extended().await;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(tokio_stream(receiver));
    let request = Request::builder().method(Method::POST).uri("/sampan/v1/lengths").body(body).unwrap();
    let response = cluster.send(request).await;
    assert_eq!(response.status(), 200);
    let mut answer = response.into_body();
    for _ in 0..8 {
        sender.send(Ok(Bytes::from(vec![0; 1 << 20]))).await.unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "1048576 ");
    }
    drop(sender);
    assert!(answer.frame().await.is_none());
}

fn tokio_stream<T: Send + 'static>(mut receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

#[tokio::test]
async fn paths_to_join_by_are_listed_where_they_are_served() {
    let listed = |cluster: Cluster| async move {
        let paths = cluster.get("/").await.expect(200)["paths"].clone();
        paths.as_array().unwrap().contains(&json!("/sampan/v1/enroll"))
    };
    assert!(listed(extended().await).await);
    assert!(!listed(cluster().await).await);
}
