//! Leases over the store on disk: across restarts, checkpoints, and keys that live in memory only.

use bytes::Bytes;
use sampan_store::{DurableConfig, LeaseId, Op, OpResult, Refusal, Storage, StorageError, Txn};

use crate::support::{bytes, get, open, small};

const LEASE: LeaseId = LeaseId(7);

async fn run(store: &dyn Storage, op: Op) -> OpResult {
    let response = store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    response.results.into_iter().next().unwrap()
}

async fn grant(store: &dyn Storage) {
    run(store, Op::Put { key: LEASE.key(), value: bytes("60") }).await;
}

fn attach(key: &str) -> Op {
    Op::Write { key: bytes(key), value: Some(bytes("v")), lease: Some(LEASE) }
}

async fn attached(store: &dyn Storage) -> Vec<Bytes> {
    match run(store, Op::Attached { lease: LEASE }).await {
        OpResult::Attached { keys } => keys,
        other => panic!("{other:?}"),
    }
}

fn config(dir: &std::path::Path) -> DurableConfig {
    let mut config = small(dir);
    config.volatile_prefixes = vec!["/v/".into()];
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_attached_across_restarts_and_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let store = open(&config).await;
    grant(&store).await;
    run(&store, attach("/in/tables")).await;
    store.checkpoint().await.unwrap();
    run(&store, attach("/in/log")).await;
    store.close().await.unwrap();
    drop(store);
    let store = open(&config).await;
    assert_eq!(get(&store, "/in/tables").await.unwrap().lease, LEASE);
    assert_eq!(attached(&store).await, ["/in/log", "/in/tables"]);
    run(&store, Op::Revoke { lease: LEASE }).await;
    drop(store);
    let store = open(&config).await;
    assert_eq!(attached(&store).await, Vec::<Bytes>::new());
    assert!(get(&store, "/in/tables").await.is_none() && get(&store, "/in/log").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_memory_are_attached_too_and_deleted_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path())).await;
    let refused = run(&store, attach("/v/a")).await;
    assert_eq!(refused, OpResult::Refused(Refusal::LeaseNotFound { lease: LEASE }));
    grant(&store).await;
    run(&store, attach("/v/a")).await;
    run(&store, attach("/d")).await;
    assert_eq!(get(&store, "/v/a").await.unwrap().lease, LEASE);
    assert_eq!(attached(&store).await, ["/d", "/v/a"]);
    run(&store, Op::Revoke { lease: LEASE }).await;
    assert_eq!(attached(&store).await, ["/v/a"], "whoever revokes deletes it in a transaction of its own");
    run(&store, Op::Delete { key: bytes("/v/a"), end: None }).await;
    assert_eq!(attached(&store).await, Vec::<Bytes>::new());
    let mixed = Txn { success: vec![attach("/v/a"), attach("/d")], ..Txn::default() };
    assert!(matches!(store.txn(mixed).await, Err(StorageError::Invalid { .. })));
}
