//! Damaged files: said clearly, nothing changed, and a way back.

use std::time::Duration;

use sampan_store::{DurableConfig, OpenError, Storage};

use crate::directory::{everything, refusal};
use crate::support::{all, get, noise, open, put, small};

fn config(dir: &std::path::Path) -> DurableConfig {
    let mut config = small(dir);
    config.last_good_interval = Duration::from_secs(3_600);
    config
}

async fn filled(config: &DurableConfig) {
    let store = open(config).await;
    for at in 0..300 {
        put(&store, &format!("/k/{at:03}"), noise(at, 500)).await;
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_named_and_the_last_good_snapshot_offered_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    filled(&config).await;
    let path = dir.path().join("state.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (8_192..end).step_by(100) {
        bytes[at] ^= 0x5a;
    }
    std::fs::write(&path, &bytes).unwrap();

    let before = everything(dir.path());
    let error = refusal(&config).await;
    let OpenError::Corrupt { path: named, last_good_snapshot: Some(snapshot), .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(named, &path);
    let text = error.to_string();
    assert!(text.contains("state.redb is damaged") && text.contains("last-good.snapshot"), "{text}");
    assert_eq!(everything(dir.path()), before, "nothing changed");

    let store = crate::support::try_rebuild(&config, snapshot).await.unwrap();
    assert_eq!(all(&store).await.len(), 300);
    assert!(store.revision().0 > 1_000_000, "revisions never go back, whatever was lost");
    put(&store, "/k/new", "1").await;
    store.close().await.unwrap();
    let store = open(&config).await;
    assert_eq!(all(&store).await.len(), 301);
    drop(store);
    let aside: Vec<_> =
        everything(dir.path()).into_keys().filter(|name| name.starts_with("damaged-")).collect();
    assert!(aside.iter().any(|name| name.ends_with("/state.redb")), "the evidence is kept: {aside:?}");
}

#[tokio::test]
async fn a_missing_database_is_no_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    filled(&config).await;
    std::fs::remove_file(dir.path().join("state.redb")).unwrap();
    let error = refusal(&config).await;
    assert!(matches!(&error, OpenError::Corrupt { why, .. } if why.contains("missing")), "{error:?}");
    std::fs::write(dir.path().join("state.redb"), b"").unwrap();
    let error = refusal(&config).await;
    assert!(matches!(&error, OpenError::Corrupt { why, .. } if why.contains("empty")), "{error:?}");
}

#[tokio::test]
async fn a_missing_log_is_no_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    filled(&config).await;
    std::fs::remove_dir_all(dir.path().join("wal")).unwrap();
    let error = refusal(&config).await;
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn garbage_behind_the_logs_end_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let store = open(&config).await;
    for at in 0..10 {
        put(&store, &format!("/k/{at}"), "value").await;
    }
    let end = store.stats().log_bytes as usize;
    drop(store);
    let segment = std::fs::read_dir(dir.path().join("wal")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let garbage = noise(1, bytes.len() - end);
    bytes[end..].copy_from_slice(&garbage);
    std::fs::write(&segment, &bytes).unwrap();
    let store = open(&config).await;
    assert_eq!(all(&store).await.len(), 10);
    put(&store, "/k/10", "value").await;
    drop(store);
    assert_eq!(all(&open(&config).await).await.len(), 11);
}

#[tokio::test]
async fn a_snapshot_that_is_none_rebuilds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    filled(&config).await;
    let not = dir.path().join("damaged-note");
    std::fs::write(&not, b"not a snapshot").unwrap();
    let error = crate::support::try_rebuild(&config, &not).await.unwrap_err();
    assert!(matches!(error, OpenError::Snapshot { .. }), "{error:?}");
    assert!(get(&open(&config).await, "/k/000").await.is_some(), "the store is as it was");
}

#[tokio::test]
async fn a_snapshot_makes_a_new_store_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("a"));
    filled(&config).await;
    let elsewhere = small(&dir.path().join("b"));
    let snapshot = dir.path().join("a/last-good.snapshot");
    let store = crate::support::try_rebuild(&elsewhere, &snapshot).await.unwrap();
    assert_eq!(all(&store).await.len(), 300);
    drop(store);
    assert_eq!(all(&open(&elsewhere).await).await.len(), 300);
}
