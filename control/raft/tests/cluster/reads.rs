//! Reads on any member are linearizable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sampan_store::Storage;
use tokio::time::Instant;

use crate::support::{Cluster, get, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_never_reads_what_is_older_than_what_was_acknowledged() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    put(&*cluster.store(leader), "n", "0").await.unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    let writer = tokio::spawn({
        let (store, acknowledged) = (cluster.store(leader), Arc::clone(&acknowledged));
        async move {
            let mut number = 0;
            while Instant::now() < until {
                number += 1;
                put(&*store, "n", &number.to_string()).await.unwrap();
                acknowledged.store(number, Ordering::SeqCst);
            }
            number
        }
    });
    let readers: Vec<_> = (0..6)
        .map(|reader| {
            let (store, acknowledged) = (cluster.store(reader % 3), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let (mut reads, mut before) = (0, 0);
                while Instant::now() < until {
                    let least = acknowledged.load(Ordering::SeqCst);
                    let read: u64 = get(&*store, "n").await.unwrap().parse().unwrap();
                    assert!(read >= least && read >= before, "read {read} after {least} and {before}");
                    before = read;
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    assert!(writer.await.unwrap() > 10);
    for reader in readers {
        assert!(reader.await.unwrap() > 10);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follower_wrote_it_reads_at_once_even_without_asking() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let store = cluster.store(cluster.other(&[leader]));
    for number in 0..100 {
        let value = number.to_string();
        let revision = put(&*store, "n", &value).await.unwrap();
        assert!(store.revision() >= revision);
        assert_eq!(crate::support::get_local(&*store, "n").await, Some(value));
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_cluster_confirms_reads_and_sends_no_entries_for_them() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    put(&*cluster.store(leader), "n", "1").await.unwrap();
    let before = cluster.net.counts().appends.load(Ordering::SeqCst);
    for number in 0..3 {
        for _ in 0..20 {
            assert_eq!(get(&*cluster.store(number), "n").await.as_deref(), Some("1"));
        }
    }
    let sent = cluster.net.counts().appends.load(Ordering::SeqCst) - before;
    assert!(sent <= 2, "{sent} appends for reads");
    cluster.end().await;
}
