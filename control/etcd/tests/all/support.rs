//! Servers to talk to: ours over some store, and a real etcd; and clients for both.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::etcdserverpb::kv_client::KvClient;
use sampan_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use sampan_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use sampan_etcd::proto::etcdserverpb::watch_client::WatchClient;
use sampan_etcd::{ClusterView, EtcdServer, Lessor, Listener, Options, Security, Standalone};
use sampan_raft::{Member, NoPeers, RaftConfig, RaftStore, Start};
use sampan_store::{DurableConfig, MemoryStore, Op, Storage, Txn};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Channel;

/// How long anything may take on a machine under load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Our server; it stops when this is dropped.
pub(crate) struct Ours {
    pub(crate) address: SocketAddr,
    pub(crate) storage: Arc<dyn Storage>,
    _stop: DropGuard,
}

pub(crate) async fn ours() -> Ours {
    ours_with(Arc::new(MemoryStore::new()), Arc::new(Standalone), Options::default()).await
}

pub(crate) async fn ours_with(
    storage: Arc<dyn Storage>,
    view: Arc<dyn ClusterView>,
    options: Options,
) -> Ours {
    // As etcd, a store in use begins with revision 1 at least.
    if storage.revision().0 == 0 {
        let first = Op::Put { key: key("/sampan/first"), value: Bytes::new() };
        storage.txn(Txn { success: vec![first], ..Txn::default() }).await.unwrap();
    }
    let stop = CancellationToken::new();
    let lessor = Lessor::new(Arc::clone(&storage), Arc::clone(&view));
    let running = Arc::clone(&lessor);
    let until = stop.clone();
    tokio::spawn(async move { running.run(until).await });
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Security::Plaintext).await.unwrap();
    let address = listener.local_address();
    let server = EtcdServer::new(Arc::clone(&storage), view, lessor, options);
    tokio::spawn(server.serve(listener, stop.clone()));
    Ours { address, storage, _stop: stop.drop_guard() }
}

/// The store that servers have, on disk; `volatile` begins the keys that live in memory only.
pub(crate) async fn on_disk(dir: &Path, volatile: &[&str]) -> Arc<dyn Storage> {
    let mut config = DurableConfig::new(dir);
    config.volatile_prefixes = volatile.iter().map(|prefix| key(prefix)).collect();
    let member = Member { id: 7, name: "alone".into(), addresses: Vec::new(), key: [7; 32] };
    let config = RaftConfig::new(config, member);
    RaftStore::open(config, Start::Bootstrap, Arc::new(NoPeers)).await.unwrap()
}

/// Debian's etcd; it is killed when this is dropped.
pub(crate) struct Theirs {
    pub(crate) address: SocketAddr,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) async fn theirs() -> Theirs {
    started(None).await
}

/// An etcd that goes on from a snapshot.
pub(crate) async fn restored(snapshot: &Path) -> Theirs {
    started(Some(snapshot)).await
}

async fn started(snapshot: Option<&Path>) -> Theirs {
    // Somebody may take the port before etcd does.
    for _ in 0..5 {
        if let Some(theirs) = try_theirs(snapshot).await {
            return theirs;
        }
    }
    panic!("etcd does not start: these tests need Debian's etcd-server");
}

async fn try_theirs(snapshot: Option<&Path>) -> Option<Theirs> {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (client, peer) = (format!("http://{address}"), format!("http://127.0.0.1:{}", free_port()));
    if let Some(snapshot) = snapshot {
        let (data, cluster) = (dir.path().join("data"), format!("reference={peer}"));
        let restore = ["snapshot", "restore", &snapshot.display().to_string(), "--name", "reference"];
        let group = ["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
        let into = ["--data-dir", &data.display().to_string()];
        let (ok, said) = run("etcdctl", &[&restore[..], &group, &into].concat(), dir.path());
        assert!(ok, "{said}");
    }
    let child = Command::new("etcd")
        .args(["--name", "reference", "--log-level", "error", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("reference={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need etcd (Debian's etcd-server)");
    let theirs = Theirs { address, child, _dir: dir };
    for _ in 0..300 {
        if let Ok(mut client) = KvClient::connect(client.clone()).await
            && client.range(pb::RangeRequest { key: key("health"), ..Default::default() }).await.is_ok()
        {
            return Some(theirs);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

/// Clients of one server.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) kv: KvClient<Channel>,
    pub(crate) lease: LeaseClient<Channel>,
    pub(crate) watch: WatchClient<Channel>,
    pub(crate) maintenance: MaintenanceClient<Channel>,
}

pub(crate) async fn clients(address: SocketAddr) -> Clients {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    Clients {
        kv: KvClient::new(channel.clone()).max_decoding_message_size(64 << 20),
        lease: LeaseClient::new(channel.clone()),
        watch: WatchClient::new(channel.clone()).max_decoding_message_size(64 << 20),
        maintenance: MaintenanceClient::new(channel),
    }
}

impl Clients {
    pub(crate) async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        self.kv.clone().put(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn put_text(&self, key: &str, value: &str) -> i64 {
        let request = pb::PutRequest { key: self::key(key), value: self::key(value), ..Default::default() };
        self.put(request).await.unwrap().header.unwrap().revision
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        self.kv.clone().range(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn delete(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        self.kv.clone().delete_range(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.kv.clone().txn(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn compact(&self, revision: i64) -> Result<pb::CompactionResponse, Status> {
        let request = pb::CompactionRequest { revision, physical: false };
        self.kv.clone().compact(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn grant(&self, id: i64, ttl: i64) -> Result<pb::LeaseGrantResponse, Status> {
        let request = pb::LeaseGrantRequest { ttl, id };
        self.lease.clone().lease_grant(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, Status> {
        let request = pb::LeaseRevokeRequest { id };
        self.lease.clone().lease_revoke(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn time_to_live(&self, id: i64) -> pb::LeaseTimeToLiveResponse {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        self.lease.clone().lease_time_to_live(request).await.unwrap().into_inner()
    }

    pub(crate) async fn leases(&self) -> Vec<i64> {
        let listed = self.lease.clone().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap();
        listed.into_inner().leases.iter().map(|lease| lease.id).collect()
    }

    pub(crate) fn watching(&self) -> Watching {
        self.watching_with(|_| {})
    }

    /// A stream of watches, whose request was prepared.
    pub(crate) fn watching_with(
        &self,
        prepare: impl FnOnce(&mut tonic::Request<ReceiverStream<pb::WatchRequest>>),
    ) -> Watching {
        let (requests, stream) = mpsc::channel(64);
        let mut request = tonic::Request::new(ReceiverStream::new(stream));
        prepare(&mut request);
        let mut client = self.watch.clone();
        let (forward, answers) = mpsc::channel(1);
        // In the background: etcd does not even begin its answer before there is something to say.
        tokio::spawn(async move {
            let mut answers = match client.watch(request).await {
                Ok(answers) => answers.into_inner(),
                Err(status) => return drop(forward.send(Err(status)).await),
            };
            while let Some(answer) = answers.message().await.transpose() {
                if forward.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Watching { requests, answers }
    }
}

/// A stream of watches.
pub(crate) struct Watching {
    pub(crate) requests: mpsc::Sender<pb::WatchRequest>,
    pub(crate) answers: mpsc::Receiver<Result<pb::WatchResponse, Status>>,
}

impl Watching {
    pub(crate) async fn send(&self, request: pb::watch_request::RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    pub(crate) async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(pb::watch_request::RequestUnion::CreateRequest(request)).await;
        let created = self.answer().await;
        assert!(created.created, "{created:?}");
        created
    }

    pub(crate) async fn ask_progress(&self) {
        let ask = pb::WatchProgressRequest {};
        self.send(pb::watch_request::RequestUnion::ProgressRequest(ask)).await;
    }

    pub(crate) async fn cancel(&self, watch_id: i64) {
        let cancel = pb::WatchCancelRequest { watch_id };
        self.send(pb::watch_request::RequestUnion::CancelRequest(cancel)).await;
    }

    pub(crate) async fn answer(&mut self) -> pb::WatchResponse {
        self.next().await.unwrap()
    }

    pub(crate) async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await.expect("an answer in time");
        answer.expect("the stream goes on")
    }

    /// The next so many events.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<sampan_etcd::proto::mvccpb::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.answer().await.events);
        }
        assert_eq!(events.len(), count);
        events
    }
}

pub(crate) fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// All keys that begin with `prefix`.
pub(crate) fn prefix(prefix: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key(prefix), range_end: end_of(prefix), ..Default::default() }
}

pub(crate) fn end_of(prefix: &str) -> Bytes {
    sampan_store::prefix_end(prefix.as_bytes())
}

/// Runs a program to its end; its output, both kinds, and whether it succeeded.
pub(crate) fn run(program: &str, args: &[&str], dir: &Path) -> (bool, String) {
    let output = Command::new(program).args(args).current_dir(dir).env("ETCDCTL_API", "3").output();
    let output = output.unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
