//! Leaders that are lost, that hand over, and that are cut off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use sampan_store::{Revision, Storage, WatchEvent, WatchRequest};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Cluster, SOON, TIMING, eventually, get, get_local, put, put_surely};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_followed_by_another_and_no_acknowledged_write_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let asked = cluster.store(cluster.other(&[first]));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (Arc::clone(&asked), Arc::clone(&stop));
        async move {
            let mut acknowledged: BTreeMap<String, Revision> = BTreeMap::new();
            for number in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let key = format!("/k/{number}");
                if let Ok(revision) = put(&*store, &key, &key).await {
                    acknowledged.insert(key, revision);
                }
            }
            acknowledged
        }
    });
    sleep(Duration::from_millis(300)).await;
    let before = cluster.store(first).revision();
    cluster.crash(first).await;
    let second = cluster.leader().await;
    assert_ne!(second, first);
    sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);
    let acknowledged = writer.await.unwrap();
    assert!(acknowledged.values().any(|revision| *revision > before), "writes went on");
    cluster.restart(first).await;
    let revisions: Vec<_> = acknowledged.values().copied().collect();
    assert_eq!(revisions.len(), acknowledged.values().collect::<std::collections::BTreeSet<_>>().len());
    for number in 0..3 {
        let store = cluster.store(number);
        for (key, revision) in &acknowledged {
            let found = store.range(sampan_store::RangeRequest::key(key.clone().into_bytes())).await.unwrap();
            assert_eq!(found.kvs.len(), 1, "{key} on member {number}");
            assert_eq!(found.kvs[0].mod_revision, *revision);
        }
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request_and_on_shutdown() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let second = cluster.other(&[first]);
    // Asked of a third member: the leader does it.
    let third = cluster.other(&[first, second]);
    cluster.store(third).transfer_leadership(Some(cluster.id(second))).await.unwrap();
    eventually("the one that was named leads", || async { cluster.leader().await == second }).await;
    let before = put_surely(&*cluster.store(first), "a", "1").await;
    let begin = Instant::now();
    cluster.stop(second).await;
    let next = cluster.leader().await;
    let after = put_surely(&*cluster.store(next), "a", "2").await;
    assert!(after > before);
    // Without handing over, the others would first have to miss it.
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_cut_off_does_not_depose_the_leader_when_it_is_back() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let away = cluster.other(&[leader]);
    let term = cluster.store(leader).leadership().borrow().term;
    cluster.net.cut(cluster.id(away));
    // Long enough for several elections.
    sleep(Duration::from_secs(3)).await;
    put(&*cluster.store(leader), "a", "1").await.unwrap();
    cluster.net.heal(cluster.id(away));
    let store = cluster.store(away);
    eventually("it has what it missed", || async { get_local(&*store, "a").await.as_deref() == Some("1") })
        .await;
    sleep(Duration::from_secs(1)).await;
    let now = *cluster.store(leader).leadership().borrow();
    assert!(now.mine && now.term == term, "{now:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_not_sent_to_a_leader_that_has_fallen_silent() {
    let cluster = Cluster::of(3).await;
    // An election that takes two rounds is longer than a write is held back: then it is tried again.
    for _ in 0..4 {
        let first = cluster.leader().await;
        let (second, third) = (cluster.other(&[first]), 3 - first - cluster.other(&[first]));
        // Both have a stream to the leader.
        put_surely(&*cluster.store(second), "a", "1").await;
        put_surely(&*cluster.store(third), "a", "2").await;
        cluster.net.cut(cluster.id(first));
        sleep(Duration::from_millis(TIMING.election_min + 100)).await;
        assert_eq!(cluster.store(second).leadership().borrow().leader, Some(cluster.id(first)));
        let (store, other) = (cluster.store(second), cluster.store(third));
        let written = tokio::join!(put(&*store, "a", "3"), put(&*other, "b", "4"));
        cluster.net.heal(cluster.id(first));
        if let (Ok(_), Ok(_)) = written {
            cluster.end().await;
            return;
        }
    }
    panic!("nobody could say what became of the writes, each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_confirms_nothing() {
    let cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let old = cluster.store(first);
    put(&*old, "a", "old").await.unwrap();
    cluster.net.cut(cluster.id(first));
    let rest: Vec<_> = cluster.running().into_iter().filter(|number| *number != first).collect();
    let second = cluster.leader_of(&rest).await;
    let cut_off = tokio::spawn({
        let old = Arc::clone(&old);
        async move {
            let (written, read) = tokio::join!(put(&*old, "a", "lost"), old.current_revision());
            (written.is_err(), read.is_err())
        }
    });
    put(&*cluster.store(second), "a", "new").await.unwrap();
    assert_eq!(cut_off.await.unwrap(), (true, true));
    cluster.net.heal(cluster.id(first));
    eventually("it follows", || async { get_local(&*old, "a").await.as_deref() == Some("new") }).await;
    assert_eq!(get(&*old, "a").await.as_deref(), Some("new"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volatile_keys_survive_leaders_and_restarts() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    for number in 0..50 {
        put(&*cluster.store(first), &format!("/leases/{number}"), "held").await.unwrap();
    }
    put(&*cluster.store(cluster.other(&[first])), "/leases/7", "renewed").await.unwrap();
    let newest = cluster.store(first).revision();
    cluster.crash(first).await;
    let second = cluster.leader().await;
    assert_eq!(get(&*cluster.store(second), "/leases/7").await.as_deref(), Some("renewed"));
    let next = put_surely(&*cluster.store(second), "/leases/8", "renewed").await;
    assert!(next > newest, "{next} {newest}");
    // One that restarts gets them from the others; then each of the others goes, too.
    cluster.restart(first).await;
    assert_eq!(get(&*cluster.store(first), "/leases/49").await.as_deref(), Some("held"));
    for number in [second, cluster.other(&[first, second])] {
        cluster.crash(number).await;
        cluster.leader().await;
        cluster.restart(number).await;
        assert_eq!(get(&*cluster.store(number), "/leases/8").await.as_deref(), Some("renewed"));
    }
    for number in cluster.running() {
        assert_eq!(get(&*cluster.store(number), "/leases/0").await.as_deref(), Some("held"));
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_at_once_may_restart() {
    let mut cluster = Cluster::of(3).await;
    let newest = put(&*cluster.store(0), "a", "1").await.unwrap();
    for number in 0..3 {
        cluster.crash(number).await;
    }
    for number in 0..3 {
        cluster.restart(number).await;
    }
    for number in 0..3 {
        assert_eq!(get(&*cluster.store(number), "a").await.as_deref(), Some("1"));
    }
    assert!(put_surely(&*cluster.store(1), "a", "2").await > newest);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_a_follower_sees_every_event_in_order_across_a_change_of_the_leader() {
    let mut cluster = Cluster::of(3).await;
    let first = cluster.leader().await;
    let watched = cluster.other(&[first]);
    let store = cluster.store(watched);
    let from = Revision(store.current_revision().await.unwrap().0 + 1);
    let request = WatchRequest { start: "/w/".into(), end: Some("/w0".into()), from };
    let mut watch = store.watch(request).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, stop) = (cluster.store(watched), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("/w/{writer}/{number}");
                    if let Ok(revision) = put(&*store, &key, "v").await {
                        acknowledged.push((revision, key));
                    }
                }
                acknowledged
            })
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    cluster.crash(first).await;
    cluster.leader().await;
    sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    acknowledged.sort();
    let last = put_surely(&*store, "/w/last", "v").await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(revision, _)| *revision < last) {
        let batch = timeout(SOON, watch.next()).await.unwrap().unwrap().unwrap();
        for event in batch.events {
            let WatchEvent::Put { kv, .. } = event else { panic!("{event:?}") };
            seen.push((kv.mod_revision, String::from_utf8(kv.key.to_vec()).unwrap()));
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, none twice");
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    for event in &acknowledged {
        assert!(seen.contains(event), "missed {event:?}");
    }
    cluster.end().await;
}
