//! Over the network: certificates, tokens, HTTP/1.1 and HTTP/2, an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sampan_apiserver::Revocations;
use sampan_apiserver::pki::{Identity, MachineRole, Moment};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{Cluster, PATIENCE, cluster, cluster_with};

struct Served {
    cluster: Cluster,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn served() -> Served {
    serve(cluster().await).await
}

async fn serve(cluster: Cluster) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (server, token) = (cluster.server.clone(), stop.clone());
    let task = tokio::spawn(async move { server.serve(listener, token).await.unwrap() });
    Served { cluster, address, stop, task }
}

enum Connection {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Served {
    async fn connect(&self, identity: Option<&Identity>, protocol: &str) -> Connection {
        let stream = self.connect_tls(identity, protocol, self.cluster.pki.ca_pem()).await;
        let io = TokioIo::new(stream);
        if protocol == "h2" {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Connection::Two(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Connection::One(sender)
        }
    }

    async fn connect_tls(
        &self,
        identity: Option<&Identity>,
        protocol: &str,
        roots_pem: String,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(roots_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let certificate =
                    CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        stream
    }
}

impl Connection {
    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if matches!(self, Self::Two(_)) {
            request = Request::builder().method(Method::GET).uri(format!("https://localhost{path}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).unwrap();
        let sent = async {
            match self {
                Self::One(sender) => sender.send_request(request).await,
                Self::Two(sender) => sender.send_request(request).await,
            }
        };
        tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap()
    }

    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        let response = self.send(Method::GET, path, headers).await;
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

#[tokio::test]
async fn certificates_tell_who_is_there_over_both_protocols() {
    let served = served().await;
    let pki = &served.cluster.pki;
    let jane = pki.issue_client("jane", &["devs"]).unwrap();
    for protocol in ["h2", "http/1.1"] {
        let mut admin = served.connect(Some(&pki.admin()), protocol).await;
        let (code, list) = admin.get("/api/v1/namespaces", &[]).await;
        assert_eq!(code, 200, "{list}");
        assert_eq!(list["items"].as_array().unwrap().len(), 4);
        let (code, refusal) = served.connect(Some(&jane), protocol).await.get("/api/v1/nodes", &[]).await;
        assert_eq!(code, 403);
        assert!(refusal["message"].as_str().unwrap().contains("User \"jane\""));
        let mut nobody = served.connect(None, protocol).await;
        assert_eq!(nobody.get("/api/v1/nodes", &[]).await.0, 401);
        assert_eq!(nobody.get("/apis", &[]).await.0, 401);
        assert_eq!(nobody.get("/healthz", &[]).await.0, 200);
        assert_eq!(nobody.get("/version", &[]).await.0, 200);
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_turned_away() {
    let served = served().await;
    let stranger = cluster().await.pki.admin();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(served.cluster.pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(stranger.certificate_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(stranger.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let refused = async {
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder().uri("/api/v1/namespaces").header("host", "localhost");
        let response = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(response.status())
    };
    assert!(tokio::time::timeout(PATIENCE, refused).await.unwrap().is_err());
}

#[tokio::test]
async fn tokens_are_taken_and_identities_cannot_be_claimed() {
    let served = served().await;
    served.cluster.service_account().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = served.cluster.post(path, &json!({})).await.expect(201);
    let bearer = format!("Bearer {}", token["status"]["token"].as_str().unwrap());
    let mut nobody = served.connect(None, "http/1.1").await;
    let (code, refusal) = nobody.get("/api/v1/nodes", &[("authorization", &bearer)]).await;
    assert_eq!(code, 403);
    assert!(refusal["message"].as_str().unwrap().contains("User \"system:serviceaccount:default:default\""));
    assert_eq!(nobody.get("/api/v1/nodes", &[("authorization", "Bearer rubbish")]).await.0, 401);
    let forged = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
    assert_eq!(nobody.get("/api/v1/nodes", &forged).await.0, 401);
}

#[tokio::test]
async fn many_watches_share_one_connection_and_end_with_the_server() {
    let served = served().await;
    let mut admin = served.connect(Some(&served.cluster.pki.admin()), "h2").await;
    let mut watches = Vec::new();
    for _ in 0..300 {
        let response = admin.send(Method::GET, "/api/v1/configmaps?watch=true", &[]).await;
        assert_eq!(response.status(), 200);
        watches.push(response.into_body());
    }
    served.cluster.config_map("a", json!({})).await;
    for watch in &mut watches {
        let frame = tokio::time::timeout(PATIENCE, watch.frame()).await.unwrap().unwrap().unwrap();
        let event: Value = serde_json::from_slice(&frame.into_data().unwrap()).unwrap();
        assert_eq!(event["object"]["metadata"]["name"], "a");
    }
    served.stop.cancel();
    for watch in watches {
        let rest = tokio::time::timeout(PATIENCE, watch.collect()).await.unwrap().unwrap();
        assert!(rest.to_bytes().is_empty());
    }
    tokio::time::timeout(PATIENCE, served.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_kubeconfig_is_all_that_a_client_needs() {
    let served = served().await;
    let text = served.cluster.pki.admin_kubeconfig(&format!("https://{}", served.address));
    let value: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(value["clusters"][0]["cluster"]["server"], format!("https://{}", served.address));
    let parsed: kube::config::Kubeconfig = serde_json::from_value(value).unwrap();
    assert_eq!(parsed.current_context.as_deref(), Some("sampan"));
    assert_eq!(parsed.auth_infos.len(), 1);
}

/// Echoes one message on connections of its own protocol.
struct Echo(tokio::sync::mpsc::UnboundedSender<Vec<CertificateDer<'static>>>);

impl sampan_apiserver::Handover for Echo {
    fn protocol(&self) -> &[u8] {
        b"echo/1"
    }

    fn adopt(
        &self,
        mut stream: tokio_rustls::server::TlsStream<TcpStream>,
        chain: Vec<CertificateDer<'static>>,
        remote: SocketAddr,
    ) {
        assert!(remote.ip().is_loopback());
        self.0.send(chain).unwrap();
        tokio::spawn(async move {
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        });
    }
}

#[tokio::test]
async fn connections_of_another_protocol_are_handed_over() {
    let (sender, mut adopted) = tokio::sync::mpsc::unbounded_channel();
    let storage = Arc::new(sampan_store::MemoryStore::new());
    let served =
        serve(cluster_with(storage, |config| config.handover = Some(Arc::new(Echo(sender)))).await).await;
    let pki = &served.cluster.pki;
    let jane = pki.issue_client("jane", &["devs"]).unwrap();
    let mut stream = served.connect_tls(Some(&jane), "echo/1", pki.ca_pem()).await;
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).await.unwrap();
    assert_eq!(echoed, b"hello");
    let chain = adopted.recv().await.unwrap();
    assert_eq!(chain, [CertificateDer::from_pem_slice(jane.certificate_pem.as_bytes()).unwrap()]);
    // With its machine certificate, which another authority signed, a server shows that one there.
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = request.self_signed(&key).unwrap();
    let machine = Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    pki.set_machine(b"echo/1", &machine).unwrap();
    let stream = served.connect_tls(None, "echo/1", machine.certificate_pem.clone()).await;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown, CertificateDer::from_pem_slice(machine.certificate_pem.as_bytes()).unwrap());
    // Everything else goes on.
    let mut admin = served.connect(Some(&pki.admin()), "h2").await;
    assert_eq!(admin.get("/api/v1/namespaces", &[]).await.0, 200);
}

/// Whoever is in the list is out.
#[derive(Default)]
struct Out {
    keys: parking_lot::Mutex<Vec<String>>,
    changes: tokio::sync::watch::Sender<u64>,
}

impl Revocations for Out {
    fn refusal(&self, user: &str, key: &str) -> Option<String> {
        self.keys.lock().iter().any(|out| out == key).then(|| format!("{user} was removed"))
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[tokio::test]
async fn a_revoked_machine_is_out_with_all_that_it_has_open() {
    let out = Arc::new(Out::default());
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit");
    let storage = Arc::new(sampan_store::MemoryStore::new());
    let cluster = cluster_with(storage, |config| {
        config.revocations = Some(Arc::clone(&out) as Arc<dyn Revocations>);
        config.audit = Some(log.clone());
    })
    .await;
    let served = serve(cluster).await;
    let machine = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let pki = &served.cluster.pki;
        let certificate_pem = pki.issue_machine(MachineRole::Node, name, &request).unwrap();
        Identity { certificate_pem, key_pem: key.serialize_pem() }
    };
    let (lost, kept) = (machine("lost"), machine("kept"));
    let mut watches = Vec::new();
    for identity in [&lost, &kept] {
        for protocol in ["h2", "http/1.1"] {
            let mut connection = served.connect(Some(identity), protocol).await;
            let response = connection.send(Method::GET, "/api/v1/configmaps?watch=true", &[]).await;
            assert_eq!(response.status(), 200);
            watches.push((connection, response.into_body()));
        }
    }
    let certificate = CertificateDer::from_pem_slice(lost.certificate_pem.as_bytes()).unwrap();
    let user = sampan_apiserver::certificate_user(&certificate).unwrap();
    out.keys.lock().push(user.extra[sampan_apiserver::KEY_EXTRA][0].clone());
    out.changes.send_modify(|count| *count += 1);
    for (_, watch) in &mut watches[..2] {
        let ended = tokio::time::timeout(PATIENCE, watch.frame()).await.unwrap();
        assert!(!matches!(ended, Some(Ok(_))), "the watch ends with its connection");
    }
    served.cluster.config_map("a", json!({})).await;
    for (_, watch) in &mut watches[2..] {
        let frame = tokio::time::timeout(PATIENCE, watch.frame()).await.unwrap().unwrap().unwrap();
        assert!(frame.is_data(), "the other machine's go on");
    }
    let mut again = served.connect(Some(&lost), "http/1.1").await;
    let (code, refusal) = again.get("/api/v1/nodes", &[]).await;
    assert_eq!(code, 401);
    assert_eq!(refusal["message"], "system:node:lost was removed");
    let begun = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).unwrap();
        let entry = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(entry) = entry.into_iter().find(|entry| entry["responseStatus"]["code"] == 401) {
            assert_eq!(entry["responseStatus"]["message"], "system:node:lost was removed");
            assert_eq!(entry["user"]["username"], "system:node:lost");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_whose_clock_is_years_ahead_takes_machines_and_no_expired_people() {
    let served = served().await;
    let pki = &served.cluster.pki;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let certificate_pem = pki.issue_machine(MachineRole::Node, "n1", &request).unwrap();
    let (machine, person) = (Identity { certificate_pem, key_pem: key.serialize_pem() }, pki.admin());
    let answered = async |identity: &Identity| {
        let mut stream = served.connect_tls(Some(identity), "http/1.1", pki.ca_pem()).await;
        let asked = b"GET /api/v1/nodes HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut text = Vec::new();
        let asking = async {
            stream.write_all(asked).await?;
            stream.read_to_end(&mut text).await
        };
        let read = tokio::time::timeout(PATIENCE, asking).await.unwrap();
        read.is_ok() && text.starts_with(b"HTTP/1.1 200")
    };
    assert!(answered(&machine).await && answered(&person).await);
    let year = jiff::SignedDuration::from_hours(365 * 24);
    let known = |floor: i32, likely: i32| {
        let now = jiff::Timestamp::now();
        let moment = Moment { floor: now + year * floor, likely: now + year * likely };
        pki.set_time(Arc::new(move || moment));
    };
    known(0, 7);
    assert!(answered(&machine).await, "nothing is proven");
    assert!(!answered(&person).await, "the most likely time is past its end");
    known(-50, -50);
    assert!(answered(&machine).await, "a clock that begins in the past");
    known(2, 2);
    assert!(!answered(&machine).await && !answered(&person).await, "it is proven");
}
