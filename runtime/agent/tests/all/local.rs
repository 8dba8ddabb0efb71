//! The read-only API for clients on the node's machine.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{
    Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::json;

use crate::cluster::*;
use crate::tls::client_of;

fn refused(error: kube::Error) {
    match error {
        kube::Error::Api(status) => {
            assert_eq!(status.code, 403, "{status:?}");
            assert!(status.message.contains("the node's own copy, which can only be read"), "{status:?}");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_clients_read_the_nodes_objects_and_cannot_write() {
    let authority = Authority::new();
    let [mut one] = servers(&authority, ["one"]).await;
    let admin = one.admin();
    furnish(&admin).await;
    node(&admin, "n1").await;
    let made = pod(&admin, "p", &["run"]).await;
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(&authority, dir.path(), vec![one.address()]).await;
    agent.router().connect(axum::Router::new().route(
        "/containerLogs/{namespace}/{pod}/{container}",
        axum::routing::get(|| async { "a line of the log\n" }),
    ));
    Api::<Pod>::all(agent.client()).list(&ListParams::default().fields("spec.nodeName=n1")).await.unwrap();
    let (_, kubeconfig) = agent.local_api().unwrap();
    let local = client_of(kubeconfig);
    let pods: Api<Pod> = Api::namespaced(local.clone(), "default");
    let found = eventually("the pod is shown", || async { pods.get("p").await.ok() }).await;
    assert_eq!(found.metadata.uid, made.metadata.uid);
    assert_eq!(found.metadata.resource_version, made.metadata.resource_version);
    assert_eq!(pods.logs("p", &LogParams::default()).await.unwrap(), "a line of the log\n");
    // The pod's namespace is the server's, not one of this view's own.
    let uid = namespace_uid(&admin, "default").await;
    let namespaces: Api<Namespace> = Api::all(local.clone());
    eventually("the namespace is shown", || async {
        namespaces.get("default").await.ok().filter(|namespace| namespace.metadata.uid == uid)
    })
    .await;
    assert!(namespaces.get("kube-system").await.is_err());

    let mut watch = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert!(matches!(watch.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    one.vanish().await;
    agent.link().wait_for(|state| state.connected.is_none()).await.unwrap();
    let status = json!({"status": {"message": "alone"}});
    let own: Api<Pod> = Api::namespaced(agent.client(), "default");
    own.patch_status("p", &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap_err();
    let event = tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap();
    let Some(WatchEvent::Modified(seen)) = event else { panic!("{event:?}") };
    assert_eq!(seen.status.unwrap().message.as_deref(), Some("alone"));

    refused(pods.delete("p", &DeleteParams::default()).await.unwrap_err());
    refused(pods.patch("p", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap_err());
    let secrets: Api<Secret> = Api::namespaced(local, "default");
    let new = from(json!({"metadata": {"name": "new"}}));
    refused(secrets.create(&PostParams::default(), &new).await.unwrap_err());
    assert!(pods.get("p").await.is_ok());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_kubeconfig_is_private_and_works_after_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let authority = Authority::new();
    let [one] = servers(&authority, ["one"]).await;
    node(&one.admin(), "n1").await;
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let agent = agent(&authority, dir.path(), vec![one.address()]).await;
        let (address, kubeconfig) = agent.local_api().unwrap();
        assert!(address.ip().is_loopback());
        let mode = std::fs::metadata(kubeconfig).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pods: Api<Pod> = Api::namespaced(client_of(kubeconfig), "default");
        assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
        agent.stop().await;
    }
}
