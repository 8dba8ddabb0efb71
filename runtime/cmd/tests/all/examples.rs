//! Every example is applied and comes to what its README says.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, LogParams, PostParams};
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, is_ready};

fn documents(file: &str) -> Vec<serde_json::Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

async fn create<K>(cluster: &Cluster, object: &serde_json::Value)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + serde::Serialize
        + Clone
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object.clone()).unwrap();
    Api::<K>::default_namespaced(cluster.client().await)
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello() {
    let cluster = Cluster::start().await;
    for object in documents("hello/config.yaml") {
        match object["kind"].as_str().unwrap() {
            "ConfigMap" => create::<ConfigMap>(&cluster, &object).await,
            "Secret" => create::<Secret>(&cluster, &object).await,
            kind => panic!("unexpected {kind}"),
        }
    }
    for object in documents("hello/pods.yaml") {
        cluster.create_pod(object).await;
    }
    cluster.wait_for_phase("hello", "Succeeded").await;
    let log = cluster.pods().await.logs("hello", &LogParams::default()).await.unwrap();
    assert!(log.contains("Ahoy") && log.contains("captain"), "{log}");
    cluster.wait_for("hello-http", is_ready).await;
}

#[test]
fn every_example_has_a_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let names: Vec<String> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["hello"], "a new example needs a test here");
}
