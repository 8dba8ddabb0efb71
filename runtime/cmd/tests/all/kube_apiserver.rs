//! A real Kubernetes API server with three servers' etcd APIs as its store. Its path is in
//! `SAMPAN_KUBE_APISERVER`.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams, VersionMatch, WatchEvent, WatchParams,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{PATIENCE, free_port, range};
use crate::machine::{Machine, leader, wait_for_voters};

/// Whoever has it may do everything.
const TOKEN: &str = "administrator";

/// Three servers that speak the etcd API, and an API server over them.
struct Stack {
    servers: Vec<Machine>,
    stores: String,
    api: KubeApiserver,
}

impl Stack {
    async fn start() -> Self {
        let (cidr, mut servers, mut stores) = (range(), Vec::<Machine>::new(), Vec::new());
        for name in ["s1", "s2", "s3"] {
            let listen = format!("127.0.0.1:{}", free_port());
            let etcd = ["--etcd-listen", &listen, "--etcd-watch-progress-notify-interval", "1s"];
            let join = match servers.first() {
                None => vec!["--cluster-init".to_owned(), "--cluster-cidr".into(), cidr.clone()],
                Some(first) => {
                    vec!["--server".to_owned(), first.url(), "--token".into(), first.token("server")]
                }
            };
            let arguments: Vec<&str> = join.iter().map(String::as_str).chain(etcd).collect();
            let mut server = Machine::server(name, &arguments);
            server.start().await;
            stores.push(format!("http://{listen}"));
            servers.push(server);
        }
        wait_for_voters(&servers[0], 3).await;
        let stores = stores.join(",");
        let api = KubeApiserver::start(&stores).await;
        Self { servers, stores, api }
    }

    fn objects<T>(&self) -> Api<T>
    where
        T: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned,
        T::DynamicType: Default,
    {
        Api::namespaced(self.api.client.clone(), "default")
    }
}

/// The API server's process; it is killed when this is dropped.
struct KubeApiserver {
    directory: TempDir,
    process: Child,
    client: kube::Client,
}

impl KubeApiserver {
    async fn start(stores: &str) -> Self {
        let program = std::env::var_os("SAMPAN_KUBE_APISERVER").expect("SAMPAN_KUBE_APISERVER");
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let tokens = directory.path().join("tokens.csv");
        let pair = rcgen::KeyPair::generate().unwrap();
        let (key, public) = (directory.path().join("key.pem"), directory.path().join("public.pem"));
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        std::fs::write(&public, pair.public_key_pem()).unwrap();
        std::fs::write(&tokens, format!("{TOKEN},administrator,1,\"system:masters\"\n")).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(program)
            .args(["--etcd-servers", stores, "--etcd-prefix", "/kube"])
            .args(["--etcd-compaction-interval", "5s", "--event-ttl", "5s"])
            .args(["--feature-gates", "EfficientWatchResumption=true"])
            .args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string()])
            .args(["--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .arg("--service-account-key-file")
            .arg(&public)
            .arg("--service-account-signing-key-file")
            .arg(&key)
            .arg("--token-auth-file")
            .arg(&tokens)
            .arg("--cert-dir")
            .arg(directory.path().join("certificates"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let client = client(port);
        let mut started = Self { directory, process, client };
        started.ready().await;
        started
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    async fn ready(&mut self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let deadline = Instant::now() + PATIENCE;
        loop {
            // It is made once the API server is ready.
            if namespaces.get("default").await.is_ok() {
                return;
            }
            assert!(self.process.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            assert!(Instant::now() < deadline, "it is not ready in time: {}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for KubeApiserver {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn client(port: u16) -> kube::Client {
    // Whichever test comes first installs it for the process.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(TOKEN.to_owned().into());
    kube::Client::try_from(config).unwrap()
}

fn parsed<T: DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str, value: &str) -> ConfigMap {
    parsed(json!({ "metadata": { "name": name, "labels": { "of": "test" } }, "data": { "k": value } }))
}

/// Creates what may be there from an earlier try: writes are refused while no server leads.
async fn create_surely(maps: &Api<ConfigMap>, map: &ConfigMap) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match maps.create(&PostParams::default(), map).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn reason<T: std::fmt::Debug>(result: kube::Result<T>) -> String {
    match result.unwrap_err() {
        kube::Error::Api(status) => status.reason.clone(),
        other => panic!("{other}"),
    }
}

fn version(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    metadata.resource_version.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a kube-apiserver: SAMPAN_KUBE_APISERVER=PATH, .ci/kube-apiserver builds one"]
async fn a_kubernetes_api_server_keeps_its_objects_here() {
    let mut stack = Stack::start().await;
    only_one_of_two_writers_wins(&stack.objects()).await;
    lists_come_in_pages_until_compaction(&stack.objects()).await;
    events_end_with_their_leases(&stack.objects()).await;
    caches_hear_of_revisions_that_are_not_theirs(&stack.objects(), &stack.objects()).await;
    custom_resources_are_kept(&stack.api.client).await;
    watches_miss_nothing_while_servers_come_and_go(&mut stack).await;
    another_one_sees_the_same(&stack).await;
}

/// Compares, in transactions.
async fn only_one_of_two_writers_wins(maps: &Api<ConfigMap>) {
    let post = PostParams::default();
    let made = maps.create(&post, &map("contended", "0")).await.unwrap();
    assert_eq!(reason(maps.create(&post, &map("contended", "again")).await), "AlreadyExists");
    let with = |value: &str| ConfigMap { metadata: made.metadata.clone(), ..map("contended", value) };
    let (a, b) = (with("a"), with("b"));
    let both = tokio::join!(maps.replace("contended", &post, &a), maps.replace("contended", &post, &b));
    let (won, lost) = match both {
        (Ok(won), lost) => (won, lost),
        (lost, won) => (won.unwrap(), lost),
    };
    assert_eq!(reason(lost), "Conflict");
    assert_eq!(maps.get("contended").await.unwrap().data, won.data);
    // Server-side retries of a patch that does not say what it was made over.
    let patches = (0..10).map(|number| {
        let patch = Patch::Merge(json!({ "data": { format!("p{number}"): "x" } }));
        async move { maps.patch("contended", &PatchParams::default(), &patch).await }
    });
    for patched in futures::future::join_all(patches).await {
        patched.unwrap();
    }
    assert_eq!(maps.get("contended").await.unwrap().data.unwrap().len(), 11);
    maps.delete("contended", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("contended").await.unwrap().is_none());
}

/// Limits and revisions of ranges, counts, compaction.
async fn lists_come_in_pages_until_compaction(maps: &Api<ConfigMap>) {
    for number in 0..120 {
        create_surely(maps, &map(&format!("m{number:03}"), "1")).await;
    }
    let all = ListParams::default().labels("of=test");
    let (mut page, mut names, mut at) = (all.clone().limit(50), Vec::new(), BTreeSet::new());
    loop {
        let list = maps.list(&page).await.unwrap();
        at.insert(list.metadata.resource_version.clone().unwrap());
        names.extend(list.items.into_iter().map(|map| map.metadata.name.unwrap()));
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = all.clone().limit(50).continue_token(&token),
            _ => break,
        }
        // What comes after the first page began is not in it.
        create_surely(maps, &map(&format!("m{:03}-later", names.len()), "1")).await;
    }
    let expected: Vec<String> = (0..120).map(|number| format!("m{number:03}")).collect();
    assert_eq!(names, expected);
    assert_eq!(at.len(), 1, "all pages show one moment: {at:?}");

    // The API server has the history before its last look but one forgotten.
    let token = maps.list(&all.clone().limit(10)).await.unwrap().metadata.continue_.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while maps.list(&all.clone().limit(10).continue_token(&token)).await.is_ok() {
        assert!(Instant::now() < deadline, "no compaction");
        create_surely(maps, &map("tick", "1")).await;
        maps.delete("tick", &DeleteParams::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(reason(maps.list(&all.clone().limit(10).continue_token(&token)).await), "Expired");
    let exact = all.clone().at(at.first().unwrap()).matching(VersionMatch::Exact);
    assert_eq!(reason(maps.list(&exact).await), "Expired");
    assert_eq!(maps.list(&all).await.unwrap().items.len(), 122);
}

/// Leases.
async fn events_end_with_their_leases(events: &Api<Event>) {
    let event: Event = parsed(json!({
        "metadata": { "name": "happened" }, "reason": "Tested", "message": "x", "type": "Normal",
        "involvedObject": { "kind": "ConfigMap", "name": "m000", "namespace": "default" }
    }));
    events.create(&PostParams::default(), &event).await.unwrap();
    assert!(events.get_opt("happened").await.unwrap().is_some());
    let deadline = Instant::now() + PATIENCE;
    while events.get_opt("happened").await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "the event stays");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Progress notifications: a list of one kind that is at least as new as a write of another kind is
/// served by the API server's cache, which hears of that revision in no other way.
async fn caches_hear_of_revisions_that_are_not_theirs(maps: &Api<ConfigMap>, secrets: &Api<Secret>) {
    for number in 0..3 {
        let secret: Secret = parsed(json!({ "metadata": { "name": format!("s{number}") } }));
        let made = secrets.create(&PostParams::default(), &secret).await.unwrap();
        let at_least =
            ListParams::default().at(&version(&made.metadata)).matching(VersionMatch::NotOlderThan);
        assert!(maps.list(&at_least).await.unwrap().items.len() >= 122);
    }
}

async fn custom_resources_are_kept(client: &kube::Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition: CustomResourceDefinition = parsed(json!({
        "metadata": { "name": "boats.harbour.test" },
        "spec": {
            "group": "harbour.test",
            "names": { "kind": "Boat", "plural": "boats" },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } }
            }]
        }
    }));
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("harbour.test", "v1", "Boat"), "boats");
    let boats: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind);
    let boat: DynamicObject = parsed(json!({
        "apiVersion": "harbour.test/v1", "kind": "Boat", "metadata": { "name": "junk" }, "spec": { "sails": 3 }
    }));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = boats.create(&PostParams::default(), &boat).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(boats.get("junk").await.unwrap().data["spec"]["sails"], 3);
    definitions.delete("boats.harbour.test", &DeleteParams::default()).await.unwrap();
    while definitions.get_opt("boats.harbour.test").await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "the definition stays");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A watch from before it all, while each server is killed in turn and started again.
async fn watches_miss_nothing_while_servers_come_and_go(stack: &mut Stack) {
    let maps: Api<ConfigMap> = stack.objects();
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut written = Vec::new();
    for round in 0..3 {
        let lost = leader(&stack.servers, &stack.servers[round]);
        stack.servers[lost].kill();
        for number in 0..10 {
            let name = format!("w{round}-{number}");
            create_surely(&maps, &map(&name, "1")).await;
            written.push(name);
        }
        stack.servers[lost].start().await;
    }
    maps.delete(&written[0], &DeleteParams::default()).await.unwrap();
    let expected: Vec<(&str, &str)> = written
        .iter()
        .map(|name| ("ADDED", name.as_str()))
        .chain([("DELETED", written[0].as_str())])
        .collect();
    let watch = maps.watch(&WatchParams::default().timeout(60), &start).await.unwrap();
    let mut watch = std::pin::pin!(watch);
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let event = tokio::time::timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap();
        match event {
            Some(WatchEvent::Added(map)) => seen.push(("ADDED", map.metadata.name.unwrap())),
            Some(WatchEvent::Deleted(map)) => {
                // What it was is told, too.
                assert_eq!(map.data.unwrap()["k"], "1");
                seen.push(("DELETED", map.metadata.name.unwrap()));
            }
            Some(WatchEvent::Bookmark(_)) => {}
            other => panic!("{other:?} after {seen:?}: {}", stack.api.log()),
        }
    }
    let seen: Vec<(&str, &str)> = seen.iter().map(|(kind, name)| (*kind, name.as_str())).collect();
    assert_eq!(seen, expected);
}

/// An API server that starts over what another one wrote.
async fn another_one_sees_the_same(stack: &Stack) {
    let other = KubeApiserver::start(&stack.stores).await;
    let names = async |maps: Api<ConfigMap>| -> BTreeSet<String> {
        let list = maps.list(&ListParams::default()).await.unwrap();
        list.items.into_iter().map(|map| map.metadata.name.unwrap()).collect()
    };
    let (ours, theirs) = (stack.objects(), Api::namespaced(other.client.clone(), "default"));
    assert_eq!(names(ours.clone()).await, names(theirs.clone()).await);
    // Each sees at once what was written through the other.
    create_surely(&theirs, &map("across", "1")).await;
    assert!(ours.get_opt("across").await.unwrap().is_some());
}
