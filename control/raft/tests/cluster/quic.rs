//! Three members over QUIC on loopback, with certificates of one authority.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use sampan_raft::{Member, QuicPeers, RaftStore, Start, Timing};
use sampan_transport::{Credentials, Endpoint, EndpointConfig, Identity, SystemClock};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::relay::Relay;
use crate::support::{SOON, TIMING, config, get, put, put_surely};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn identity(authority: &Authority, name: &str) -> Identity {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::OrganizationName, "sampan:servers");
    params.distinguished_name.push(DnType::CommonName, format!("sampan:server:{name}"));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let chain = params.signed_by(&key, authority).unwrap().pem();
    Identity::new(Credentials::from_pem(&chain, &key.serialize_pem(), &authority.pem()).unwrap()).unwrap()
}

struct Server {
    identity: Identity,
    member: Member,
    dir: TempDir,
    timing: Timing,
    /// How long what is sent to it is on its way.
    delay: Duration,
    /// After how long a silent connection of its is dead.
    idle_timeout: Duration,
    running: Option<Running>,
}

struct Running {
    endpoint: Endpoint,
    store: Arc<RaftStore>,
    accepting: JoinHandle<()>,
    relay: Option<Relay>,
}

impl Server {
    fn new(authority: &Authority, name: &str) -> Self {
        let identity = identity(authority, name);
        let key = identity.own().key;
        let member = Member { id: key.member_id(), name: name.into(), addresses: vec![], key: key.0 };
        let dir = tempfile::tempdir().unwrap();
        Self {
            identity,
            member,
            dir,
            timing: TIMING,
            delay: Duration::ZERO,
            idle_timeout: Duration::from_secs(6),
            running: None,
        }
    }

    /// Starts, at an address of its own each time.
    async fn start(&mut self, start: Start) {
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut settings = EndpointConfig::new(listen, self.identity.clone(), [7; 64], Arc::new(SystemClock));
        settings.idle_timeout = self.idle_timeout;
        let endpoint = Endpoint::bind(settings).unwrap();
        let relay = match self.delay {
            Duration::ZERO => None,
            delay => Some(Relay::to(endpoint.local_address(), delay).await),
        };
        let address = relay.as_ref().map_or(endpoint.local_address(), |relay| relay.address);
        self.member.addresses = vec![address.to_string()];
        let peers = Arc::new(QuicPeers::new(endpoint.clone()));
        let mut config = config(self.dir.path().to_owned(), self.member.clone());
        config.timing = self.timing;
        let store = RaftStore::open(config, start, peers).await.unwrap();
        let accepting = tokio::spawn({
            let (endpoint, store) = (endpoint.clone(), Arc::clone(&store));
            async move {
                while let Some(connection) = endpoint.accept().await {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move { store.serve_connection(connection).await });
                }
            }
        });
        self.running = Some(Running { endpoint, store, accepting, relay });
    }

    async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.store.close().await.unwrap();
        running.endpoint.close("test").await;
        running.accepting.await.unwrap();
    }

    fn store(&self) -> &Arc<RaftStore> {
        &self.running.as_ref().unwrap().store
    }
}

async fn leader(servers: &[Server]) -> usize {
    let deadline = Instant::now() + SOON;
    loop {
        let leads =
            |server: &Server| server.running.as_ref().is_some_and(|r| r.store.leadership().borrow().mine);
        if let Some(leader) = servers.iter().position(leads) {
            return leader;
        }
        assert!(Instant::now() < deadline, "nobody leads");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_over_quic_survive_the_loss_of_the_leader_and_a_move() {
    let authority = authority();
    let mut servers: Vec<_> = ["s1", "s2", "s3"].map(|name| Server::new(&authority, name)).into();
    servers[0].start(Start::Bootstrap).await;
    let founder = Arc::clone(servers[0].store());
    for server in &mut servers[1..] {
        server.start(Start::Join).await;
        founder.add_voter(server.member.clone()).await.unwrap();
    }
    for (number, server) in servers.iter().enumerate() {
        put(&**server.store(), &format!("/k/{number}"), "1").await.unwrap();
    }
    for server in &servers {
        for number in 0..3 {
            assert_eq!(get(&**server.store(), &format!("/k/{number}")).await.as_deref(), Some("1"));
        }
    }
    let large = vec![7; 1 << 20];
    crate::support::put_bytes(&**servers[1].store(), "/large", large).await.unwrap();
    let first = leader(&servers).await;
    servers[first].stop().await;
    let second = leader(&servers).await;
    assert_ne!(second, first);
    put_surely(&**servers[second].store(), "/k/0", "2").await;
    // It comes back at another address, and the others learn of it.
    let before = servers[first].member.addresses.clone();
    servers[first].start(Start::Join).await;
    assert_ne!(servers[first].member.addresses, before);
    assert_eq!(get(&**servers[first].store(), "/k/0").await.as_deref(), Some("2"));
    put(&**servers[first].store(), "/k/0", "3").await.unwrap();
    for server in &mut servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_cluster_is_not_taken_in() {
    let mut ours = Server::new(&authority(), "s1");
    let mut theirs = Server::new(&authority(), "s2");
    ours.start(Start::Bootstrap).await;
    theirs.start(Start::Bootstrap).await;
    let target = sampan_transport::Target {
        addresses: ours.member.addresses.clone(),
        role: sampan_transport::Role::Server,
        key: None,
        allow_tcp: false,
    };
    let endpoint = &theirs.running.as_ref().unwrap().endpoint;
    let error = endpoint.connect(&target).await.unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");
    ours.stop().await;
    theirs.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_address_changes_while_it_runs_is_found_again() {
    let authority = authority();
    let mut servers: Vec<_> = ["s1", "s2", "s3"].map(|name| Server::new(&authority, name)).into();
    servers[0].start(Start::Bootstrap).await;
    let founder = Arc::clone(servers[0].store());
    for server in &mut servers[1..] {
        server.start(Start::Join).await;
        founder.add_voter(server.member.clone()).await.unwrap();
    }
    let leads = leader(&servers).await;
    let moves = (leads + 1) % 3;
    let endpoint = servers[moves].running.as_ref().unwrap().endpoint.clone();
    endpoint.rebind("127.0.0.1:0".parse().unwrap()).unwrap();
    let now = endpoint.local_address().to_string();
    assert_ne!(vec![now.clone()], servers[moves].member.addresses);
    // Connections that others had made to it are silent from here on.
    servers[moves].member.addresses = vec![now];
    let (moved, store) = (servers[moves].member.clone(), Arc::clone(servers[moves].store()));
    let told = async {
        while let Err(error) = store.update_member(moved.clone()).await {
            tracing::debug!(%error, "not told yet");
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, told).await.unwrap();
    put_surely(&**servers[leads].store(), "/k", "1").await;
    crate::support::eventually("it follows again", || async {
        crate::support::get_local(&*store, "/k").await.as_deref() == Some("1")
    })
    .await;
    drop(store);
    drop(founder);
    for server in &mut servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_moved_is_found_by_those_who_still_hear_it() {
    let authority = authority();
    let mut servers: Vec<_> = ["s1", "s2", "s3"].map(|name| Server::new(&authority, name)).into();
    for server in &mut servers {
        // The death of a connection shows by itself only after the test.
        (server.delay, server.idle_timeout) = (Duration::from_millis(1), Duration::from_secs(600));
    }
    servers[0].start(Start::Bootstrap).await;
    let founder = Arc::clone(servers[0].store());
    for server in &mut servers[1..] {
        server.start(Start::Join).await;
        founder.add_voter(server.member.clone()).await.unwrap();
    }
    let leads = leader(&servers).await;
    let followers =
        [Arc::clone(servers[(leads + 1) % 3].store()), Arc::clone(servers[(leads + 2) % 3].store())];
    for follower in &followers {
        put_surely(&**follower, "/k", "1").await;
    }
    // What was made to it before leads nowhere; what it had made itself goes on.
    let running = servers[leads].running.as_mut().unwrap();
    let relay = Relay::to(running.endpoint.local_address(), Duration::from_millis(1)).await;
    let moved = Member { addresses: vec![relay.address.to_string()], ..servers[leads].member.clone() };
    servers[leads].running.as_mut().unwrap().relay = Some(relay);
    servers[leads].store().update_member(moved).await.unwrap();
    for follower in &followers {
        // One request each, which is asked anew where its connection ends.
        assert_eq!(get(&**follower, "/k").await.as_deref(), Some("1"));
        put_surely(&**follower, "/k", "1").await;
    }
    drop((founder, followers));
    for server in &mut servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_far_apart_keep_their_leader_with_the_timing_that_is_advised() {
    // 200 ms there and back: heartbeats as often as one and a half times that, elections three times as late.
    let timing = Timing { heartbeat: 300, election_min: 900, election_max: 1_800 };
    let authority = authority();
    let mut servers: Vec<_> = ["s1", "s2", "s3"].map(|name| Server::new(&authority, name)).into();
    for server in &mut servers {
        (server.timing, server.delay) = (timing, Duration::from_millis(100));
    }
    servers[0].start(Start::Bootstrap).await;
    let founder = Arc::clone(servers[0].store());
    for server in &mut servers[1..] {
        server.start(Start::Join).await;
        founder.add_voter(server.member.clone()).await.unwrap();
    }
    // The machine of a test may stand still for longer than an election takes to begin; with heartbeats
    // that are too frequent no reign lasts so long.
    let reign = || async {
        let leads = leader(&servers).await;
        (leads, servers[leads].store().leadership().borrow().term)
    };
    let mut kept = false;
    for attempt in 0..10 {
        let before = reign().await;
        let follower = servers[(before.0 + 1) % 3].store();
        put_surely(&**follower, "/k", &attempt.to_string()).await;
        sleep(Duration::from_secs(4)).await;
        put_surely(&**follower, "/idle", &attempt.to_string()).await;
        assert_eq!(get(&**follower, "/k").await, Some(attempt.to_string()));
        kept = reign().await == before;
        if kept {
            break;
        }
    }
    assert!(kept, "no leader stays");
    drop(founder);
    for server in &mut servers {
        server.stop().await;
    }
}
