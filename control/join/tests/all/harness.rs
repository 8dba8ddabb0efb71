//! A cluster of one server that answers over TLS, and machines that come to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use parking_lot::Mutex;
use sampan_apiserver::ApiServer;
use sampan_apiserver::pki::{Life, Pki, ServingNames};
use sampan_join::{
    AdminClient, Enrollment, JoinConfig, JoinError, JoinService, Joined, MachineRole, Member, MemberState,
    Membership, MembershipError, NewToken, TokenRole, enroll, prepare_server,
};
use sampan_store::{MemoryStore, Op, Storage, Txn};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SEAL_KEYS: &str = "1 00ff\n";

/// The group of servers, as a list.
#[derive(Default)]
pub(crate) struct FakeMembers {
    pub(crate) states: Mutex<Vec<MemberState>>,
    /// How often a promotion is refused, because the learner lags behind.
    pub(crate) lagging: Mutex<usize>,
}

#[async_trait]
impl Membership for FakeMembers {
    async fn list(&self) -> Result<Vec<MemberState>, MembershipError> {
        Ok(self.states.lock().clone())
    }

    async fn add_learner(&self, member: Member) -> Result<(), MembershipError> {
        let mut states = self.states.lock();
        match states.iter_mut().find(|state| state.member.id == member.id) {
            Some(state) => state.member = member,
            None => states.push(state(member, false)),
        }
        Ok(())
    }

    async fn promote(&self, id: u64) -> Result<(), MembershipError> {
        let mut lagging = self.lagging.lock();
        if *lagging > 0 {
            *lagging -= 1;
            return Err(MembershipError::Refused("the member lags behind still".into()));
        }
        let mut states = self.states.lock();
        let found = states.iter_mut().find(|state| state.member.id == id);
        found.ok_or_else(|| MembershipError::NotFound(id.to_string()))?.voter = true;
        Ok(())
    }

    async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        self.states.lock().retain(|state| state.member.id != id);
        Ok(())
    }

    async fn update(&self, id: u64, addresses: Vec<String>) -> Result<(), MembershipError> {
        let mut states = self.states.lock();
        let found = states.iter_mut().find(|state| state.member.id == id);
        found.ok_or_else(|| MembershipError::NotFound(id.to_string()))?.member.addresses = addresses;
        Ok(())
    }
}

fn state(member: Member, voter: bool) -> MemberState {
    MemberState {
        member,
        voter,
        leader: voter,
        reachable: Some(true),
        lag: Some(0),
        level: Some(1),
        group_level: Some(1),
    }
}

pub(crate) struct Cluster {
    pub(crate) storage: Arc<MemoryStore>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) members: Arc<FakeMembers>,
    pub(crate) service: JoinService,
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) async fn cluster() -> Cluster {
    cluster_with(Life::default(), |_| {}).await
}

/// A cluster whose certificates live so long, and whose configuration is changed first.
pub(crate) async fn cluster_with(life: Life, change: impl FnOnce(&mut JoinConfig)) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let names = ServingNames::new(["s1".to_owned()], []);
    let pki = Arc::new(Pki::load_or_create_with(&tls, names, life).unwrap());
    let own = prepare_server(&tls, &pki, "s1", &[MachineRole::Server]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let storage = Arc::new(MemoryStore::new());
    let members = Arc::new(FakeMembers::default());
    let first = Member {
        id: own.key.id().member_id(),
        name: "s1".into(),
        addresses: vec![address.to_string()],
        key: own.key.id(),
    };
    members.states.lock().push(state(first, true));
    let mut config = JoinConfig::new(storage.clone(), Arc::clone(&pki), members.clone(), "the-cluster", "s1");
    config.settings = BTreeMap::from([("cluster-cidr".to_owned(), "10.42.0.0/16".to_owned())]);
    config.sealing_keys = Some(Arc::new(|| Ok(SEAL_KEYS.to_owned())));
    config.step_every = Duration::from_millis(100);
    change(&mut config);
    let service = JoinService::new(config);
    service.share_authorities().await.unwrap();
    service.record_self(&own, &[address.to_string()]).await.unwrap();
    let mut config = sampan_apiserver::Config::new(storage.clone(), Arc::clone(&pki), address.to_string());
    config.extension = Some(service.router());
    config.revocations = Some(service.revocations());
    let api = ApiServer::new(config).await.unwrap();
    let stop = CancellationToken::new();
    let (shutdown, tasks) = (stop.clone(), service.clone());
    tokio::spawn(async move { tasks.run(shutdown).await });
    let shutdown = stop.clone();
    tokio::spawn(async move { api.serve(listener, shutdown).await.unwrap() });
    Cluster { storage, pki, members, service, address, dir, stop }
}

impl Cluster {
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::from_kubeconfig(&self.pki.admin_kubeconfig(&self.url())).unwrap()
    }

    pub(crate) async fn token(&self, role: TokenRole) -> String {
        self.service.create_token(&new_token(role, None)).await.unwrap().token
    }

    /// A machine that has what it needs to join.
    pub(crate) fn machine(&self, name: &str, roles: &[MachineRole], token: &str) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Enrollment {
            server: self.url(),
            token: token.to_owned(),
            name: name.to_owned(),
            roles: roles.to_vec(),
            addresses: vec!["10.0.0.7:6443".to_owned()],
            dir: dir.path().join("tls"),
        };
        Machine { dir, wanted }
    }

    /// A node that has joined.
    pub(crate) async fn node(&self, name: &str) -> (Machine, Joined) {
        let machine = self.machine(name, &[MachineRole::Node], &self.token(TokenRole::Agent).await);
        let joined = machine.enroll().await.unwrap();
        (machine, joined)
    }

    /// A server that has joined, without being a member yet.
    pub(crate) async fn server(&self, name: &str) -> (Machine, Joined) {
        let machine = self.machine(name, &[MachineRole::Server], &self.token(TokenRole::Server).await);
        let joined = machine.enroll().await.unwrap();
        (machine, joined)
    }

    /// As if a Node object were there, or not.
    pub(crate) async fn register_node(&self, name: &str, there: bool) {
        let key = format!("/registry/core/nodes/{name}");
        let op = match there {
            true => Op::Put { key: key.into(), value: "{}".into() },
            false => Op::Delete { key: key.into(), end: None },
        };
        self.storage.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    }

    /// Makes an identity look as if it had been given an hour ago.
    pub(crate) async fn age(&self, role: &str, name: &str) {
        let mut value = self.record(&format!("/sampan/identities/{role}/{name}")).await.unwrap();
        value["since"] = (value["since"].as_i64().unwrap() - 3600).into();
        let key = format!("/sampan/identities/{role}/{name}");
        let op = Op::Put { key: key.into(), value: value.to_string().into() };
        self.storage.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    }

    /// A record of the store.
    pub(crate) async fn record(&self, key: &str) -> Option<serde_json::Value> {
        let answer = self.storage.range(sampan_store::RangeRequest::key(key.to_owned())).await.unwrap();
        answer.kvs.first().map(|kv| serde_json::from_slice(&kv.value).unwrap())
    }
}

pub(crate) fn new_token(role: TokenRole, ttl_seconds: Option<u64>) -> NewToken {
    NewToken { role, ttl_seconds, description: String::new() }
}

/// A life of certificates that a test can wait for.
pub(crate) fn short(seconds: i64) -> Life {
    Life(SignedDuration::from_secs(seconds))
}

pub(crate) struct Machine {
    pub(crate) dir: TempDir,
    pub(crate) wanted: Enrollment,
}

impl Machine {
    pub(crate) async fn enroll(&self) -> Result<Joined, JoinError> {
        tokio::time::timeout(PATIENCE, enroll(&self.wanted)).await.expect("an answer in time")
    }

    /// The one line that is told, after which nothing is half joined.
    pub(crate) async fn refusal(&self) -> String {
        let error = self.enroll().await.unwrap_err();
        assert!(!self.wanted.dir.exists(), "{error}");
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line
    }

    pub(crate) fn joining_dir(&self) -> PathBuf {
        self.dir.path().join("tls.joining")
    }
}
