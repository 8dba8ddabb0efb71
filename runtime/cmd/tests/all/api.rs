//! The API over TLS, with a real client.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_listed_in_pages_and_watched_without_gaps() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    for number in 0..25 {
        let map: ConfigMap = serde_json::from_value(
            json!({"metadata": {"name": format!("m{number:02}"), "labels": {"t": "x"}}}),
        )
        .unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let mut names = Vec::new();
    let mut page = ListParams::default().labels("t=x").limit(10);
    loop {
        let list = maps.list(&page).await.unwrap();
        names.extend(list.items.into_iter().map(|map| map.metadata.name.unwrap()));
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            _ => break,
        }
    }
    let expected: Vec<String> = (0..25).map(|number| format!("m{number:02}")).collect();
    assert_eq!(names, expected);

    let watch = maps.watch(&WatchParams::default().labels("t=x").timeout(60), &start).await.unwrap();
    let mut watch = std::pin::pin!(watch);
    let mut seen = Vec::new();
    while seen.len() < 25 {
        let event = tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap();
        match event {
            Some(WatchEvent::Added(map)) => seen.push(map.metadata.name.unwrap()),
            Some(WatchEvent::Bookmark(_)) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_emptied_and_goes() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "port"}})).unwrap();
    let made = namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "port");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("port", &DeleteParams::default()).await.unwrap();
    let gone = kube::runtime::wait::await_condition(
        namespaces,
        "port",
        kube::runtime::wait::conditions::is_deleted(made.metadata.uid.as_deref().unwrap()),
    );
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_kept_out() {
    let cluster = Cluster::start().await;
    let config = kube::config::Kubeconfig::read_from(cluster.data_dir().join("kubeconfig.yaml")).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default())
            .await
            .unwrap();
    config.auth_info = kube::config::AuthInfo::default();
    let client = kube::Client::try_from(config).unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let Err(kube::Error::Api(status)) = maps.list(&ListParams::default()).await else { panic!("must fail") };
    assert!(matches!(status.code, 401 | 403), "{status:?}");
    let request = http::Request::get("/healthz").body(Vec::new()).unwrap();
    assert_eq!(client.request_text(request).await.unwrap(), "ok");
}
