//! Finding each other, again and again: blocked UDP, moves, restarts, renewed credentials.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sampan_transport::{Credentials, Endpoint, Identity, Purpose, Role, Target, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Authority, Cluster, Machine, config, listen_tcp, target};

#[tokio::test]
async fn where_udp_is_blocked_tcp_stands_in_if_allowed() {
    // Longer than a loaded machine takes for a handshake, so that TCP is seen not to wait for it.
    let cluster = Cluster::with(|_| {}, |c| c.handshake_timeout = Duration::from_secs(4));
    let (address, _listener) = listen_tcp(&cluster.server).await;
    let error = cluster.node.connect(&target(address)).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    let begun = Instant::now();
    let target = Target { allow_tcp: true, ..target(address) };
    let connection = cluster.node.connect(&target).await.unwrap();
    assert!(!connection.is_quic());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(connection.remote(), address);
}

#[tokio::test]
async fn where_udp_works_it_is_quic() {
    let cluster = Cluster::new();
    let target = Target { allow_tcp: true, ..cluster.target() };
    assert!(cluster.node.connect(&target).await.unwrap().is_quic());
}

#[tokio::test]
async fn the_first_address_that_answers_rightly_wins() {
    let cluster = Cluster::new();
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let stranger_authority = Authority::new("others");
    let stranger = Machine::new(Role::Server, "one").credentials(&stranger_authority, &[&stranger_authority]);
    let stranger = Endpoint::bind(config(stranger)).unwrap();
    let addresses = vec![
        deaf.local_addr().unwrap().to_string(),
        "nowhere.invalid:6443".to_owned(),
        stranger.local_address().to_string(),
        format!("localhost:{}", cluster.server.local_address().port()),
    ];
    let begun = Instant::now();
    let target = Target { addresses, ..cluster.target() };
    let connection = cluster.node.connect(&target).await.unwrap();
    assert_eq!(connection.peer().key, cluster.server_key);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // Without the right one, the answer of the stranger is what is told.
    let mut target = target;
    target.addresses.pop();
    let error = cluster.node.connect(&target).await.unwrap_err();
    assert!(matches!(error, TransportError::UnknownAuthority(_)), "{error:?}");
}

#[tokio::test]
async fn a_node_that_moves_keeps_its_connection_and_its_streams() {
    let cluster = Cluster::new();
    let (node, server) = cluster.pair(crate::support::Kind::Quic).await;
    let mut out = node.open(Purpose::Control).await.unwrap();
    let (_, mut inn) = server.accept().await.unwrap();
    let before = server.remote();
    out.write_all(b"here").await.unwrap();
    inn.read_exact(&mut [0; 4]).await.unwrap();
    cluster.node.rebind("127.0.0.1:0".parse().unwrap()).unwrap();
    out.write_all(b"there").await.unwrap();
    timeout(Duration::from_secs(2), inn.read_exact(&mut [0; 5])).await.unwrap().unwrap();
    inn.write_all(b"seen").await.unwrap();
    timeout(Duration::from_secs(2), out.read_exact(&mut [0; 4])).await.unwrap().unwrap();
    assert_ne!(server.remote(), before);
    assert_eq!(server.remote(), cluster.node.local_address());
    assert_eq!((node.close_reason(), server.close_reason()), (None, None));
}

/// A server on a thread and runtime of its own, which vanish without a word, as with `kill -9`.
struct Killable {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
}

impl Killable {
    fn start(credentials: &Credentials, listen: SocketAddr) -> Option<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut config = config(credentials.clone());
        config.listen = listen;
        let endpoint = runtime.block_on(async { Endpoint::bind(config) }).ok()?;
        let address = endpoint.local_address();
        runtime.spawn(async move {
            while let Some(connection) = endpoint.accept().await {
                tokio::spawn(async move {
                    while let Ok((_, stream)) = connection.accept().await {
                        tokio::spawn(async move {
                            let (mut read, mut write) = stream.split();
                            let _ = tokio::io::copy(&mut read, &mut write).await;
                        });
                    }
                });
            }
        });
        Some(Self { runtime: Some(runtime), address })
    }

    fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_is_back_says_so_within_300_ms() {
    let authority = Authority::new("machines");
    let credentials = Machine::new(Role::Server, "one").credentials(&authority, &[&authority]);
    let node = Machine::new(Role::Node, "edge").credentials(&authority, &[&authority]);
    let node = Endpoint::bind(config(node)).unwrap();
    let start = |listen: SocketAddr| {
        let credentials = credentials.clone();
        tokio::task::spawn_blocking(move || Killable::start(&credentials, listen))
    };
    let first = start("127.0.0.1:0".parse().unwrap()).await.unwrap().unwrap();
    let address = first.address;
    let connection = node.connect(&target(address)).await.unwrap();
    let mut stream = connection.open(Purpose::Control).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    tokio::task::spawn_blocking(move || first.kill()).await.unwrap();
    let (_, mut write) = stream.split();
    let writing = tokio::spawn(async move {
        while write.write_all(b"still there?").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(connection.close_reason(), None, "it was not killed but closed");
    let second = loop {
        if let Some(second) = start(address).await.unwrap() {
            break second;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let back = Instant::now();
    let why = timeout(Duration::from_secs(3), connection.closed()).await.unwrap();
    assert_eq!(why, "the peer restarted");
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    writing.await.unwrap();
    node.connect(&target(address)).await.unwrap();
    drop(second);
}

#[tokio::test]
async fn authorities_and_certificates_are_exchanged_while_connections_stand() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (server_machine, node_machine) =
        (Machine::new(Role::Server, "one"), Machine::new(Role::Node, "edge"));
    let endpoint = |machine: &Machine| Endpoint::bind(config(machine.credentials(&old, &[&old]))).unwrap();
    let (server, node) = (endpoint(&server_machine), endpoint(&node_machine));
    let target = target(server.local_address());
    let (first, accepted) = tokio::join!(node.connect(&target), server.accept());
    let (first, accepted) = (first.unwrap(), accepted.unwrap());
    // The server's certificate is by the new authority, and it still believes the old one.
    server.identity().replace(server_machine.credentials(&new, &[&new, &old])).unwrap();
    let error = node.connect(&target).await.unwrap_err();
    assert!(matches!(error, TransportError::UnknownAuthority(_)), "{error:?}");
    // The node learns of the new authority; its certificate is still by the old one.
    node.identity().replace(node_machine.credentials(&old, &[&old, &new])).unwrap();
    node.connect(&target).await.unwrap();
    // The old one goes.
    server.identity().replace(server_machine.credentials(&new, &[&new])).unwrap();
    let error = node.connect(&target).await.unwrap_err();
    assert!(matches!(error, TransportError::UnknownToPeer(_)), "{error:?}");
    node.identity().replace(node_machine.credentials(&new, &[&new])).unwrap();
    node.connect(&target).await.unwrap();
    // What stood all the while still stands.
    let mut stream = first.open(Purpose::Control).await.unwrap();
    let (_, mut taken) = accepted.accept().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    taken.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_used_from_then_on() {
    let authority = Authority::new("machines");
    let mut machine = Machine::new(Role::Server, "one");
    let identity = Identity::new(machine.credentials(&authority, &[&authority])).unwrap();
    let before = identity.not_after();
    machine.valid.1 += 365;
    identity.replace(machine.credentials(&authority, &[&authority])).unwrap();
    assert_eq!(identity.not_after(), before + Duration::from_secs(365 * 86_400));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_is_refused() {
    let authority = Authority::new("machines");
    let credentials = || Machine::new(Role::Server, "one").credentials(&authority, &[&authority]);
    let first = Endpoint::bind(config(credentials())).unwrap();
    let mut taken = config(credentials());
    taken.listen = first.local_address();
    let error = Endpoint::bind(taken).unwrap_err();
    assert!(matches!(error, TransportError::Bind { .. }), "{error:?}");
    let mut restless = config(credentials());
    restless.keep_alive = restless.idle_timeout;
    let error = Endpoint::bind(restless).unwrap_err();
    assert!(matches!(error, TransportError::Settings(_)), "{error:?}");
}

#[tokio::test]
async fn a_machine_that_only_dials_does_not_answer() {
    let authority = Authority::new("machines");
    let credentials = |role, name| Machine::new(role, name).credentials(&authority, &[&authority]);
    let mut quick = config(credentials(Role::Server, "one"));
    quick.handshake_timeout = Duration::from_millis(700);
    let server = Endpoint::bind(quick).unwrap();
    let node = Endpoint::bind_dialler(config(credentials(Role::Node, "edge"))).unwrap();
    let back = Target { role: Role::Node, ..target(node.local_address()) };
    assert!(server.connect(&back).await.unwrap_err().is_unreachable());
    node.connect(&target(server.local_address())).await.unwrap();
}
