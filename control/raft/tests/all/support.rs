//! What the tests share: small stores, short words for common requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_raft::{Member, NoPeers, RaftConfig, RaftStore, Start};
use sampan_store::{
    DurableConfig, KeyValue, Op, OpenError, RangeRequest, Revision, Storage, StorageError, Txn,
};

/// A store so small that a test sees segments and generations come and go.
pub(crate) fn small(dir: &Path) -> DurableConfig {
    let mut config = DurableConfig::new(dir);
    config.segment_bytes = 64 << 10;
    config.checkpoint_bytes = 32 << 10;
    config.redb_cache_bytes = 1 << 20;
    config.compaction.interval = Duration::ZERO;
    config.last_good_interval = Duration::ZERO;
    config
}

/// A member that is alone.
pub(crate) fn member(config: &DurableConfig) -> RaftConfig {
    let member = Member { id: 7, name: "alone".into(), addresses: Vec::new(), key: [7; 32] };
    RaftConfig::new(config.clone(), member)
}

fn alone(opened: Result<Arc<RaftStore>, sampan_raft::OpenError>) -> Result<RaftStore, OpenError> {
    match opened {
        Ok(store) => Ok(Arc::into_inner(store).expect("nobody else holds it")),
        Err(sampan_raft::OpenError::Store(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

pub(crate) async fn try_open(config: &DurableConfig) -> Result<RaftStore, OpenError> {
    alone(RaftStore::open(member(config), Start::Bootstrap, Arc::new(NoPeers)).await)
}

pub(crate) async fn try_rebuild(config: &DurableConfig, snapshot: &Path) -> Result<RaftStore, OpenError> {
    alone(RaftStore::rebuild(member(config), snapshot, Arc::new(NoPeers)).await)
}

pub(crate) async fn open(config: &DurableConfig) -> RaftStore {
    try_open(config).await.unwrap()
}

/// Opens a store that then writes nothing of its own accord: a new group's level goes up a moment
/// after its first member leads, and that is an entry like any other.
pub(crate) async fn settled(config: &DurableConfig) -> RaftStore {
    let store = open(config).await;
    eventually("the group is at its level", || store.level() == store.newest_level()).await;
    store
}

/// Waits for something that happens in the background.
pub(crate) async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

pub(crate) fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

pub(crate) fn put_txn(key: &str, value: impl AsRef<[u8]>) -> Txn {
    Txn { success: vec![Op::Put { key: bytes(key), value: bytes(value) }], ..Txn::default() }
}

pub(crate) async fn try_put(
    store: &dyn Storage,
    key: &str,
    value: impl AsRef<[u8]>,
) -> Result<Revision, StorageError> {
    Ok(store.txn(put_txn(key, value)).await?.revision)
}

pub(crate) async fn put(store: &dyn Storage, key: &str, value: impl AsRef<[u8]>) -> Revision {
    try_put(store, key, value).await.unwrap()
}

pub(crate) async fn delete(store: &dyn Storage, key: &str) -> Revision {
    let op = Op::Delete { key: bytes(key), end: None };
    store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap().revision
}

pub(crate) async fn get(store: &dyn Storage, key: &str) -> Option<KeyValue> {
    store.range(RangeRequest::key(bytes(key))).await.unwrap().kvs.pop()
}

pub(crate) async fn all(store: &dyn Storage) -> Vec<KeyValue> {
    store.range(RangeRequest::prefix(Bytes::new())).await.unwrap().kvs
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}
