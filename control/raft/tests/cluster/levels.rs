//! Members of different builds: what the group uses, and when it goes on.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use sampan_raft::{MembershipError, OpenError, RaftConfig, RaftStore, Start};
use sampan_store::{Level, Revision, Storage, WatchEvent, WatchRequest};
use tokio::time::sleep;

use crate::support::{Cluster, config, eventually, get, get_local, put, put_bytes, put_surely};

fn old() -> Level {
    Level::OLDEST
}

fn new() -> Level {
    Level::NEWEST
}

fn format(cluster: &Cluster, number: usize) -> String {
    std::fs::read_to_string(cluster.nodes[number].dir.path().join("format")).unwrap()
}

async fn reaches(cluster: &Cluster, level: Level, among: &[usize]) {
    for number in among {
        let store = cluster.store(*number);
        eventually(&format!("member {number} is at {level}"), || async { store.level() == level }).await;
    }
}

/// Opens a member's directory as a build of `level` does; why it cannot.
async fn refused(cluster: &Cluster, number: usize, level: Level) -> String {
    let node = &cluster.nodes[number];
    let mut config: RaftConfig = config(node.dir.path().to_owned(), node.member.clone());
    config.store.level = level;
    match RaftStore::open(config, Start::Join, cluster.net.peers(node.member.id)).await {
        Err(error @ (OpenError::Store(_) | OpenError::Log { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_goes_up_only_with_the_last_member_and_the_way_back_ends_there() {
    let mut cluster = Cluster::at(old(), 3).await;
    let learner = cluster.add().await;
    let record = cluster.nodes[learner].member.clone();
    cluster.store(0).add_learner(record).await.unwrap();
    for (step, number) in [2, 1, 0].into_iter().enumerate() {
        cluster.stop(number).await;
        cluster.nodes[number].level = new();
        cluster.restart(number).await;
        put_surely(&*cluster.store(number), &format!("/k/{step}"), "v").await;
        put_surely(&*cluster.store(number), &format!("/leases/{step}"), "v").await;
    }
    // All voters understand it, and the learner does not yet.
    sleep(Duration::from_millis(2_500)).await;
    reaches(&cluster, old(), &[0, 1, 2, learner]).await;
    let levels = cluster.store(1).levels().await;
    assert_eq!(levels.group, old());
    let behind: Vec<_> = levels.members.iter().filter(|(_, level)| *level != Some(new())).collect();
    assert_eq!(behind, [&(cluster.id(learner), Some(old()))]);

    // One of them goes back, and comes again.
    for level in [old(), new()] {
        cluster.stop(1).await;
        cluster.nodes[1].level = level;
        cluster.restart(1).await;
        put_surely(&*cluster.store(1), "/k/back", &level.to_string()).await;
    }
    assert_eq!(format(&cluster, 1), "sampan-store 2\n");

    cluster.stop(learner).await;
    cluster.nodes[learner].level = new();
    cluster.restart(learner).await;
    reaches(&cluster, new(), &[0, 1, 2, learner]).await;
    for number in cluster.running() {
        assert_eq!(format(&cluster, number), "sampan-store 4\n");
    }
    // Now there is no way back, and trying does no harm.
    cluster.stop(1).await;
    let why = refused(&cluster, 1, old()).await;
    assert!(why.contains("format 4; this program knows up to 2") && !why.contains('\n'), "{why}");
    cluster.restart(1).await;
    assert_eq!(get(&*cluster.store(1), "/k/back").await.as_deref(), Some(new().to_string().as_str()));
    put_surely(&*cluster.store(1), "/k/after", "v").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_outlives_restarts_and_comes_with_a_snapshot() {
    let mut cluster = Cluster::of(3).await;
    reaches(&cluster, new(), &[0, 1, 2]).await;
    for number in 0..3 {
        cluster.crash(number).await;
    }
    for number in 0..3 {
        cluster.restart(number).await;
    }
    put_surely(&*cluster.store(0), "/k", "v").await;
    reaches(&cluster, new(), &[0, 1, 2]).await;
    // Whoever comes late gets the state as a whole.
    let leader = cluster.leader().await;
    let mut random = StdRng::seed_from_u64(7);
    for number in 0..100 {
        let mut value = vec![0; 64 << 10];
        random.fill_bytes(&mut value);
        put_bytes(&*cluster.store(leader), &format!("/big/{number}"), value).await.unwrap();
    }
    cluster.store(leader).checkpoint().await.unwrap();
    // The log is let go behind the checkpoint, in the background.
    sleep(Duration::from_millis(500)).await;
    let late = cluster.add().await;
    let record = cluster.nodes[late].member.clone();
    cluster.store(leader).add_voter(record).await.unwrap();
    assert!(cluster.net.counts().frames.load(std::sync::atomic::Ordering::SeqCst) > 0, "it got a snapshot");
    reaches(&cluster, new(), &[late]).await;
    cluster.stop(late).await;
    assert_eq!(format(&cluster, late), "sampan-store 4\n");
    assert!(refused(&cluster, late, old()).await.contains("format 4"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_too_old_is_not_taken_in() {
    let mut cluster = Cluster::of(1).await;
    reaches(&cluster, new(), &[0]).await;
    cluster.level = old();
    let late = cluster.add().await;
    let record = cluster.nodes[late].member.clone();
    let error = cluster.store(0).add_learner(record.clone()).await.unwrap_err();
    assert!(matches!(error, MembershipError::TooOld { .. }), "{error:?}");
    let why = error.to_string();
    assert!(
        why.contains("s2 is too old")
            && why.contains("level 1 (0.2)")
            && why.contains(&format!("at level {}", new())),
        "{why}"
    );
    assert_eq!(cluster.store(0).members().len(), 1, "nothing is half done");
    cluster.stop(late).await;
    cluster.nodes[late].level = new();
    cluster.restart(late).await;
    cluster.store(0).add_voter(record).await.unwrap();
    assert_eq!(cluster.store(late).level(), new());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_member_that_slipped_through_gets_nothing_and_holds_nobody_up() {
    let mut cluster = Cluster::of(2).await;
    reaches(&cluster, new(), &[0, 1]).await;
    cluster.level = old();
    let late = cluster.add().await;
    // Nobody hears from it when it is taken in, so nobody knows how old it is.
    let record = cluster.nodes[late].member.clone();
    cluster.net.cut(record.id);
    let taking = cluster.store(0);
    let taken = tokio::spawn(async move { taking.add_learner(record).await });
    eventually("it is a member", || async { cluster.store(0).members().len() == 3 }).await;
    cluster.net.heal(cluster.id(late));
    put_surely(&*cluster.store(0), "/k/1", "v").await;
    put_surely(&*cluster.store(1), "/k/2", "v").await;
    eventually("it answers", || async {
        let levels = cluster.store(0).levels().await;
        levels.members.contains(&(cluster.id(late), Some(old())))
    })
    .await;
    assert_eq!(cluster.store(late).level(), old());
    assert_eq!(cluster.store(late).revision(), Revision(0), "it gets no entries");
    cluster.stop(late).await;
    cluster.nodes[late].level = new();
    cluster.restart(late).await;
    eventually("it has caught up", || async {
        cluster.store(late).level() == new() && get_local(&*cluster.store(late), "/k/2").await.is_some()
    })
    .await;
    taken.await.unwrap().unwrap();
    cluster.end().await;
}

/// Writes many leases at once; how many entries of the log that took.
async fn leases(cluster: &Cluster, count: usize) -> u64 {
    let leader = cluster.store(cluster.leader().await);
    let before = leader.log_position().0;
    let writes = (0..count).map(|number| {
        let store = Arc::clone(&leader);
        async move { put(&*store, &format!("/leases/{number}"), "v").await.unwrap() }
    });
    let mut revisions: Vec<u64> = join_all(writes).await.into_iter().map(|revision| revision.0).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), count, "each has a revision of its own");
    leader.log_position().0 - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_leases_share_entries_once_the_group_knows_how_and_every_watch_sees_each() {
    const COUNT: usize = 300;
    for (level, most) in [(old(), u64::MAX), (new(), COUNT as u64 / 2)] {
        let mut cluster = Cluster::at(level, 3).await;
        reaches(&cluster, level, &[0, 1, 2]).await;
        let from = cluster.store(0).revision();
        let mut watches = Vec::new();
        for number in 0..3 {
            let store = cluster.store(number);
            eventually("it has caught up", || async { store.revision() >= from }).await;
            let request = WatchRequest {
                start: "/leases/".into(),
                end: Some("/leases0".into()),
                from: Revision(from.0 + 1),
            };
            watches.push(store.watch(request).await.unwrap());
        }
        let entries = leases(&cluster, COUNT).await;
        assert!(entries <= most, "{entries} entries for {COUNT} leases at {level}");
        if level == old() {
            assert_eq!(entries, COUNT as u64);
        }
        for watch in &mut watches {
            let (mut seen, mut last) = (0, 0);
            while seen < COUNT {
                for event in watch.next().await.unwrap().unwrap().events {
                    let WatchEvent::Put { kv, .. } = event else { panic!("{event:?}") };
                    let revision = kv.mod_revision.0;
                    assert!(revision > last, "in order");
                    (seen, last) = (seen + 1, revision);
                }
            }
        }
        // Everybody goes on alike after a restart, when only placeholders are left on disk.
        let revision = cluster.store(0).revision();
        cluster.crash(1).await;
        cluster.restart(1).await;
        assert_eq!(get(&*cluster.store(1), "/leases/7").await.as_deref(), Some("v"));
        put_surely(&*cluster.store(1), "/k", "v").await;
        let all: Vec<_> = (0..3).map(|number| cluster.store(number)).collect();
        eventually("revisions are the same everywhere", || async {
            all[0].revision() > revision && all.iter().all(|store| store.revision() == all[0].revision())
        })
        .await;
        drop(all);
        cluster.end().await;
    }
}
