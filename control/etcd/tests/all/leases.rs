//! Leases end, are kept alive, and take their keys with them.

use std::sync::Arc;
use std::time::Duration;

use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::{
    ClusterView, DbSize, Leadership, LeadershipStream, LogPosition, MemberView, Options, ViewError,
};
use sampan_store::MemoryStore;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};

use crate::support::{Clients, PATIENCE, clients, key, on_disk, ours, ours_with, prefix};

/// A member whose leadership comes and goes as the test says.
pub(crate) struct Fickle(pub(crate) watch::Sender<Leadership>);

impl Fickle {
    pub(crate) fn new(leads: bool) -> Arc<Self> {
        let fickle = Arc::new(Self(watch::Sender::new(Leadership::default())));
        fickle.leads(leads);
        fickle
    }

    pub(crate) fn leads(&self, mine: bool) {
        let leader = Some(if mine { 1 } else { 2 });
        self.0.send_modify(|now| *now = Leadership { leader, term: now.term + 1, mine });
    }

    pub(crate) fn nobody_leads(&self) {
        self.0.send_modify(|now| *now = Leadership { leader: None, mine: false, ..*now });
    }
}

#[tonic::async_trait]
impl ClusterView for Fickle {
    fn cluster_id(&self) -> u64 {
        7
    }
    fn member_id(&self) -> u64 {
        1
    }
    fn leadership(&self) -> Leadership {
        *self.0.borrow()
    }
    fn leadership_changes(&self) -> LeadershipStream {
        Box::pin(WatchStream::new(self.0.subscribe()))
    }
    fn log(&self) -> LogPosition {
        LogPosition { committed: 5, applied: 4 }
    }
    fn db_size(&self) -> DbSize {
        DbSize { file: 4096, in_use: 1024 }
    }
    async fn members(&self) -> Result<Vec<MemberView>, ViewError> {
        let member = |id: u64| MemberView {
            id,
            name: format!("server-{id}"),
            peer_urls: vec![format!("https://10.0.0.{id}:6443")],
            client_urls: Vec::new(),
            learner: id == 3,
        };
        Ok((1..=3).map(member).collect())
    }
    async fn transfer_leadership(&self, to: u64) -> Result<(), ViewError> {
        if to != 2 {
            return Err(ViewError::UnknownMember);
        }
        self.leads(false);
        Ok(())
    }
    async fn reclaim(&self) -> Result<(), ViewError> {
        Ok(())
    }
}

async fn attach(clients: &Clients, name: &str, lease: i64) {
    let request = pb::PutRequest { key: key(name), value: key("v"), lease, ..Default::default() };
    clients.put(request).await.unwrap();
}

async fn names(clients: &Clients) -> Vec<String> {
    let found = clients.range(prefix("k")).await.unwrap();
    found.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

/// Waits until no key is left; how long that took.
async fn until_gone(clients: &Clients, begun: Instant) -> Duration {
    while !names(clients).await.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "the keys stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_keeps_takes_its_keys_with_it_at_once() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    assert_eq!(clients.grant(5, 1).await.unwrap().ttl, 2, "no lease is shorter than an election");
    let begun = Instant::now();
    let mut watching = clients.watching();
    let watch = pb::WatchCreateRequest { key: key("k"), range_end: key("l"), ..Default::default() };
    watching.create(watch).await;
    for name in ["k1", "k2", "k3"] {
        attach(&clients, name, 5).await;
    }
    // Written again without it, a key is no longer the lease's; with another, it is that one's.
    attach(&clients, "k2", 0).await;
    clients.grant(6, 60).await.unwrap();
    attach(&clients, "k3", 6).await;
    attach(&clients, "k4", 5).await;
    assert_eq!(clients.time_to_live(5).await.keys, ["k1", "k4"]);
    watching.events(6).await;
    let ended = watching.events(2).await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert!(begun.elapsed() < Duration::from_secs(2) + PATIENCE);
    let revisions: Vec<_> = ended.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(revisions[0], revisions[1], "all at one revision");
    assert_eq!(names(&clients).await, ["k2", "k3"]);
    assert_eq!(clients.time_to_live(5).await.ttl, -1);
    assert_eq!(clients.leases().await, [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lives_while_it_is_kept_alive() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let lease = clients.grant(0, 2).await.unwrap().id;
    assert!(lease > 0, "a name is given");
    attach(&clients, "k", lease).await;
    let (requests, stream) = mpsc::channel(4);
    let answers = clients.lease.clone().lease_keep_alive(ReceiverStream::new(stream)).await.unwrap();
    let mut answers = answers.into_inner();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        requests.send(pb::LeaseKeepAliveRequest { id: lease }).await.unwrap();
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (lease, 2));
        assert!(clients.time_to_live(lease).await.ttl >= 1);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(names(&clients).await, ["k"]);
    requests.send(pb::LeaseKeepAliveRequest { id: 4711 }).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().ttl, 0, "there is no such lease");
    let took = until_gone(&clients, Instant::now()).await;
    assert!(took > Duration::from_secs(1), "the last word counts");
    requests.send(pb::LeaseKeepAliveRequest { id: lease }).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().ttl, 0, "it is over");
    // Nor is anything left of it in the store.
    let left = || ours.storage.range(sampan_store::RangeRequest::prefix(sampan_etcd::RENEWALS));
    let begun = Instant::now();
    while !left().await.unwrap().kvs.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", left().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_leader_ends_leases_and_a_new_one_counts_anew() {
    let view = Fickle::new(false);
    let ours = ours_with(Arc::new(MemoryStore::new()), view.clone(), Options::default()).await;
    let clients = clients(ours.address).await;
    clients.grant(5, 2).await.unwrap();
    attach(&clients, "k", 5).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(names(&clients).await, ["k"], "a follower ends nothing");
    assert_eq!(clients.time_to_live(5).await.ttl, 0);
    let begun = Instant::now();
    view.leads(true);
    assert!(until_gone(&clients, begun).await >= Duration::from_secs(2), "the whole time again");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_outlive_the_server() {
    let storage = Arc::new(MemoryStore::new());
    let view = Fickle::new(true);
    let first = ours_with(storage.clone(), view.clone(), Options::default()).await;
    let before = clients(first.address).await;
    before.grant(9, 3).await.unwrap();
    attach(&before, "k", 9).await;
    drop(first);
    let second = ours_with(storage, view, Options::default()).await;
    let after = clients(second.address).await;
    assert_eq!(after.leases().await, [9]);
    let found = after.time_to_live(9).await;
    assert_eq!((found.granted_ttl, found.keys), (3, vec![key("k")]));
    until_gone(&after, Instant::now()).await;
}

/// Events live in memory only, and API servers give them leases.
#[tokio::test(flavor = "multi_thread")]
async fn leases_take_keys_in_memory_with_them_too() {
    let dir = tempfile::tempdir().unwrap();
    let storage = on_disk(dir.path(), &["kv/", sampan_etcd::RENEWALS]).await;
    let ours = ours_with(storage, Fickle::new(true), Options::default()).await;
    let clients = clients(ours.address).await;
    for revoked in [true, false] {
        clients.grant(5, 2).await.unwrap();
        for name in ["kv/event", "kv/other", "kd"] {
            attach(&clients, name, 5).await;
        }
        attach(&clients, "kv/other", 0).await;
        assert_eq!(clients.time_to_live(5).await.keys, ["kd", "kv/event"]);
        if revoked {
            clients.revoke(5).await.unwrap();
        }
        let begun = Instant::now();
        while names(&clients).await != ["kv/other"] {
            assert!(!revoked, "they are gone when the answer comes");
            assert!(begun.elapsed() < PATIENCE, "{:?}", names(&clients).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let refused = clients.put(pb::PutRequest { key: key("kv/late"), lease: 5, ..Default::default() }).await;
    assert_eq!(refused.unwrap_err().message(), "etcdserver: requested lease not found");
    let both = pb::DeleteRangeRequest { key: key("k"), range_end: key("l"), ..Default::default() };
    let refused = clients.delete(both).await.unwrap_err();
    assert!(refused.message().contains("mixes keyspaces"), "{refused:?}");
}
