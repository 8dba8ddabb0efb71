//! A full device: writes are refused, reads go on, and when there is space again so do writes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sampan_raft::RaftStore;
use sampan_store::{DiskFaults, DiskOp, DurableConfig, StorageError};

use crate::support::{all, get, noise, open, put, small, try_put};

/// A device that is full for the log, for the tables, or now and then.
#[derive(Default)]
struct Device {
    log_full: AtomicBool,
    tables_full: AtomicBool,
    /// Every so many writes fail; 0 is never.
    fail_one_in: AtomicU64,
    count: AtomicU64,
}

impl DiskFaults for Device {
    fn before(&self, op: DiskOp<'_>) -> io::Result<()> {
        let (DiskOp::Write { path, .. } | DiskOp::SetLen { path, .. } | DiskOp::Sync { path }) = op;
        let full = if path.extension().is_some_and(|extension| extension == "redb") {
            &self.tables_full
        } else {
            &self.log_full
        };
        let one_in = self.fail_one_in.load(Ordering::SeqCst);
        let now = one_in > 0 && self.count.fetch_add(1, Ordering::SeqCst) % one_in == one_in - 1;
        // A write that was taken can always be made durable.
        if (now || full.load(Ordering::SeqCst)) && !matches!(op, DiskOp::Sync { .. }) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn config(dir: &Path, device: &Arc<Device>) -> DurableConfig {
    let mut config = small(dir);
    config.faults = Some(device.clone());
    config
}

async fn put_when_there_is_space(store: &RaftStore, key: &str, value: &[u8]) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match try_put(store, key, value).await {
            Ok(_) => return,
            Err(StorageError::NoSpace) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_log_refuses_writes_and_takes_them_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let device = Arc::new(Device::default());
    let config = config(dir.path(), &device);
    let store = open(&config).await;
    put(&store, "/a", "1").await;
    store.checkpoint().await.unwrap();
    put(&store, "/b", "1").await;
    let before = all(&store).await;
    device.log_full.store(true, Ordering::SeqCst);
    for key in ["/a", "/b", "/c"] {
        let refusal = try_put(&store, key, "refused").await.unwrap_err();
        assert!(matches!(refusal, StorageError::NoSpace), "{refusal:?}");
    }
    assert!(store.stats().out_of_space);
    assert_eq!(all(&store).await, before, "reads go on, and nothing was written");
    device.log_full.store(false, Ordering::SeqCst);
    put(&store, "/c", "2").await;
    assert!(!store.stats().out_of_space);
    drop(store);
    let store = open(&config).await;
    let found: Vec<_> = all(&store).await.into_iter().map(|kv| kv.value).collect();
    assert_eq!(found, ["1", "1", "2"], "what was refused never comes back");
}

#[tokio::test]
async fn full_tables_hold_up_writes_only_once_memory_is_full_and_never_reads() {
    let dir = tempfile::tempdir().unwrap();
    let device = Arc::new(Device::default());
    let config = config(dir.path(), &device);
    let store = open(&config).await;
    for at in 0..100 {
        put(&store, &format!("/old/{at}"), noise(at, 1_000)).await;
    }
    store.checkpoint().await.unwrap();
    device.tables_full.store(true, Ordering::SeqCst);
    let mut acknowledged = 0;
    let refusal = loop {
        match try_put(&store, &format!("/new/{acknowledged:04}"), noise(acknowledged, 1_000)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "memory is not for ever");
    };
    assert!(matches!(refusal, StorageError::NoSpace), "{refusal:?}");
    assert!(acknowledged > 20, "what fits into memory is taken: {acknowledged}");
    assert_eq!(all(&store).await.len() as u64, 100 + acknowledged);
    assert_eq!(get(&store, "/old/7").await.unwrap().value, noise(7, 1_000));

    device.tables_full.store(false, Ordering::SeqCst);
    put_when_there_is_space(&store, "/new/later", b"1").await;
    store.checkpoint().await.unwrap();
    assert_eq!(all(&store).await.len() as u64, 101 + acknowledged);
    store.close().await.unwrap();
    assert_eq!(all(&open(&config).await).await.len() as u64, 101 + acknowledged);
}

#[tokio::test]
async fn a_crash_on_a_full_device_loses_nothing() {
    for clean in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::new(Device::default());
        let config = config(dir.path(), &device);
        let store = open(&config).await;
        for at in 0..50 {
            put(&store, &format!("/old/{at}"), noise(at, 1_000)).await;
        }
        store.checkpoint().await.unwrap();
        device.tables_full.store(true, Ordering::SeqCst);
        let mut acknowledged = 50;
        while try_put(&store, &format!("/new/{acknowledged}"), noise(acknowledged, 1_000)).await.is_ok() {
            acknowledged += 1;
        }
        if clean {
            store.close().await.unwrap();
        } else {
            drop(store);
        }
        device.tables_full.store(false, Ordering::SeqCst);
        assert_eq!(all(&open(&config).await).await.len() as u64, acknowledged, "closed: {clean}");
    }
}

#[tokio::test]
async fn writes_that_fail_now_and_then_leave_exactly_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let device = Arc::new(Device::default());
    let config = config(dir.path(), &device);
    let mut store = open(&config).await;
    let mut expected = std::collections::BTreeMap::new();
    let mut refused = 0;
    for at in 0..600_u64 {
        device.fail_one_in.store([0, 3, 7, 2][(at / 20 % 4) as usize], Ordering::SeqCst);
        let key = format!("/k/{}", at % 40);
        match try_put(&store, &key, noise(at, 900)).await {
            Ok(_) => {
                expected.insert(key, noise(at, 900));
            }
            Err(StorageError::NoSpace) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
        if at % 100 == 99 {
            device.fail_one_in.store(0, Ordering::SeqCst);
            drop(store);
            store = open(&config).await;
            let found: std::collections::BTreeMap<_, _> = all(&store)
                .await
                .into_iter()
                .map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv.value.to_vec()))
                .collect();
            assert_eq!(found, expected, "after {at} writes");
        }
    }
    assert!(refused > 50, "the device did fail: {refused}");
}
