//! Changes of the group, asked of any member.

use std::time::Duration;

use sampan_raft::Start;
use sampan_raft::wire::MembershipError;
use sampan_store::{Storage, StorageError};
use tokio::time::{sleep, timeout};

use crate::support::{Cluster, SOON, eventually, get, member, put, put_surely};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_is_told_so() {
    let mut cluster = Cluster::of(4).await;
    let leader = cluster.leader().await;
    let gone = cluster.other(&[leader]);
    let id = cluster.id(gone);
    // Away while it is removed, so that nobody can have told it.
    cluster.crash(gone).await;
    let asked = cluster.other(&[leader, gone]);
    cluster.store(asked).remove(id).await.unwrap();
    assert!(cluster.store(leader).members().iter().all(|standing| standing.member.id != id));
    cluster.start(gone, Start::Join).await;
    let store = cluster.store(gone);
    let mut removed = store.removed();
    timeout(SOON, removed.wait_for(|removed| *removed)).await.unwrap().unwrap();
    let error = put(&*store, "a", "1").await.unwrap_err();
    assert!(error.to_string().contains("was removed"), "{error}");
    // The others go on as before, under the same leader.
    put(&*cluster.store(asked), "a", "2").await.unwrap();
    assert_eq!(cluster.leader_of(&[leader]).await, leader);
    // And it can be taken in again.
    drop(store);
    cluster.crash(gone).await;
    cluster.start(gone, Start::Join).await;
    let again = cluster.nodes[gone].member.clone();
    cluster.store(leader).add_voter(again).await.unwrap();
    assert_eq!(get(&*cluster.store(gone), "a").await.as_deref(), Some("2"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_itself_and_learners_can_be_removed() {
    let mut cluster = Cluster::of(3).await;
    let learner = cluster.add().await;
    let record = cluster.nodes[learner].member.clone();
    let leader = cluster.leader().await;
    // A follower passes it on.
    cluster.store(cluster.other(&[leader, learner])).add_learner(record.clone()).await.unwrap();
    put(&*cluster.store(learner), "a", "1").await.unwrap();
    cluster.store(leader).remove(record.id).await.unwrap();
    cluster.crash(learner).await;
    let id = cluster.id(leader);
    cluster.store(leader).remove(id).await.unwrap();
    cluster.crash(leader).await;
    let next = cluster.leader().await;
    put_surely(&*cluster.store(next), "a", "2").await;
    let members = cluster.store(next).standings().await.unwrap();
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|standing| standing.voter && standing.member.id != id));
    // With two left, both must answer: neither may be lost, and the last one cannot go.
    let other = cluster.other(&[next]);
    let (last, gone) = (cluster.id(next), cluster.id(other));
    cluster.store(next).remove(gone).await.unwrap();
    let error = cluster.store(next).remove(last).await.unwrap_err();
    assert!(matches!(error, MembershipError::QuorumLost { .. }), "{error}");
    put(&*cluster.store(next), "a", "3").await.unwrap();
    cluster.crash(other).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cannot_be_are_refused_by_name() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.other(&[leader]);
    let store = cluster.store(follower);
    let unknown = member(99).id;
    assert_eq!(store.remove(unknown).await, Err(MembershipError::NotMember { id: unknown }));
    assert_eq!(store.promote(unknown).await, Err(MembershipError::NotMember { id: unknown }));
    let mut twin = member(99);
    twin.name = cluster.nodes[leader].member.name.clone();
    let error = store.add_learner(twin).await.unwrap_err();
    assert!(
        matches!(&error, MembershipError::NameTaken { holder, .. } if *holder == cluster.id(leader)),
        "{error}"
    );
    // With one of three gone, another one must stay.
    let gone = cluster.other(&[leader, follower]);
    cluster.crash(gone).await;
    sleep(Duration::from_millis(1_500)).await;
    let error = store.remove(cluster.id(follower)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("lose its quorum") && text.contains(&cluster.nodes[gone].member.name), "{text}");
    // The one that is gone may go.
    store.remove(cluster.id(gone)).await.unwrap();
    put(&*store, "a", "1").await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_move_to_another_address() {
    let mut cluster = Cluster::of(3).await;
    let mut moved = cluster.nodes[1].member.clone();
    moved.addresses = vec!["elsewhere.test:6443".into()];
    cluster.store(1).update_member(moved.clone()).await.unwrap();
    for number in 0..3 {
        let store = cluster.store(number);
        eventually("everybody knows", || async { store.members()[1].member == moved }).await;
    }
    put(&*cluster.store(1), "a", "1").await.unwrap();
    // It is part of what survives.
    cluster.crash(0).await;
    cluster.restart(0).await;
    let store = cluster.store(0);
    eventually("it is known again", || async { store.members().get(1).is_some_and(|s| s.member == moved) })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_knows_how_everybody_stands() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let gone = cluster.other(&[leader]);
    cluster.crash(gone).await;
    for number in 0..20 {
        put(&*cluster.store(leader), "a", &number.to_string()).await.unwrap();
    }
    let asked = cluster.store(cluster.other(&[leader, gone]));
    eventually("the one that is gone is seen to be", || async {
        let standings = asked.standings().await.unwrap();
        let of = |number: usize| standings.iter().find(|s| s.member.id == cluster.id(number)).unwrap();
        of(leader).leader
            && of(gone).reachable == Some(false)
            && of(gone).lag >= Some(20)
            && standings.iter().filter(|s| s.reachable == Some(true)).count() == 2
    })
    .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_keep_their_kind_on_the_way_from_the_leader() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let store = cluster.store(cluster.other(&[leader]));
    let newest = put(&*store, "a", "1").await.unwrap();
    let ahead = sampan_store::Revision(newest.0 + 1_000);
    assert!(matches!(store.compact(ahead).await, Err(StorageError::Future { .. })));
    let large = vec![0; sampan_store::MAX_TXN_BYTES + 1];
    let refused = crate::support::put_bytes(&*store, "a", large).await;
    assert!(matches!(refused, Err(StorageError::TooLarge { .. })));
    let refused = put(&*store, "", "1").await;
    assert!(matches!(refused, Err(StorageError::Invalid { .. })));
    put(&*store, "a", "2").await.unwrap();
    store.compact(newest).await.unwrap();
    cluster.end().await;
}
