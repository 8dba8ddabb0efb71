//! Certificates are renewed while everything runs, and after a long sleep.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use sampan_apiserver::pki::not_after;
use sampan_join::{MachineRole, RenewFrom, Renewal, Renewer, joined, prepare_server, renew};
use sampan_store::{Op, Storage, Txn};

use crate::harness::{Cluster, PATIENCE, cluster, cluster_with, short};

type Seen = Arc<Mutex<Vec<Renewal>>>;

fn renewer(joined: sampan_join::Joined, from: RenewFrom) -> (Renewer, Seen) {
    let seen = Seen::default();
    let installed = Arc::clone(&seen);
    let made = Renewer::new(
        joined,
        from,
        Arc::new(|| vec!["10.0.0.8:6443".to_owned()]),
        Arc::new(Timestamp::now),
        move |renewal| installed.lock().push(renewal),
    );
    (made, seen)
}

fn servers(cluster: &Cluster) -> RenewFrom {
    let url = cluster.url();
    RenewFrom::Servers(Arc::new(move || vec![url.clone()]))
}

#[tokio::test]
async fn a_node_renews_after_two_thirds_of_its_certificates_life() {
    let cluster = cluster_with(short(6), |_| {}).await;
    let (machine, found) = cluster.node("n1").await;
    let first = found.certificates.clone();
    let (renewer, seen) = renewer(found, servers(&cluster));
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(renewer.run(stop.clone()));
    let begun = std::time::Instant::now();
    while seen.lock().is_empty() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Not at once, and before the old one ended.
    let renewal = seen.lock().first().cloned().unwrap();
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(Timestamp::now() < not_after(&first[0].pem).unwrap());
    stop.cancel();
    task.await.unwrap();
    let (role, identity) = &renewal.identities[0];
    assert_eq!(*role, MachineRole::Node);
    assert_ne!(identity.certificate_pem, first[0].pem);
    let again = joined(&machine.wanted.dir).unwrap().unwrap();
    assert_eq!(again.key.pem(), identity.key_pem);
    assert_ne!(again.certificates, first);
    let record = cluster.record("/sampan/identities/node/n1").await.unwrap();
    assert_eq!(record["addresses"][0], "10.0.0.8:6443");
}

#[tokio::test]
async fn nothing_is_renewed_that_is_fresh() {
    let cluster = cluster().await;
    let (_machine, found) = cluster.node("n1").await;
    let before = cluster.storage.revision();
    let (mut renewer, seen) = renewer(found, servers(&cluster));
    assert!(!renewer.look().await.unwrap());
    assert!(!renewer.look().await.unwrap());
    assert!(seen.lock().is_empty());
    assert_eq!(cluster.storage.revision(), before);
}

#[tokio::test]
async fn a_node_that_slept_past_the_end_of_its_certificate_comes_back_by_its_key() {
    let cluster = cluster_with(short(2), |_| {}).await;
    let (machine, found) = cluster.node("n1").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(Timestamp::now() > not_after(&found.certificates[0].pem).unwrap());
    let (mut renewer, seen) = renewer(found, servers(&cluster));
    assert!(renewer.look().await.unwrap());
    assert_eq!(seen.lock().len(), 1);
    let again = joined(&machine.wanted.dir).unwrap().unwrap();
    assert!(Timestamp::now() < not_after(&again.certificates[0].pem).unwrap());
}

#[tokio::test]
async fn a_key_that_is_not_known_is_not_renewed() {
    let cluster = cluster().await;
    let (_first, mut found) = cluster.node("n1").await;
    let other = cluster_with(short(60), |_| {}).await;
    let (_second, mut stranger) = other.node("n2").await;
    stranger.server_pem.clone_from(&found.server_pem);
    let error = renew(&mut stranger, &[cluster.url()], &[]).await.unwrap_err().to_string();
    assert_eq!(error, "this machine's key is not known as \"n2\" here; join with a new token");
    // One whose name was given to another key in the meantime.
    cluster.age("node", "n1").await;
    let (_third, _) = cluster.node("n1").await;
    cluster.register_node("n1", true).await;
    let error = renew(&mut found, &[cluster.url()], &[]).await.unwrap_err().to_string();
    assert!(error.starts_with("the node name \"n1\" belongs to another machine's key"), "{error}");
}

#[tokio::test]
async fn in_a_cluster_that_was_restored_from_before_a_certificate_is_proof_enough() {
    let cluster = cluster().await;
    let (_machine, mut found) = cluster.node("n1").await;
    let op = Op::Delete { key: "/sampan/identities/node/n1".into(), end: None };
    cluster.storage.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
    renew(&mut found, &[cluster.url()], &[]).await.unwrap();
    let record = cluster.record("/sampan/identities/node/n1").await.unwrap();
    assert_eq!(record["key"], found.key.id().to_string());
}

#[tokio::test]
async fn a_server_renews_from_its_own_authorities() {
    let cluster = cluster_with(short(3), |_| {}).await;
    let tls = cluster.dir.path().join("tls");
    let own = prepare_server(&tls, &cluster.pki, "s1", &[MachineRole::Server]).unwrap();
    let first = own.certificates.clone();
    let (mut renewer, seen) = renewer(own, RenewFrom::Own(Arc::clone(&cluster.pki)));
    assert!(!renewer.look().await.unwrap());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(renewer.look().await.unwrap());
    assert_ne!(seen.lock()[0].identities[0].1.certificate_pem, first[0].pem);
    assert!(cluster.pki.has_signed(&seen.lock()[0].identities[0].1.certificate_pem).unwrap());
}

#[tokio::test]
async fn the_api_serves_renewed_certificates_without_a_pause() {
    let cluster = cluster_with(short(3), |_| {}).await;
    let begun = std::time::Instant::now();
    let before = cluster.pki.admin();
    while begun.elapsed() < Duration::from_secs(6) {
        // With names and dates checked.
        cluster.admin().tokens().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(cluster.pki.admin(), before);
}
