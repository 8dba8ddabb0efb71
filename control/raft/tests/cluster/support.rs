//! A cluster to test with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_raft::{Member, MemberId, OpenError, RaftConfig, RaftStore, Start, Timing};
use sampan_store::{
    DurableConfig, Level, Op, RangeRequest, Revision, Storage, StorageError, Txn, TxnResponse,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::net::Net;

/// Patience for what must happen soon, on a machine under load.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Slower than the defaults: a test must not fail because the machine has other work, too.
pub(crate) const TIMING: Timing = Timing { heartbeat: 100, election_min: 500, election_max: 1_000 };

/// A member's record.
pub(crate) fn member(number: u8) -> Member {
    let mut key = [0; 32];
    key[0] = number;
    Member {
        id: u64::from(number) << 56,
        name: format!("s{number}"),
        addresses: vec![format!("s{number}.test:6443")],
        key,
    }
}

pub(crate) fn config(dir: PathBuf, member: Member) -> RaftConfig {
    let mut store = DurableConfig::new(dir);
    store.segment_bytes = 4 << 20;
    store.checkpoint_bytes = 1 << 20;
    store.volatile_prefixes = vec!["/leases/".into()];
    RaftConfig { timing: TIMING, ..RaftConfig::new(store, member) }
}

/// One member: its directory, and its store while it runs.
pub(crate) struct Node {
    pub(crate) member: Member,
    pub(crate) dir: TempDir,
    pub(crate) store: Option<Arc<RaftStore>>,
    /// What it understands from its next start on.
    pub(crate) level: Level,
}

/// Members over a network in memory.
pub(crate) struct Cluster {
    pub(crate) net: Net,
    pub(crate) nodes: Vec<Node>,
    /// What lives in memory only.
    volatile: Vec<Bytes>,
    /// What machines that are added understand.
    pub(crate) level: Level,
}

impl Cluster {
    /// A cluster of one member, whose keys under `/leases/` live in memory only.
    pub(crate) async fn alone() -> Self {
        Self::alone_with(vec!["/leases/".into()], Level::NEWEST).await
    }

    async fn alone_with(volatile: Vec<Bytes>, level: Level) -> Self {
        let mut cluster = Self { net: Net::default(), nodes: Vec::new(), volatile, level };
        cluster.add().await;
        cluster
    }

    /// A cluster of `voters` members that all vote.
    pub(crate) async fn of(voters: usize) -> Self {
        Self::alone().await.grown(voters).await
    }

    /// The same, with all keys on disk.
    pub(crate) async fn all_durable(voters: usize) -> Self {
        Self::alone_with(Vec::new(), Level::NEWEST).await.grown(voters).await
    }

    /// The same as [`Cluster::of`], of members that understand no more than a level.
    pub(crate) async fn at(level: Level, voters: usize) -> Self {
        Self::alone_with(vec!["/leases/".into()], level).await.grown(voters).await
    }

    async fn grown(self, voters: usize) -> Self {
        let mut cluster = self;
        for _ in 1..voters {
            let node = cluster.add().await;
            let member = cluster.nodes[node].member.clone();
            cluster.store(0).add_voter(member).await.unwrap();
        }
        cluster
    }

    /// Starts one more machine, which waits to be taken in (the first one founds the cluster).
    pub(crate) async fn add(&mut self) -> usize {
        let number = self.nodes.len();
        let member = member(u8::try_from(number + 1).unwrap());
        let (dir, level) = (tempfile::tempdir().unwrap(), self.level);
        self.nodes.push(Node { member, dir, store: None, level });
        self.start(number, if number == 0 { Start::Bootstrap } else { Start::Join }).await;
        number
    }

    pub(crate) async fn start(&mut self, number: usize, start: Start) {
        let node = &mut self.nodes[number];
        let mut config = config(node.dir.path().to_owned(), node.member.clone());
        config.store.volatile_prefixes.clone_from(&self.volatile);
        config.store.level = node.level;
        let peers = self.net.peers(node.member.id);
        // What a crash left running in this process may hold on to the directory for a moment.
        let deadline = Instant::now() + Duration::from_secs(20);
        let store = loop {
            match RaftStore::open(config.clone(), start, Arc::clone(&peers)).await {
                Err(OpenError::Store(sampan_store::OpenError::Locked { .. }))
                    if Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(20)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        self.net.attach(&store);
        node.store = Some(store);
    }

    /// Ends a member as a crash would.
    pub(crate) async fn crash(&mut self, number: usize) {
        let store = self.nodes[number].store.take().unwrap();
        self.net.detach(store.id()).await;
        drop(store);
    }

    /// Ends a member in good order.
    pub(crate) async fn stop(&mut self, number: usize) {
        let store = self.nodes[number].store.take().unwrap();
        store.close().await.unwrap();
        self.net.detach(store.id()).await;
    }

    pub(crate) async fn restart(&mut self, number: usize) {
        self.start(number, Start::Join).await;
    }

    pub(crate) fn store(&self, number: usize) -> Arc<RaftStore> {
        Arc::clone(self.nodes[number].store.as_ref().unwrap())
    }

    pub(crate) fn id(&self, number: usize) -> MemberId {
        self.nodes[number].member.id
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|number| self.nodes[*number].store.is_some()).collect()
    }

    /// The member that leads among those given, once one does.
    pub(crate) async fn leader_of(&self, among: &[usize]) -> usize {
        let deadline = Instant::now() + SOON;
        loop {
            let terms = |number: &&usize| {
                let now = *self.store(**number).leadership().borrow();
                now.mine.then_some(now.term)
            };
            if let Some(leader) = among.iter().filter(|n| terms(n).is_some()).max_by_key(terms) {
                return *leader;
            }
            assert!(Instant::now() < deadline, "nobody leads");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn leader(&self) -> usize {
        self.leader_of(&self.running()).await
    }

    /// A member that runs and is none of `but`.
    pub(crate) fn other(&self, but: &[usize]) -> usize {
        *self.running().iter().find(|number| !but.contains(number)).unwrap()
    }

    /// Ends all members, in good order.
    pub(crate) async fn end(mut self) {
        for number in self.running() {
            self.stop(number).await;
        }
    }
}

pub(crate) async fn put(store: &dyn Storage, key: &str, value: &str) -> Result<Revision, StorageError> {
    put_bytes(store, key, value.as_bytes().to_vec()).await.map(|response| response.revision)
}

pub(crate) async fn put_bytes(
    store: &dyn Storage,
    key: &str,
    value: Vec<u8>,
) -> Result<TxnResponse, StorageError> {
    let put = Op::Put { key: key.as_bytes().to_vec().into(), value: value.into() };
    store.txn(Txn { success: vec![put], ..Txn::default() }).await
}

/// Puts until it is done, as a client does that may write twice.
pub(crate) async fn put_surely(store: &dyn Storage, key: &str, value: &str) -> Revision {
    let deadline = Instant::now() + SOON;
    loop {
        match put(store, key, value).await {
            Ok(revision) => return revision,
            Err(error) => assert!(Instant::now() < deadline, "no write succeeds: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The newest value of a key, linearizably.
pub(crate) async fn get(store: &dyn Storage, key: &str) -> Option<String> {
    let range = RangeRequest::key(key.as_bytes().to_vec());
    let found = store.range(range).await.unwrap();
    found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

/// The value of a key as this member has it, now.
pub(crate) async fn get_local(store: &dyn Storage, key: &str) -> Option<String> {
    let revision = store.revision();
    let range = RangeRequest::key(key.as_bytes().to_vec()).at(revision);
    let found = store.range(range).await.unwrap();
    found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

/// Waits until something holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
