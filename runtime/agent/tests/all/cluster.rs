//! Servers (an API server each, over one store or their own), nodes, and ways to wait.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::PrivateKeyDer;
use sampan_agent::{
    Agent, AgentConfig, Gateway, Link, LinkConfig, NodeRouter, ServerInfo, Servers, ServersView, Timing,
};
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_apiserver::{ApiServer, Config, UserInfo};
use sampan_store::{MemoryStore, Storage};
use sampan_transport::{
    Clock, Connection, Credentials, Endpoint, EndpointConfig, Identity, KeyId, Purpose, Role, Skew, Stream,
    Target, Testimony, TransportError, server_tls_config,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Who signs machines' certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn credentials(&self, role: Role, name: &str, key: &KeyPair) -> Credentials {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, role.organization());
        params.distinguished_name.push(DnType::CommonName, format!("{}{name}", role.prefix()));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(key, &self.0).unwrap();
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            roots: vec![self.0.der().clone()],
        }
    }
}

/// The system's clock; how far it is off is what a test says.
pub struct TestClock(pub Option<Skew>);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
    fn floor(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    fn observe(&self, _: &Testimony) {}
    fn clock_skew(&self) -> Option<Skew> {
        self.0
    }
}

fn endpoint(credentials: Credentials, listen: SocketAddr) -> Endpoint {
    let identity = Identity::new(credentials).unwrap();
    let mut config = EndpointConfig::new(listen, identity, [7; 64], Arc::new(TestClock(None)));
    config.handshake_timeout = Duration::from_secs(5);
    config.keep_alive = Duration::from_millis(300);
    config.idle_timeout = Duration::from_millis(1500);
    Endpoint::bind(config).unwrap()
}

/// The servers of a test, as each of them sees the others.
pub struct Peers {
    view: watch::Sender<ServersView>,
    /// The endpoint of the server whose view this is.
    own: Mutex<Option<Endpoint>>,
}

#[async_trait]
impl Servers for Peers {
    fn view(&self) -> watch::Receiver<ServersView> {
        self.view.subscribe()
    }

    async fn open(&self, server: &ServerInfo, purpose: Purpose) -> Result<Stream, TransportError> {
        let endpoint = self.own.lock().clone().unwrap();
        let target = Target {
            addresses: server.addresses.clone(),
            role: Role::Server,
            key: Some(server.key),
            allow_tcp: true,
        };
        let connection = endpoint.connect(&target).await?;
        let stream = connection.open(purpose).await?;
        // The connection lives as long as its handle here: longer than any test.
        std::mem::forget(connection);
        Ok(stream)
    }
}

pub struct TestServer {
    pub name: String,
    pub key: KeyId,
    pub api: ApiServer,
    pub gateway: Gateway,
    pub endpoint: Endpoint,
    pub peers: Arc<Peers>,
    credentials: Credentials,
    task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start(authority: &Authority, name: &str, storage: Arc<dyn Storage>) -> Self {
        let key = KeyPair::generate().unwrap();
        let credentials = authority.credentials(Role::Server, name, &key);
        let key = KeyId::of_spki(&key.subject_public_key_info());
        let peers = Arc::new(Peers { view: watch::Sender::default(), own: Mutex::default() });
        let gateway = Gateway::new(key, peers.clone());
        let pki = Arc::new(Pki::in_memory(ServingNames::new([], [])).unwrap());
        let mut config = Config::new(storage, pki, "127.0.0.1:6443");
        config.nodes = Some(Arc::new(gateway.clone()));
        let api = ApiServer::new(config).await.unwrap();
        gateway.attach(api.clone());
        let endpoint = endpoint(credentials.clone(), "127.0.0.1:0".parse().unwrap());
        *peers.own.lock() = Some(endpoint.clone());
        let task = tokio::spawn(accept(endpoint.clone(), gateway.clone()));
        Self { name: name.into(), key, api, gateway, endpoint, peers, credentials, task }
    }

    pub fn address(&self) -> String {
        self.endpoint.local_address().to_string()
    }

    pub fn info(&self) -> ServerInfo {
        ServerInfo { name: self.name.clone(), key: self.key, addresses: vec![self.address()] }
    }

    pub fn admin(&self) -> kube::Client {
        kube::Client::new(self.api.service(UserInfo::admin("admin")), "default")
    }

    /// It is gone from one moment to the next, for the network.
    pub async fn vanish(&mut self) {
        self.task.abort();
        self.endpoint.close("the server is going down").await;
    }

    /// It is there again, at the same address.
    pub async fn reappear(&mut self) {
        let listen = self.endpoint.local_address();
        // The last handle of the old socket goes with it.
        let placeholder = endpoint(self.credentials.clone(), "127.0.0.1:0".parse().unwrap());
        *self.peers.own.lock() = Some(placeholder.clone());
        self.endpoint = placeholder;
        let begun = Instant::now();
        let endpoint = loop {
            let identity = Identity::new(self.credentials.clone()).unwrap();
            let config = EndpointConfig::new(listen, identity, [7; 64], Arc::new(TestClock(None)));
            match Endpoint::bind(config) {
                Ok(endpoint) => break endpoint,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        *self.peers.own.lock() = Some(endpoint.clone());
        self.task = tokio::spawn(accept(endpoint.clone(), self.gateway.clone()));
        self.endpoint = endpoint;
    }

    /// A TCP listener that hands connections over, on a port whose UDP side swallows everything.
    pub async fn listen_tcp(&self) -> String {
        let (listener, swallows) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = std::net::UdpSocket::bind(listener.local_addr().unwrap()) {
                break (listener, udp);
            }
        };
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_tls_config(self.endpoint.identity()).unwrap()));
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            let _swallows = swallows;
            while let Ok((socket, remote)) = listener.accept().await {
                let Ok(tls) = acceptor.accept(socket).await else { continue };
                let chain = tls.get_ref().1.peer_certificates().unwrap().to_vec();
                endpoint.adopt(tls, chain, remote).unwrap();
            }
        });
        address.to_string()
    }
}

/// What a server's accept loop does.
async fn accept(endpoint: Endpoint, gateway: Gateway) {
    while let Some(connection) = endpoint.accept().await {
        let gateway = gateway.clone();
        tokio::spawn(async move {
            match connection.peer().role {
                Role::Node => gateway.serve(connection).await,
                Role::Server => serve_peer(connection, gateway).await,
            }
        });
    }
}

async fn serve_peer(connection: Connection, gateway: Gateway) {
    while let Ok((purpose, stream)) = connection.accept().await {
        let gateway = gateway.clone();
        if purpose == Purpose::Relay {
            tokio::spawn(async move { gateway.serve_relay(stream).await });
        }
    }
}

/// Tells all servers who they are and who leads.
pub fn tell(servers: &[&TestServer], leader: Option<&TestServer>) {
    let view = ServersView {
        servers: servers.iter().map(|server| server.info()).collect(),
        leader: leader.map(|leader| leader.key),
    };
    for server in servers {
        server.peers.view.send_replace(view.clone());
    }
}

/// One store, and some servers over it.
pub async fn servers<const N: usize>(authority: &Authority, names: [&str; N]) -> [TestServer; N] {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStore::new());
    let mut all = Vec::new();
    for name in names {
        all.push(TestServer::start(authority, name, storage.clone()).await);
    }
    all.try_into().map_err(|_| "as many as names").unwrap()
}

pub const FAST: Timing = Timing {
    retry: Duration::from_millis(50),
    retry_max: Duration::from_millis(400),
    move_spread: Duration::from_millis(50),
    quic_again: Duration::from_millis(100),
    drain: Duration::from_secs(2),
};

pub fn node_endpoint(authority: &Authority, name: &str) -> Endpoint {
    let key = KeyPair::generate().unwrap();
    endpoint(authority.credentials(Role::Node, name, &key), "127.0.0.1:0".parse().unwrap())
}

/// A node's link, and what keeps it.
pub struct TestLink {
    pub link: Link,
    pub router: NodeRouter,
    pub endpoint: Endpoint,
    pub dir: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl TestLink {
    pub fn start(authority: &Authority, name: &str, seeds: Vec<String>) -> Self {
        let (dir, endpoint) = (tempfile::tempdir().unwrap(), node_endpoint(authority, name));
        let (router, stop) = (NodeRouter::new(name), CancellationToken::new());
        let config = LinkConfig {
            endpoint: endpoint.clone(),
            seeds,
            directory: dir.path().to_owned(),
            router: router.clone(),
            timing: FAST,
        };
        let (link, _) = Link::start(config, stop.clone()).unwrap();
        Self { link, router, endpoint, dir, _stop: stop.drop_guard() }
    }

    /// Waits until it is connected to this server.
    pub async fn at(&self, server: &TestServer) {
        let mut state = self.link.state();
        let there = state.wait_for(|s| s.connected.as_ref().is_some_and(|c| c.key == server.key));
        tokio::time::timeout(PATIENCE, there).await.expect("it connects").unwrap();
    }
}

/// An agent over a directory that outlives it.
pub async fn agent(authority: &Authority, dir: &Path, servers: Vec<String>) -> Agent {
    let mut config = AgentConfig::new("n1", dir, node_endpoint(authority, "n1"), servers);
    config.timing = FAST;
    config.first_wait = Duration::from_millis(300);
    Agent::start(config).await.unwrap()
}

pub fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// What a pod of the namespace `default` on the node `n1` needs.
pub async fn furnish(client: &kube::Client) {
    let post = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.create(&post, &from(json!({"metadata": {"name": "default"}}))).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    for (name, data) in [("kube-root-ca.crt", json!({"ca.crt": "x"})), ("files", json!({"f": "plain text"}))]
    {
        maps.create(&post, &from(json!({"metadata": {"name": name}, "data": data}))).await.unwrap();
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let secret = json!({"metadata": {"name": "keys"}, "stringData": {"k": "a well kept secret"}});
    secrets.create(&post, &from(secret)).await.unwrap();
}

/// A pod that shows a secret and a config map.
pub async fn pod(client: &kube::Client, name: &str, command: &[&str]) -> Pod {
    let pod = json!({"metadata": {"name": name}, "spec": {
        "nodeName": "n1",
        "volumes": [
            {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "files", "configMap": {"name": "files"}}
        ],
        "containers": [{
            "name": "a", "image": "there:1", "command": command,
            "volumeMounts": [{"name": "keys", "mountPath": "/k"}, {"name": "files", "mountPath": "/f"}]
        }]
    }});
    Api::<Pod>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &from(pod))
        .await
        .unwrap()
}

pub async fn node(client: &kube::Client, name: &str) -> Node {
    let node = from(json!({"metadata": {"name": name}}));
    Api::all(client.clone()).create(&PostParams::default(), &node).await.unwrap()
}

pub async fn namespace_uid(client: &kube::Client, name: &str) -> Option<String> {
    Api::<Namespace>::all(client.clone()).get(name).await.unwrap().metadata.uid
}

/// Waits for something to be there.
pub async fn eventually<T, Fut>(what: &str, mut look: impl FnMut() -> Fut) -> T
where
    Fut: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
