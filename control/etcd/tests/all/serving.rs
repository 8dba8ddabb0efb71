//! Who may connect, and what is refused by name.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::etcdserverpb::auth_client::AuthClient;
use sampan_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use sampan_etcd::proto::etcdserverpb::request_op::Request;
use sampan_etcd::{Admit, EtcdServer, Lessor, Listener, Options, Security, Standalone};
use sampan_store::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::leases::Fickle;
use crate::support::{clients, key, ours, ours_with, prefix};

fn said<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn plaintext_stays_on_the_machine() {
    let refused = Listener::bind("0.0.0.0:0".parse().unwrap(), Security::Plaintext).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the etcd API is served in plaintext on loopback addresses only; 0.0.0.0:0 needs mutual TLS"
    );
    for loopback in ["127.0.0.1:0", "127.8.9.1:0", "[::ffff:127.0.0.1]:0"] {
        let address: SocketAddr = loopback.parse().unwrap();
        // Where the machine lacks the address, that is another refusal.
        if let Err(error) = Listener::bind(address, Security::Plaintext).await {
            assert!(!error.to_string().contains("plaintext"), "{loopback}: {error}");
        }
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn sign(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Arc::new(roots)
    }
}

/// Connects, and speaks HTTP/2 far enough to see whether somebody is there.
async fn greet(address: SocketAddr, config: ClientConfig) -> std::io::Result<()> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut frame = [0; 9];
    tls.read_exact(&mut frame).await?;
    assert_eq!(frame[3], 4, "settings");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_clients_must_show_a_certificate_that_may() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (chain, private) = authority.sign("localhost");
    let verifier = WebPkiClientVerifier::builder(authority.roots()).build().unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier);
    let config = Arc::new(config.with_single_cert(chain, private).unwrap());
    let (admin, admin_key) = authority.sign("admin");
    let allowed = admin.clone();
    let admit: Admit =
        Arc::new(
            move |shown: &[CertificateDer<'_>]| {
                if shown == allowed { Ok(()) } else { Err("it is no administrator's".to_owned()) }
            },
        );
    let listener =
        Listener::bind("0.0.0.0:0".parse().unwrap(), Security::MutualTls { config, admit }).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], listener.local_address().port()));
    let (storage, view) = (Arc::new(MemoryStore::new()), Arc::new(Standalone));
    let lessor = Lessor::new(storage.clone(), view.clone());
    let server = EtcdServer::new(storage, view, lessor, Options::default());
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.serve(listener, stop.clone()));

    let client = |shows: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>| {
        let builder = ClientConfig::builder().with_root_certificates(authority.roots());
        let mut config = match shows {
            Some((chain, private)) => builder.with_client_auth_cert(chain, private).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    };
    greet(address, client(Some((admin, admin_key)))).await.unwrap();
    assert!(greet(address, client(None)).await.is_err(), "no certificate");
    assert!(greet(address, client(Some(stranger.sign("admin")))).await.is_err(), "another authority's");
    assert!(greet(address, client(Some(authority.sign("node")))).await.is_err(), "one that may not");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert_ne!(answer.first(), Some(&0), "no HTTP/2 in plaintext: {answer:?}");
    stop.cancel();
    served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_own_keys_cannot_be_touched() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    clients.grant(3, 60).await.unwrap();
    clients.put_text("/sampanx", "v").await;
    let put = |name: &str| pb::PutRequest { key: key(name), ..Default::default() };
    let (code, text) = said(clients.put(put("/sampan/leases/0000000000000003")).await);
    assert_eq!(
        (code, &*text),
        (Code::PermissionDenied, "etcdserver: permission denied: keys under /sampan/ are the cluster's own")
    );
    let delete =
        pb::DeleteRangeRequest { key: key("/sampan/"), range_end: key("/sampan0"), ..Default::default() };
    assert_eq!(said(clients.delete(delete.clone()).await).0, Code::PermissionDenied);
    for request in [Request::RequestPut(put("/sampan/x")), Request::RequestDeleteRange(delete)] {
        let txn =
            pb::TxnRequest { success: vec![pb::RequestOp { request: Some(request) }], ..Default::default() };
        assert_eq!(said(clients.txn(txn).await).0, Code::PermissionDenied);
    }
    let compare = pb::Compare { key: key("/sampan/x"), ..Default::default() };
    let txn = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    assert_eq!(said(clients.txn(txn).await).0, Code::PermissionDenied);
    // Ranges over everything go around them.
    let all = pb::RangeRequest { key: key("\0"), range_end: key("\0"), limit: 1, ..Default::default() };
    let found = clients.range(all.clone()).await.unwrap();
    assert_eq!((found.kvs.len(), found.count, found.more), (1, 1, false));
    assert_eq!(clients.range(pb::RangeRequest { count_only: true, ..all }).await.unwrap().count, 1);
    assert_eq!(clients.range(prefix("/sampan/")).await.unwrap().count, 0);
    let everything = pb::DeleteRangeRequest { key: key("\0"), range_end: key("\0"), prev_kv: true };
    let deleted = clients.delete(everything).await.unwrap();
    assert_eq!((deleted.deleted, &*deleted.prev_kvs[0].key), (1, &b"/sampanx"[..]));
    assert_eq!(clients.leases().await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_etcds() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let large =
        |size: usize| pb::PutRequest { key: key("k"), value: vec![1; size].into(), ..Default::default() };
    clients.put(large(1_500_000)).await.unwrap();
    let (code, text) = said(clients.put(large(1_600_000)).await);
    assert_eq!((code, &*text), (Code::InvalidArgument, "etcdserver: request is too large"));
    let op = || pb::RequestOp { request: Some(Request::RequestRange(prefix("none"))) };
    let ops =
        |count: usize| pb::TxnRequest { success: (0..count).map(|_| op()).collect(), ..Default::default() };
    assert_eq!(clients.txn(ops(128)).await.unwrap().responses.len(), 128);
    let (code, text) = said(clients.txn(ops(129)).await);
    assert_eq!((code, &*text), (Code::InvalidArgument, "etcdserver: too many operations in txn request"));
    let (code, text) = said(clients.grant(1, 9_000_000_001).await);
    assert_eq!((code, &*text), (Code::OutOfRange, "etcdserver: too large lease TTL"));
    clients.grant(1, 60).await.unwrap();
    let (code, text) = said(clients.grant(1, 60).await);
    assert_eq!((code, &*text), (Code::FailedPrecondition, "etcdserver: lease already exists"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_shows_itself_and_is_changed_elsewhere() {
    let view = Fickle::new(true);
    let ours = ours_with(Arc::new(MemoryStore::new()), view.clone(), Options::default()).await;
    let channel = Channel::from_shared(format!("http://{}", ours.address)).unwrap().connect().await.unwrap();
    let mut cluster = ClusterClient::new(channel.clone());
    let list = pb::MemberListRequest { linearizable: true };
    let members = cluster.member_list(list).await.unwrap().into_inner().members;
    let shown: Vec<_> = members.iter().map(|member| (member.id, &*member.name, member.is_learner)).collect();
    assert_eq!(shown, [(1, "server-1", false), (2, "server-2", false), (3, "server-3", true)]);
    let (code, text) = said(cluster.member_remove(pb::MemberRemoveRequest { id: 2 }).await);
    assert_eq!(
        (code, &*text),
        (Code::Unimplemented, "removing a member is not supported by this store: use 'sampan member remove'")
    );
    let mut auth = AuthClient::new(channel);
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert!(!status.enabled);
    let (code, text) = said(auth.authenticate(pb::AuthRequest {}).await);
    assert_eq!((code, &*text), (Code::FailedPrecondition, "etcdserver: authentication is not enabled"));
    assert_eq!(said(auth.user_add(pb::AuthRequest {}).await).0, Code::Unimplemented);

    let clients = clients(ours.address).await;
    let mut maintenance = clients.maintenance.clone();
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.raft_index, status.raft_applied_index), (1, 5, 4));
    assert_eq!((status.db_size, status.db_size_in_use, status.header.unwrap().cluster_id), (4096, 1024, 7));
    let mut move_to = async |target_id| maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await;
    assert_eq!(said(move_to(9).await).1, "etcdserver: bad leader transferee");
    move_to(2).await.unwrap();
    assert_eq!(said(move_to(2).await).1, "etcdserver: not leader");
    view.nobody_leads();
    let status = clients.maintenance.clone().status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_stores_have_equal_hashes() {
    let (first, second) = (ours().await, ours().await);
    let (first, second) = (clients(first.address).await, clients(second.address).await);
    let hash = async |clients: &crate::support::Clients, revision| {
        let asked = clients.maintenance.clone().hash_kv(pb::HashKvRequest { revision }).await;
        asked.map(|answer| answer.into_inner().hash)
    };
    for number in 0..1500 {
        for clients in [&first, &second] {
            clients.put_text(&format!("key-{number:04}"), "v").await;
        }
    }
    assert_eq!(hash(&first, 0).await.unwrap(), hash(&second, 0).await.unwrap());
    let at = first.put_text("key-1400", "changed").await;
    assert_ne!(hash(&first, 0).await.unwrap(), hash(&second, 0).await.unwrap(), "beyond the first page");
    assert_eq!(hash(&first, at - 1).await.unwrap(), hash(&second, 0).await.unwrap());
    assert_eq!(said(hash(&first, at + 1).await).0, Code::OutOfRange);
    first.compact(at).await.unwrap();
    assert_eq!(said(hash(&first, at - 1).await).1, "etcdserver: mvcc: required revision has been compacted");
}
