//! Authorities, machines with their endpoints, and a TCP listener like the API's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::PrivateKeyDer;
use sampan_transport::{
    Clock, Connection, Credentials, Endpoint, EndpointConfig, Identity, KeyId, Role, Skew, Target, Testimony,
    server_tls_config,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// 2026-11-02, in days since 1970: what clocks of these tests call today.
pub(crate) const TODAY: u64 = 20_759;

pub(crate) fn day(n: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(n * 86_400)
}

/// An authority of machines.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }
}

/// A machine-to-be: key, role, name, and how long its certificates live (days since 1970).
pub(crate) struct Machine {
    pub(crate) key: KeyPair,
    pub(crate) role: Role,
    pub(crate) name: &'static str,
    pub(crate) valid: (u64, u64),
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Machine {
    pub(crate) fn new(role: Role, name: &'static str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Self { key: KeyPair::generate().unwrap(), role, name, valid: (TODAY - 10, TODAY + 355), usages }
    }

    pub(crate) fn key_id(&self) -> KeyId {
        KeyId::of_spki(&self.key.subject_public_key_info())
    }

    /// A certificate by `authority`, with `roots` to believe.
    pub(crate) fn credentials(&self, authority: &Authority, roots: &[&Authority]) -> Credentials {
        self.credentials_as(authority, roots, &format!("{}{}", self.role.prefix(), self.name))
    }

    pub(crate) fn credentials_as(
        &self,
        authority: &Authority,
        roots: &[&Authority],
        common_name: &str,
    ) -> Credentials {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, self.role.organization());
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages.clone_from(&self.usages);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let date = |n: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(n * 86_400);
        (params.not_before, params.not_after) = (date(self.valid.0), date(self.valid.1));
        let certificate = params.signed_by(&self.key, &authority.0).unwrap();
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(self.key.serialize_der()).unwrap(),
            roots: roots.iter().map(|root| root.0.der().clone()).collect(),
        }
    }
}

/// A clock that says what it is told to, and keeps what it hears.
#[derive(Clone)]
pub(crate) struct TestClock {
    pub(crate) now: SystemTime,
    pub(crate) floor: SystemTime,
    pub(crate) heard: Arc<Mutex<Vec<Testimony>>>,
}

impl TestClock {
    pub(crate) fn new(now: u64, floor: u64) -> Self {
        Self { now: day(now), floor: day(floor), heard: Arc::default() }
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        self.now
    }
    fn floor(&self) -> SystemTime {
        self.floor
    }
    fn observe(&self, testimony: &Testimony) {
        self.heard.lock().push(*testimony);
    }
    fn clock_skew(&self) -> Option<Skew> {
        None
    }
}

pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

pub(crate) fn config(credentials: Credentials) -> EndpointConfig {
    let identity = Identity::new(credentials).unwrap();
    let clock = Arc::new(TestClock::new(TODAY, TODAY));
    let mut config = EndpointConfig::new(LOOPBACK.parse().unwrap(), identity, [7; 64], clock);
    config.handshake_timeout = Duration::from_secs(3);
    config
}

/// A cluster with a server and a node.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    pub(crate) server: Endpoint,
    pub(crate) server_key: KeyId,
    pub(crate) node: Endpoint,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    pub(crate) fn with(
        server: impl FnOnce(&mut EndpointConfig),
        node: impl FnOnce(&mut EndpointConfig),
    ) -> Self {
        let authority = Authority::new("machines");
        let (server_machine, node_machine) =
            (Machine::new(Role::Server, "one"), Machine::new(Role::Node, "edge"));
        let mut server_config = config(server_machine.credentials(&authority, &[&authority]));
        let mut node_config = config(node_machine.credentials(&authority, &[&authority]));
        server(&mut server_config);
        node(&mut node_config);
        Self {
            server: Endpoint::bind(server_config).unwrap(),
            node: Endpoint::bind(node_config).unwrap(),
            server_key: server_machine.key_id(),
            authority,
        }
    }

    /// The server as the node looks for it.
    pub(crate) fn target(&self) -> Target {
        target(self.server.local_address())
    }

    /// Both ends of a connection of the given kind.
    pub(crate) async fn pair(&self, kind: Kind) -> (Connection, Connection) {
        let address = match kind {
            Kind::Quic => self.server.local_address(),
            Kind::Tcp => listen_tcp(&self.server).await.0,
        };
        let target = Target { allow_tcp: kind == Kind::Tcp, ..target(address) };
        let (dialled, accepted) = tokio::join!(self.node.connect(&target), self.server.accept());
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!((dialled.is_quic(), accepted.is_quic()), (kind == Kind::Quic, kind == Kind::Quic));
        (dialled, accepted)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Quic,
    Tcp,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Quic, Kind::Tcp];

pub(crate) fn target(address: SocketAddr) -> Target {
    Target { addresses: vec![address.to_string()], role: Role::Server, key: None, allow_tcp: false }
}

/// A listener that hands TLS connections over to the endpoint, on a port whose UDP side swallows
/// everything, as a firewall does.
pub(crate) async fn listen_tcp(endpoint: &Endpoint) -> (SocketAddr, JoinHandle<()>) {
    let (listener, swallows) = loop {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(listener.local_addr().unwrap()) {
            break (listener, udp);
        }
    };
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server_tls_config(endpoint.identity()).unwrap()));
    let endpoint = endpoint.clone();
    let task = tokio::spawn(async move {
        let _swallows = swallows;
        while let Ok((socket, remote)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let Ok(tls) = acceptor.accept(socket).await else { continue };
            let chain = tls.get_ref().1.peer_certificates().unwrap().to_vec();
            endpoint.adopt(tls, chain, remote).unwrap();
        }
    });
    (address, task)
}
