//! One member: who it is, how it is made alone again, what it does without threads.

use std::sync::Arc;
use std::time::Duration;

use sampan_raft::{Member, NoPeers, OpenError, RaftStore, Start};
use sampan_store::conformance::{Store, run_all};
use sampan_store::{Background, Storage, StorageError};

use crate::support::{all, get, member, noise, open, put, settled, small};

#[tokio::test]
async fn a_member_without_threads_keeps_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    run_all(|| async {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut config = small(&dir.path().join(number.to_string()));
        config.segment_bytes = 2 << 20;
        config.background = Background::Inline;
        Arc::new(open(&config).await) as Store
    })
    .await;
}

#[tokio::test]
async fn one_that_is_alone_goes_on_under_another_name_and_keeps_its_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let store = open(&config).await;
    put(&store, "/a", "1").await;
    let (cluster, revision) = (store.cluster_id(), store.revision());
    assert!(!cluster.is_none());
    store.close().await.unwrap();
    for start in [Start::Bootstrap, Start::ForceNew] {
        let mut config = member(&config);
        config.member = Member { id: 8, name: "other".into(), addresses: Vec::new(), key: [8; 32] };
        let store = RaftStore::open(config, start, Arc::new(NoPeers)).await.unwrap();
        assert_eq!((store.id(), store.cluster_id(), store.revision()), (8, cluster, revision));
        assert_eq!(get(&*store, "/a").await.unwrap().value, "1");
    }
    let joining = RaftStore::open(member(&config), Start::Join, Arc::new(NoPeers)).await;
    let error = joining.expect_err("it is of another group");
    assert!(matches!(error, OpenError::Foreign { found: 8, .. }), "{error:?}");
    assert!(!error.to_string().contains('\n'));
}

#[tokio::test]
async fn one_that_waits_to_be_taken_in_is_known_by_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let waiting = RaftStore::open(member(&config), Start::Join, Arc::new(NoPeers)).await.unwrap();
    let id = waiting.id();
    waiting.close().await.unwrap();
    drop(waiting);
    let said = std::fs::read_to_string(config.dir.join("joining")).unwrap();
    assert_eq!(said.trim_end(), format!("{id:016x}"));
    // A group of its own is one that it is in.
    let store = RaftStore::open(member(&config), Start::ForceNew, Arc::new(NoPeers)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = RaftStore::open(member(&config), Start::Join, Arc::new(NoPeers)).await.unwrap();
    assert!(!config.dir.join("joining").exists());
    store.close().await.unwrap();
}

#[tokio::test]
async fn one_that_is_alone_sleeps_while_nothing_is_asked_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = settled(&small(dir.path())).await;
    put(&store, "/a", "1").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_park_count(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Ticks alone would be eighty.
    let woken = metrics.worker_park_count(0) - before;
    assert!(woken < 20, "woken {woken} times in a second");
    put(&store, "/a", "2").await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn one_that_waits_to_be_taken_in_serves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = RaftStore::open(member(&small(dir.path())), Start::Join, Arc::new(NoPeers)).await.unwrap();
    assert!(store.cluster_id().is_none());
    let mut snapshot = Vec::new();
    let refused = store.snapshot(&mut snapshot).await.unwrap_err();
    assert!(matches!(refused, StorageError::Unavailable { .. }), "{refused:?}");
    let refused = store.restore(&mut &snapshot[..]).await.unwrap_err();
    assert!(matches!(refused, StorageError::Invalid { .. }), "{refused:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_log_lets_go_of_what_is_in_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&small(dir.path())).await;
    for at in 0..2_000 {
        put(&store, &format!("/k/{}", at % 50), noise(at, 1_000)).await;
    }
    store.checkpoint().await.unwrap();
    let mut log = u64::MAX;
    for _ in 0..500 {
        put(&store, "/k/x", "x").await;
        log = store.stats().log_bytes;
        if log <= 3 * (64 << 10) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(log <= 3 * (64 << 10), "2 MB were written, and {log} bytes are still log");
    drop(store);
    assert_eq!(all(&open(&small(dir.path())).await).await.len(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_one_sync_and_many_share_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(settled(&small(dir.path())).await);
    put(&*store, "/warm", "1").await;
    let before = store.stats();
    for at in 0..20 {
        put(&*store, &format!("/one/{at}"), "1").await;
    }
    let after = store.stats();
    assert_eq!(after.fsyncs - before.fsyncs, 20);
    let writes = (0..200).map(|at| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { put(&*store, &format!("/many/{at}"), "1").await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let syncs = store.stats().fsyncs - after.fsyncs;
    assert!(syncs <= 60, "200 writes at once took {syncs} syncs");
}

#[tokio::test]
async fn volatile_entries_are_let_go_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(dir.path());
    config.volatile_prefixes = vec!["/v/".into()];
    let store = open(&config).await;
    let before = store.stats();
    for at in 0..1_500 {
        put(&store, &format!("/v/{}", at % 5), "beat").await;
    }
    let after = store.stats();
    assert!(after.checkpoints > before.checkpoints, "entries in memory would pile up");
    assert!(after.checkpoints < before.checkpoints + 40, "{after:?}");
    assert!(after.log_written - before.log_written < 1_500 * 120, "{after:?}");
}
