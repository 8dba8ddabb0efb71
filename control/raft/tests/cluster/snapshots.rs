//! Members that join, or come back, by a snapshot.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::{RngCore, SeedableRng, rngs::StdRng};
use sampan_raft::Start;
use sampan_store::Storage;
use tokio::time::sleep;

use crate::support::{Cluster, eventually, get, put, put_bytes};

/// Enough for many frames, and more than what is kept of the log.
const KEYS: usize = 160;
const VALUE: usize = 64 << 10;

/// A member alone whose log is gone: whoever joins needs a snapshot.
async fn with_much_state() -> Cluster {
    let cluster = Cluster::alone().await;
    let store = cluster.store(0);
    let mut random = StdRng::seed_from_u64(7);
    for number in 0..KEYS {
        let mut value = vec![0; VALUE];
        random.fill_bytes(&mut value);
        put_bytes(&*store, &format!("/big/{number:04}"), value).await.unwrap();
    }
    put(&*store, "/leases/a", "held").await.unwrap();
    store.checkpoint().await.unwrap();
    // The log is let go behind the checkpoint, in the background.
    sleep(Duration::from_millis(500)).await;
    cluster
}

async fn same_everywhere(cluster: &Cluster) {
    let all = sampan_store::RangeRequest::prefix("/");
    let first = cluster.store(0).range(all.clone()).await.unwrap();
    assert!(first.kvs.len() > KEYS);
    for number in cluster.running() {
        let found = cluster.store(number).range(all.clone()).await.unwrap();
        assert!(found.kvs == first.kvs, "member {number} has something else");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_joins_by_snapshot_while_writes_go_on() {
    let mut cluster = with_much_state().await;
    let joined = cluster.add().await;
    let member = cluster.nodes[joined].member.clone();
    let store = cluster.store(0);
    let writes = async {
        for number in 0..100 {
            put(&*store, "/n", &number.to_string()).await.unwrap();
        }
    };
    let (added, ()) = tokio::join!(store.add_learner(member), writes);
    added.unwrap();
    assert!(cluster.net.counts().frames.load(Ordering::SeqCst) > 20, "it came by snapshot");
    let standing = store.members();
    assert!(!standing[1].voter && !standing[1].leader);
    let learner = cluster.store(joined);
    assert_eq!(get(&*learner, "/leases/a").await.as_deref(), Some("held"));
    assert_eq!(get(&*learner, "/n").await.as_deref(), Some("99"));
    assert_eq!(learner.cluster_id(), store.cluster_id());
    same_everywhere(&cluster).await;
    // It writes through the leader, and has what it wrote.
    put(&*learner, "/n", "mine").await.unwrap();
    store.promote(cluster.id(joined)).await.unwrap();
    assert!(store.members()[1].voter);
    // What came by snapshot is on its disk.
    drop(learner);
    cluster.crash(joined).await;
    cluster.restart(joined).await;
    same_everywhere(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_it_broke_off() {
    let mut cluster = with_much_state().await;
    let joined = cluster.add().await;
    let member = cluster.nodes[joined].member.clone();
    cluster.net.counts().break_after.store(25, Ordering::SeqCst);
    cluster.store(0).add_learner(member).await.unwrap();
    let counts = cluster.net.counts();
    assert_eq!(counts.break_after.load(Ordering::SeqCst), 0, "it broke");
    assert!(counts.resumed.load(Ordering::SeqCst) >= 1, "it went on");
    let frames = counts.frames.load(Ordering::SeqCst);
    // The whole is about 41 frames, the head included; a second start from the beginning would
    // have made it 66.
    assert!((35..60).contains(&frames), "{frames} frames in all");
    same_everywhere(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_long_comes_back_by_snapshot() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let away = cluster.other(&[leader]);
    cluster.crash(away).await;
    let store = cluster.store(leader);
    let mut random = StdRng::seed_from_u64(8);
    for number in 0..KEYS {
        let mut value = vec![0; VALUE];
        random.fill_bytes(&mut value);
        put_bytes(&*store, &format!("/big/{number:04}"), value).await.unwrap();
    }
    put(&*store, "/leases/a", "held").await.unwrap();
    for number in cluster.running() {
        cluster.store(number).checkpoint().await.unwrap();
    }
    sleep(Duration::from_millis(500)).await;
    cluster.start(away, Start::Join).await;
    let back = cluster.store(away);
    let newest = store.revision();
    eventually("it has caught up", || async { back.revision() >= newest }).await;
    assert!(cluster.net.counts().frames.load(Ordering::SeqCst) > 20, "it came by snapshot");
    same_everywhere(&cluster).await;
    cluster.end().await;
}
