//! The durable store over time: restarts, checkpoints, compaction, quiet.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sampan_raft::RaftStore;
use sampan_store::{
    DurableConfig, MemoryStore, RangeRequest, Revision, Storage, StorageError, WatchEvent, WatchRequest,
    prefix_end,
};

use crate::support::{
    all, bytes, delete, eventually, get, noise, open, put, put_txn, settled, small, try_put,
};

fn watch_all(from: Revision) -> WatchRequest {
    WatchRequest { start: bytes("/"), end: Some(prefix_end(b"/")), from }
}

#[tokio::test]
async fn everything_comes_back_after_a_clean_end_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let mut expected = Vec::new();
    let mut revision = Revision(0);
    for round in 0..6 {
        let store = open(&config).await;
        assert_eq!(all(&store).await, expected, "round {round}");
        assert_eq!(store.revision(), revision);
        for at in 0..40 {
            put(&store, &format!("/k/{}", (at + round) % 50), noise(at, 1_000)).await;
        }
        delete(&store, &format!("/k/{}", round + 10)).await;
        expected = all(&store).await;
        revision = store.revision();
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn history_can_be_read_and_watched_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let store = open(&config).await;
    let mut states = Vec::new();
    for at in 0..300_u64 {
        let key = format!("/r/g/k/{}", at % 7);
        if at % 11 == 10 {
            delete(&store, &key).await;
        } else {
            put(&store, &key, noise(at, 700)).await;
        }
        states.push((store.revision(), all(&store).await));
    }
    assert!(store.stats().checkpoints > 1, "some of it is in the tables, some is not");
    let check = async |store: &RaftStore| {
        for (revision, expected) in &states {
            let found = store.range(RangeRequest::prefix(bytes("/")).at(*revision)).await.unwrap();
            assert_eq!(&found.kvs, expected, "at {revision}");
        }
        let mut watch = store.watch(watch_all(Revision(1))).await.unwrap();
        let mut state = std::collections::BTreeMap::new();
        let mut delivered = Revision(0);
        while delivered < store.revision() {
            let batch = watch.next().await.unwrap().unwrap();
            for event in batch.events {
                match event {
                    WatchEvent::Put { kv, previous } => {
                        assert_eq!(state.insert(kv.key.clone(), kv), previous);
                    }
                    WatchEvent::Delete { key, previous, .. } => {
                        assert_eq!(state.remove(&key), previous);
                    }
                }
            }
            delivered = batch.revision;
            let known = states.iter().find(|(revision, _)| *revision == delivered);
            if let Some((_, expected)) = known {
                assert_eq!(
                    &state.values().cloned().collect::<Vec<_>>(),
                    expected,
                    "events up to {delivered}"
                );
            }
        }
    };
    check(&store).await;
    drop(store);
    let store = open(&config).await;
    check(&store).await;
    store.close().await.unwrap();
    check(&open(&config).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&DurableConfig::new(dir.path())).await);
    let before = store.stats().fsyncs;
    let writes = (0..1_000).map(|at| {
        let store = Arc::clone(&store);
        async move { put(&*store, &format!("/k/{at}"), "value").await }
    });
    futures::future::join_all(writes).await;
    let syncs = store.stats().fsyncs - before;
    assert!(syncs < 500, "{syncs} syncs for 1,000 writes");
}

#[tokio::test]
async fn nothing_is_written_while_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.compaction.interval = Duration::from_millis(20);
    config.compaction.keep_revisions = 0;
    config.last_good_interval = Duration::from_millis(20);
    config.volatile_prefixes = vec!["/volatile/".into()];
    // Many volatile entries together are worth a checkpoint, these few are not.
    config.checkpoint_bytes = 128 << 10;
    let store = settled(&config).await;
    for at in 0..200 {
        put(&store, &format!("/k/{}", at % 10), noise(at, 500)).await;
    }
    put(&store, "/volatile/first", "reserves revisions").await;
    let durable = store.revision().0 - 1;
    eventually("history is forgotten", || store.stats().compacted >= durable).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let written = |store: &RaftStore| {
        let stats = store.stats();
        (stats.log_written, stats.tables_written, stats.fsyncs)
    };
    let before = written(&store);
    let snapshot = std::fs::metadata(dir.path().join("last-good.snapshot")).unwrap().modified().unwrap();
    for at in 0..200 {
        // Heartbeats and events, reads and refused writes are nothing to the disk.
        put(&store, &format!("/volatile/{}", at % 10), "beat").await;
        get(&store, "/k/1").await;
        let stale = sampan_store::Compare::ModRevision { key: bytes("/k/1"), revision: Revision(1) };
        let refused = sampan_store::Txn { compares: vec![stale], ..put_txn("/k/1", "x") };
        assert!(!store.txn(refused).await.unwrap().succeeded);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(written(&store), before);
    let after = std::fs::metadata(dir.path().join("last-good.snapshot")).unwrap().modified().unwrap();
    assert_eq!(after, snapshot);
}

#[tokio::test]
async fn history_is_forgotten_by_itself_and_its_space_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.compaction.interval = Duration::from_millis(50);
    config.compaction.keep_revisions = 20;
    let store = open(&config).await;
    for at in 0..3_000 {
        put(&store, &format!("/k/{}", at % 10), noise(at, 700)).await;
    }
    let newest = store.revision().0;
    eventually("old revisions are refused", || store.stats().compacted >= newest - 20).await;
    let compacted = store.stats().compacted;
    assert_eq!(compacted, newest - 20, "and the last ones kept");
    let at = |revision| store.range(RangeRequest::key(bytes("/k/1")).at(Revision(revision)));
    assert!(matches!(at(compacted - 1).await, Err(StorageError::Compacted { .. })));
    assert!(at(compacted).await.is_ok());
    store.checkpoint().await.unwrap();
    eventually("the records are gone", || store.stats().history < 200).await;
    assert!(store.stats().tables_bytes < 2_500_000, "{:?}", store.stats());
    assert_eq!(store.stats().keys, 10);
    store.close().await.unwrap();
    let store = open(&config).await;
    assert!(store.stats().compacted >= compacted, "what is forgotten stays so");
    assert_eq!(all(&store).await.len(), 10);
}

#[tokio::test]
async fn a_sparse_database_shrinks_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = DurableConfig::new(dir.path());
    config.compaction.interval = Duration::ZERO;
    config.last_good_interval = Duration::ZERO;
    let store = open(&config).await;
    for at in 0..60 {
        put(&store, &format!("/k/{at}"), noise(at, 500_000)).await;
    }
    store.checkpoint().await.unwrap();
    let full = store.stats().tables_bytes;
    for at in 0..60 {
        delete(&store, &format!("/k/{at}")).await;
    }
    put(&store, "/left", "1").await;
    store.compact(store.revision()).await.unwrap();
    store.checkpoint().await.unwrap();
    assert_eq!(store.stats().history, 0);
    store.close().await.unwrap();
    let store = open(&config).await;
    assert!(store.stats().tables_bytes < full / 4, "{} of {full}", store.stats().tables_bytes);
    assert_eq!(all(&store).await.len(), 1);
}

#[tokio::test]
async fn volatile_keys_cost_no_disk_and_revisions_never_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.volatile_prefixes = vec!["/volatile/".into()];
    let mut newest = Revision(0);
    for round in 0..4 {
        let store = open(&config).await;
        assert!(store.revision() > newest, "round {round}");
        assert!(get(&store, "/volatile/a").await.is_none(), "memory only");
        let listed = store.revision();
        let stale = WatchRequest { from: Revision(newest.0 + 1), ..watch_all(newest) };
        if round > 0 {
            let refused = store.watch(stale).await.err().expect("what vanished has no event");
            assert!(matches!(refused, StorageError::Compacted { .. }), "{refused:?}");
        }
        let mut watch = store.watch(watch_all(Revision(listed.0 + 1))).await.unwrap();
        put(&store, "/volatile/a", "1").await;
        put(&store, "/durable/a", format!("{round}")).await;
        put(&store, "/volatile/a", "2").await;
        newest = delete(&store, "/volatile/a").await;
        let mut seen = 0;
        while seen < 4 {
            seen += watch.next().await.unwrap().unwrap().events.len();
        }
        let kv = get(&store, "/durable/a").await.unwrap();
        assert_eq!((kv.value, kv.version), (bytes(format!("{round}")), round + 1));
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_replayed_log_gives_every_key_the_revision_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.volatile_prefixes = vec!["/volatile/".into()];
    let store = Arc::new(open(&config).await);
    let writes = (0..300_u64).map(|at| {
        let store = Arc::clone(&store);
        async move {
            let key = if at % 3 == 0 { format!("/volatile/{at}") } else { format!("/durable/{at}") };
            put(&*store, &key, noise(at, 300)).await
        }
    });
    futures::future::join_all(writes).await;
    let durable = RangeRequest::prefix(bytes("/durable/"));
    let before = store.range(durable.clone()).await.unwrap().kvs;
    assert_eq!(before.len(), 200);
    drop(store);
    assert_eq!(open(&config).await.range(durable).await.unwrap().kvs, before);
}

#[tokio::test]
async fn a_transaction_lives_in_memory_or_on_disk_but_not_in_both() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.volatile_prefixes = vec!["/volatile/".into()];
    let store = open(&config).await;
    let mut mixed = put_txn("/durable/a", "1");
    mixed.success.extend(put_txn("/volatile/a", "1").success);
    assert!(matches!(store.txn(mixed).await, Err(StorageError::Invalid { .. })));
    let everything = sampan_store::Op::Delete { key: bytes("/"), end: Some(bytes("0")) };
    let wipe = sampan_store::Txn { success: vec![everything], ..Default::default() };
    assert!(matches!(store.txn(wipe).await, Err(StorageError::Invalid { .. })));
    put(&store, "/volatile/a", "1").await;
    put(&store, "/durable/a", "1").await;
    assert_eq!(all(&store).await.len(), 2, "reads see both");
}

#[tokio::test]
async fn a_closed_store_refuses_everything_and_ends_its_watches() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&small(dir.path())).await;
    put(&store, "/a", "1").await;
    let mut watch = store.watch(watch_all(Revision(2))).await.unwrap();
    store.close().await.unwrap();
    let end = loop {
        match watch.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, StorageError::Unavailable { .. }), "{end:?}");
    assert!(watch.next().await.is_none());
    let refusals = [
        try_put(&store, "/a", "2").await.err(),
        store.range(RangeRequest::key(bytes("/a"))).await.err(),
        store.watch(watch_all(Revision(1))).await.err(),
        store.compact(Revision(1)).await.err(),
        store.snapshot(&mut Vec::new()).await.err(),
        store.checkpoint().await.err(),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Some(StorageError::Unavailable { .. })), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_transaction_larger_than_a_segment_is_refused_and_the_next_one_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&small(dir.path())).await;
    let refusal = try_put(&store, "/a", noise(1, 70_000)).await.unwrap_err();
    assert!(matches!(refusal, StorageError::TooLarge { .. }), "{refusal:?}");
    put(&store, "/a", noise(1, 60_000)).await;
    assert_eq!(get(&store, "/a").await.unwrap().value, noise(1, 60_000));
}

#[tokio::test]
async fn snapshots_go_from_any_store_to_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.volatile_prefixes = vec!["/volatile/".into()];
    let durable = open(&config).await;
    for at in 0..200 {
        put(&durable, &format!("/k/{at:03}"), "text ".repeat(at)).await;
    }
    put(&durable, "/volatile/x", "not in it").await;
    let expected = durable.range(RangeRequest::prefix(bytes("/k/"))).await.unwrap().kvs;
    let mut snapshot = Vec::new();
    durable.snapshot(&mut snapshot).await.unwrap();
    let memory = MemoryStore::new();
    memory.restore(&mut &snapshot[..]).await.unwrap();
    assert_eq!(all(&memory).await, expected);
    put(&memory, "/volatile/y", "kept out").await;
    let mut back = Vec::new();
    memory.snapshot(&mut back).await.unwrap();
    put(&durable, "/k/000", "to be undone").await;
    let restored = durable.restore(&mut &back[..]).await.unwrap();
    assert_eq!(all(&durable).await, expected);
    put(&durable, "/k/200", "goes on").await;
    drop(durable);
    let durable = open(&config).await;
    assert!(durable.revision() > restored);
    assert_eq!(all(&durable).await.len(), 201);
}

#[tokio::test]
async fn a_clean_end_leaves_a_snapshot_to_go_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.last_good_interval = Duration::from_secs(3_600);
    let path = dir.path().join("last-good.snapshot");
    open(&config).await.close().await.unwrap();
    assert!(!path.exists(), "an empty store needs none");
    let store = open(&config).await;
    put(&store, "/a", "1").await;
    store.close().await.unwrap();
    let memory = MemoryStore::new();
    memory.restore(&mut &std::fs::read(&path).unwrap()[..]).await.unwrap();
    assert_eq!(get(&memory, "/a").await.unwrap().value, "1");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let store = open(&config).await;
    put(&store, "/a", "2").await;
    store.close().await.unwrap();
    let after = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(before, after, "not more often than it says");
}
