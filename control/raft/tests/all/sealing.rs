//! Sealed values: nothing on disk shows them, keys rotate, wrong keys are noticed.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sampan_store::{Compare, DurableConfig, OpenError, RangeRequest, Storage, StorageError, Txn};

use crate::directory::{everything, refusal};
use crate::support::{all, bytes, get, open, put, put_txn, small};

const SECRET: &str = "correct horse battery staple";

fn config(dir: &std::path::Path) -> DurableConfig {
    let mut config = small(&dir.join("data"));
    config.keys = dir.join("keys");
    config.sealed_prefixes = vec!["/secrets/".into()];
    config.last_good_interval = Duration::from_secs(3_600);
    config
}

fn shows(content: &[u8]) -> bool {
    content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

#[tokio::test]
async fn no_file_and_no_snapshot_shows_a_sealed_value() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let store = open(&config).await;
    put(&store, "/secrets/a", SECRET).await;
    put(&store, "/open/a", SECRET).await;
    let guess = Txn {
        compares: vec![Compare::Value { key: bytes("/secrets/a"), value: bytes(SECRET) }],
        ..put_txn("/secrets/b", SECRET)
    };
    assert!(store.txn(guess).await.unwrap().succeeded);
    assert!(get(&store, "/secrets/b").await.unwrap().value == SECRET);
    let logs: Vec<_> =
        everything(&config.dir).into_iter().filter(|(name, _)| name.starts_with("wal/")).collect();
    assert!(logs.iter().any(|(_, (_, content))| shows(content)), "the test would see what is not sealed");

    // From here on only sealed values carry it.
    let op = sampan_store::Op::Delete { key: bytes("/open/a"), end: None };
    let deleted = store.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    store.compact(deleted.revision).await.unwrap();
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    assert!(!shows(&snapshot));
    store.close().await.unwrap();
    let mut fresh = config.clone();
    fresh.dir = dir.path().join("fresh");
    let store = open(&fresh).await;
    store.restore(&mut &snapshot[..]).await.unwrap();
    for at in 0..100 {
        put(&store, &format!("/secrets/{at}"), format!("{SECRET}{at}")).await;
    }
    store.close().await.unwrap();
    for (name, (_, content)) in everything(&fresh.dir) {
        assert!(!shows(&content), "{name} shows the secret");
    }
    assert_eq!(get(&open(&fresh).await, "/secrets/a").await.unwrap().value, SECRET);
}

#[tokio::test]
async fn a_rotated_key_seals_new_values_and_old_ones_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let store = open(&config).await;
    for at in 0..600 {
        put(&store, &format!("/secrets/{at:03}"), SECRET).await;
    }
    assert_eq!(store.reseal().await.unwrap(), 0, "all are sealed with the newest key");
    assert_eq!(store.rotate_key().await.unwrap(), 2);
    put(&store, "/secrets/000", "new").await;
    assert_eq!(get(&store, "/secrets/001").await.unwrap().value, SECRET);
    drop(store);
    let store = open(&config).await;
    assert_eq!(get(&store, "/secrets/001").await.unwrap().value, SECRET);
    assert_eq!(store.reseal().await.unwrap(), 599);
    assert_eq!(store.reseal().await.unwrap(), 0);
    let found = all(&store).await;
    assert!(found.iter().skip(1).all(|kv| kv.value == SECRET && kv.version == 2));
}

#[tokio::test]
async fn values_written_before_sealing_was_asked_for_are_sealed_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let sealed = std::mem::take(&mut config.sealed_prefixes);
    let store = open(&config).await;
    put(&store, "/secrets/a", SECRET).await;
    let refused = store.reseal().await.unwrap_err();
    assert!(matches!(refused, StorageError::Invalid { .. }), "{refused:?}");
    assert!(store.rotate_key().await.is_err());
    store.close().await.unwrap();
    assert!(!config.keys.exists(), "no key where nothing is sealed");
    config.sealed_prefixes = sealed;
    let store = open(&config).await;
    assert_eq!(get(&store, "/secrets/a").await.unwrap().value, SECRET);
    assert_eq!(store.reseal().await.unwrap(), 1);
    assert_eq!(get(&store, "/secrets/a").await.unwrap().value, SECRET);
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    assert!(!shows(&snapshot));
}

#[tokio::test]
async fn missing_foreign_and_public_key_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let store = open(&config).await;
    put(&store, "/secrets/a", SECRET).await;
    store.close().await.unwrap();
    let keys = std::fs::read(&config.keys).unwrap();
    let before = everything(&config.dir);

    std::fs::remove_file(&config.keys).unwrap();
    let error = refusal(&config).await;
    assert!(matches!(&error, OpenError::Keys { why, .. } if why.contains("missing")), "{error:?}");
    assert!(!config.keys.exists(), "no new key takes its place");
    let mut unsealed = config.clone();
    unsealed.sealed_prefixes.clear();
    let error = refusal(&unsealed).await;
    assert!(matches!(error, OpenError::Keys { .. }), "old values still need it: {error:?}");

    let mut other = config.clone();
    other.dir = dir.path().join("other");
    open(&other).await.close().await.unwrap();
    let error = refusal(&config).await;
    assert!(matches!(&error, OpenError::Keys { why, .. } if why.contains("another key 1")), "{error:?}");

    std::fs::write(&config.keys, "hello\n").unwrap();
    let error = refusal(&config).await;
    assert!(matches!(&error, OpenError::Keys { why, .. } if why.contains("not a key file")), "{error:?}");

    std::fs::write(&config.keys, &keys).unwrap();
    std::fs::set_permissions(&config.keys, PermissionsExt::from_mode(0o644)).unwrap();
    let error = refusal(&config).await;
    assert!(matches!(&error, OpenError::Keys { why, .. } if why.contains("600")), "{error:?}");

    let data = |dir| everything(dir).into_iter().filter(|(name, _)| name != "lock").collect::<Vec<_>>();
    let before: Vec<_> = before.into_iter().filter(|(name, _)| name != "lock").collect();
    assert_eq!(data(&config.dir), before, "nothing changed");
    std::fs::set_permissions(&config.keys, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(get(&open(&config).await, "/secrets/a").await.unwrap().value, SECRET);
}

#[tokio::test]
async fn a_snapshot_sealed_with_other_keys_is_refused_before_anything_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&config(dir.path())).await;
    put(&store, "/secrets/a", SECRET).await;
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = open(&config(elsewhere.path())).await;
    put(&other, "/secrets/b", "mine").await;
    let refused = other.restore(&mut &snapshot[..]).await.unwrap_err();
    assert!(matches!(refused, StorageError::Corrupt { .. }), "{refused:?}");
    let found = other.range(RangeRequest::prefix(bytes("/"))).await.unwrap();
    assert_eq!(found.kvs.len(), 1);
    drop(other);
    assert!(crate::support::try_open(&config(elsewhere.path())).await.is_ok());
}
