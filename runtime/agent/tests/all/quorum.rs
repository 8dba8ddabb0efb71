//! Servers that are there, and whose group is not: no leader, no quorum.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use sampan_agent::{Agent, OwnNode};
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_apiserver::{ApiServer, Config, UserInfo};
use sampan_store::{
    MemoryStore, RangeRequest, RangeResponse, Revision, Storage, StorageError, Txn, TxnResponse,
    WatchRequest, WatchStream,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cluster::*;

/// A store of a group that may lose its quorum: what a member has it can still watch, and nothing is
/// confirmed or taken.
#[derive(Default)]
struct Group {
    inner: MemoryStore,
    away: AtomicBool,
}

impl Group {
    fn loses_quorum(&self, lost: bool) {
        self.away.store(lost, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StorageError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(StorageError::Unavailable { why: "there is no leader".into() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Storage for Group {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }
    async fn current_revision(&self) -> Result<Revision, StorageError> {
        self.check()?;
        self.inner.current_revision().await
    }
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.check()?;
        self.inner.range(request).await
    }
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        self.check()?;
        self.inner.txn(txn).await
    }
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        self.inner.watch(request).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        self.inner.compact(revision).await
    }
    async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError> {
        self.inner.snapshot(to).await
    }
    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError> {
        self.inner.restore(from).await
    }
}

fn ours() -> ListParams {
    ListParams::default().fields("spec.nodeName=n1")
}

/// Reads what a kubelet would read, so that the mirror has it.
async fn read_all(client: &kube::Client) {
    Api::<Node>::all(client.clone()).get("n1").await.unwrap();
    Api::<Pod>::all(client.clone()).list(&ours()).await.unwrap();
    Api::<ConfigMap>::namespaced(client.clone(), "default").get("files").await.unwrap();
    Api::<Secret>::namespaced(client.clone(), "default").get("keys").await.unwrap();
}

async fn one_server(authority: &Authority) -> (Arc<Group>, TestServer) {
    let group = Arc::new(Group::default());
    let server = TestServer::start(authority, "one", group.clone()).await;
    tell(&[&server], Some(&server));
    let admin = server.admin();
    furnish(&admin).await;
    node(&admin, "n1").await;
    (group, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_boots_while_its_servers_have_no_quorum_starts_from_its_mirror() {
    let authority = Authority::new();
    let (group, one) = one_server(&authority).await;
    let made = pod(&one.admin(), "p", &["run"]).await;
    let dir = tempfile::tempdir().unwrap();
    let first = agent(&authority, dir.path(), vec![one.address()]).await;
    read_all(&first.client()).await;
    first.stop().await;

    group.loses_quorum(true);
    let second = agent(&authority, dir.path(), vec![one.address()]).await;
    let pods: Api<Pod> = Api::all(second.client());
    let listed = pods.list(&ours()).await.unwrap();
    assert_eq!(listed.items[0].metadata.uid, made.metadata.uid);
    let secrets: Api<Secret> = Api::namespaced(second.client(), "default");
    assert_eq!(secrets.get("keys").await.unwrap().data.unwrap()["k"].0, b"a well kept secret");
    assert_eq!((second.api_link().borrow().generation, second.link().borrow().connected.clone()), (0, None));
    let watching = WatchParams::default().fields("spec.nodeName=n1");
    let mut watch = pods.watch(&watching, &listed.metadata.resource_version.unwrap()).await.unwrap().boxed();

    group.loses_quorum(false);
    let event = tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap();
    assert!(matches!(&event, Some(WatchEvent::Error(status)) if status.code == 410), "{event:?}");
    let link = *second.api_link().wait_for(|link| link.generation == 1).await.unwrap();
    assert_eq!(link.cached_before, 1);
    pod(&one.admin(), "q", &["run"]).await;
    assert_eq!(pods.list(&ours()).await.unwrap().items.len(), 2);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_its_group_is_left_for_one_that_has_it() {
    let authority = Authority::new();
    let (group, one) = one_server(&authority).await;
    let other: Arc<dyn Storage> = Arc::new(MemoryStore::new());
    let two = TestServer::start(&authority, "two", other).await;
    node(&two.admin(), "n1").await;
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(&authority, dir.path(), vec![one.address(), two.address()]).await;
    let at = async |agent: &Agent, server: &TestServer| {
        let mut link = agent.link();
        let there = link.wait_for(|state| state.connected.as_ref().is_some_and(|c| c.key == server.key));
        tokio::time::timeout(PATIENCE, there).await.expect("it connects").unwrap();
    };
    tell(&[&one, &two], Some(&one));
    at(&agent, &one).await;
    // It is noticed when a request fails for it, or when the server says that nobody leads.
    group.loses_quorum(true);
    let nodes: Api<Node> = Api::all(agent.client());
    drop(
        nodes
            .replace_status("n1", &Default::default(), &from(serde_json::json!({"metadata": {"name": "n1"}})))
            .await,
    );
    tell(&[&one, &two], None);
    at(&agent, &two).await;
    nodes.get("n1").await.unwrap();
    assert_eq!(agent.api_link().borrow().cached_before, 0, "nothing was started from the mirror");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_its_own_node_without_a_quorum() {
    let group = Arc::new(Group::default());
    let api = async |group: &Arc<Group>| {
        let pki = Arc::new(Pki::in_memory(ServingNames::new([], [])).unwrap());
        ApiServer::new(Config::new(group.clone(), pki, "127.0.0.1:6443")).await.unwrap()
    };
    let server = api(&group).await;
    let admin = kube::Client::new(server.service(UserInfo::admin("admin")), "default");
    furnish(&admin).await;
    node(&admin, "n1").await;
    let made = pod(&admin, "p", &["run"]).await;
    let dir = tempfile::tempdir().unwrap();
    let wait = Duration::from_millis(200);
    let start = || OwnNode::start("n1", dir.path().join("agent"), wait, 1 << 20).unwrap();
    let first = start();
    assert!(!first.can_start_alone(), "it has nothing to start from");
    first.attach(server.service(UserInfo::node("n1")));
    read_all(&first.client()).await;
    assert_eq!(first.api_link().borrow().cached_before, 0);
    first.stop().await;

    let second = start();
    assert!(second.can_start_alone());
    let pods: Api<Pod> = Api::all(second.client());
    let listed = pods.list(&ours()).await.unwrap();
    assert_eq!(listed.items[0].metadata.uid, made.metadata.uid);
    second.attach(server.service(UserInfo::node("n1")));
    let mut link = second.api_link();
    let link = *link.wait_for(|link| link.generation == 1).await.unwrap();
    assert_eq!(link.cached_before, 1);
    pod(&admin, "q", &["run"]).await;
    assert_eq!(pods.list(&ours()).await.unwrap().items.len(), 2);

    // The group goes and comes while it runs: reads of what is known go on, and lists wait.
    group.loses_quorum(true);
    eventually("the loss is noticed", async || {
        let unknown = Api::<ConfigMap>::namespaced(second.client(), "default").get("none").await;
        let known = Api::<ConfigMap>::namespaced(second.client(), "default").get("files").await;
        (unknown.is_err() && known.is_ok()).then_some(())
    })
    .await;
    group.loses_quorum(false);
    let listed = tokio::time::timeout(PATIENCE, pods.list(&ours())).await.unwrap().unwrap();
    assert_eq!(listed.items.len(), 2);
    second.stop().await;
}
