//! What is exported is imported again; what is not whole is refused.

use std::io::Cursor;
use std::sync::Arc;

use sampan_store::{MemoryStore, Op, RangeRequest, Storage, Txn};

use super::*;

async fn put(store: &dyn Storage, pairs: &[(&str, &str)]) {
    let put = |(key, value): &(&str, &str)| Op::Put {
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
    };
    let txn = Txn { success: pairs.iter().map(put).collect(), ..Txn::default() };
    store.txn(txn).await.unwrap();
}

async fn exported(store: &dyn Storage) -> Vec<u8> {
    let export = Export::new(store, 7).await.unwrap();
    let mut pieces = export.pieces(store);
    let mut out = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        out.extend_from_slice(&piece);
    }
    assert_eq!(out.len() as u64, export.bytes());
    out
}

fn open(bytes: Vec<u8>) -> Result<EtcdSnapshot<Cursor<Vec<u8>>>, EtcdSnapshotError> {
    EtcdSnapshot::open(Cursor::new(bytes))
}

/// Everything in a store, without the revisions, which leap in a restore.
async fn contents(store: &dyn Storage) -> Vec<(bytes::Bytes, bytes::Bytes, u64, i64)> {
    let all = RangeRequest { end: Some(bytes::Bytes::new()), ..RangeRequest::key("") };
    let found = store.range(all).await.unwrap();
    found.kvs.into_iter().map(|kv| (kv.key, kv.value, kv.version, kv.lease.0)).collect()
}

async fn filled() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let lease = sampan_store::LeaseId(0x1234);
    put(&*store, &[(std::str::from_utf8(&lease.key()).unwrap(), "60")]).await;
    let attached = Op::Write { key: "/registry/leased".into(), value: Some("l".into()), lease: Some(lease) };
    store.txn(Txn { success: vec![attached], ..Txn::default() }).await.unwrap();
    put(&*store, &[("/registry/a", "1"), ("/registry/b", "1"), ("/registry/c", "1")]).await;
    put(&*store, &[("/registry/b", "2")]).await;
    let long = "x".repeat(20_000);
    put(&*store, &[("/registry/long", &long), ("/sampan/join/x", "own")]).await;
    let gone = Op::Delete { key: "/registry/c".into(), end: None };
    store.txn(Txn { success: vec![gone], ..Txn::default() }).await.unwrap();
    store
}

#[tokio::test]
async fn a_store_comes_back_from_its_own_export() {
    let store = filled().await;
    let bytes = exported(&*store).await;
    assert!(EtcdSnapshot::is_one(&mut Cursor::new(bytes.clone())).unwrap());
    let snapshot = open(bytes).unwrap();
    assert_eq!((snapshot.revision(), snapshot.keys()), (store.revision(), contents(&*store).await.len()));
    let mut converted = Vec::new();
    snapshot
        .convert(|bytes| {
            converted.extend(bytes);
            Ok(())
        })
        .unwrap();
    let fresh = MemoryStore::new();
    fresh.restore(&mut &*converted).await.unwrap();
    assert_eq!(contents(&fresh).await, contents(&*store).await);
    let revoked = Op::Revoke { lease: sampan_store::LeaseId(0x1234) };
    fresh.txn(Txn { success: vec![revoked], ..Txn::default() }).await.unwrap();
    let left = fresh.range(RangeRequest::key("/registry/leased")).await.unwrap();
    assert_eq!(left.kvs, [], "the key is attached to the lease again");
}

#[tokio::test]
async fn an_empty_store_is_a_snapshot_too() {
    let snapshot = open(exported(&MemoryStore::new()).await).unwrap();
    assert_eq!((snapshot.revision().0, snapshot.keys()), (0, 0));
}

#[tokio::test]
async fn history_that_is_forgotten_meanwhile_ends_an_export() {
    let store = filled().await;
    let export = Export::new(&*store, 7).await.unwrap();
    put(&*store, &[("/registry/a", "9")]).await;
    store.compact(store.revision()).await.unwrap();
    let mut pieces = export.pieces(&*store);
    let error = loop {
        match pieces.next().await {
            Ok(piece) => assert!(piece.is_some(), "it did not end early"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, sampan_store::StorageError::Compacted { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_whole_is_refused() {
    let good = exported(&*filled().await).await;
    let mut flipped = good.clone();
    flipped[5000] ^= 1;
    let without_digest = good[..good.len() - DIGEST].to_vec();
    let half = good[..good.len() / 2 + 1].to_vec();
    for (bytes, said) in [
        (flipped, "it is damaged: its checksum is another"),
        (without_digest, "it has no checksum at its end; save it with 'etcdctl snapshot save'"),
        (half, "it is damaged: it is cut off"),
    ] {
        assert_eq!(open(bytes).unwrap_err().to_string(), said);
    }
    assert!(!EtcdSnapshot::is_one(&mut Cursor::new(b"sampan snapshot\n and more".to_vec())).unwrap());
}
