//! What the tests have in common.

use std::path::Path;

use sampan_backup::{Cost, Existing, Location, Origin, Passphrase, SaveOptions, Seal, open};
use sampan_store::{KeyValue, MemoryStore, Op, RangeRequest, Storage, Txn};
use tokio::io::AsyncReadExt;

/// A store with so many keys whose values are of that size and do not repeat.
pub(crate) async fn store(keys: u32, size: usize) -> MemoryStore {
    let store = MemoryStore::new();
    for at in 0..keys {
        put(&store, &format!("/registry/things/{at:05}"), &noise(at, size)).await;
    }
    store
}

pub(crate) async fn put(store: &dyn Storage, key: &str, value: &[u8]) {
    let put = Op::Put { key: key.to_owned().into(), value: value.to_vec().into() };
    store.txn(Txn { success: vec![put], ..Txn::default() }).await.unwrap();
}

fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(step).take(size).collect()
}

pub(crate) async fn contents(store: &dyn Storage) -> Vec<KeyValue> {
    store.range(RangeRequest::prefix("/")).await.unwrap().kvs
}

/// What a store has that was restored from a backup.
pub(crate) async fn restored(location: &Location, passphrase: Option<&Passphrase>) -> Vec<KeyValue> {
    let store = MemoryStore::new();
    let mut backup = open(location, passphrase).await.unwrap();
    store.restore(&mut backup).await.unwrap();
    contents(&store).await
}

pub(crate) async fn plain(store: &dyn Storage) -> Vec<u8> {
    let mut out = Vec::new();
    store.snapshot(&mut out).await.unwrap();
    out
}

/// All of a backup's snapshot, or why not.
pub(crate) async fn read_out(
    location: &Location,
    passphrase: Option<&Passphrase>,
) -> Result<Vec<u8>, String> {
    let mut backup = open(location, passphrase).await.map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    match backup.read_to_end(&mut out).await {
        Ok(_) => Ok(out),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn origin() -> Origin {
    Origin { cluster: "0123abcd".into(), node: "edge-1".into(), version: "0.2.0".into() }
}

pub(crate) fn options() -> SaveOptions {
    SaveOptions {
        origin: origin(),
        created: "2026-11-21T15:42:00Z".parse().unwrap(),
        seal: None,
        private: None,
        existing: Existing::Refuse,
    }
}

pub(crate) fn sealed() -> SaveOptions {
    SaveOptions { seal: Some(seal()), ..options() }
}

/// A seal that is cheap to try, so that tests are quick.
pub(crate) fn seal() -> Seal {
    Seal { passphrase: passphrase(), cost: Cost { memory_kib: 64, passes: 1 } }
}

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new("correct horse").unwrap()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
