//! The cluster's authorities are changed while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_join::{
    AdminClient, JoinConfig, JoinService, MachineRole, RenewFrom, Renewer, RotationStatus, TokenRole, renew,
};
use tokio_util::sync::CancellationToken;

use crate::harness::{Cluster, FakeMembers, PATIENCE, cluster, cluster_with, short};

async fn until(cluster: &Cluster, what: impl Fn(&RotationStatus) -> bool) -> RotationStatus {
    let begun = Instant::now();
    loop {
        let status = cluster.service.rotation_status().await.unwrap();
        if what(&status) {
            return status;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn start_renewer(cluster: &Cluster, joined: sampan_join::Joined, stop: &CancellationToken) {
    let url = cluster.url();
    let renewer = Renewer::new(
        joined,
        RenewFrom::Servers(Arc::new(move || vec![url.clone()])),
        Arc::new(Vec::new),
        Arc::new(Timestamp::now),
        |_| {},
    );
    tokio::spawn(renewer.run(stop.clone()));
}

#[tokio::test]
async fn authorities_change_while_everyone_is_served() {
    let cluster = cluster_with(short(6), |_| {}).await;
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let old_token = cluster.token(TokenRole::Agent).await;
    let old_ca = cluster.pki.ca_pem();
    let old_admin = cluster.pki.admin();
    let (running, joined) = cluster.node("running").await;
    let (_sleeping, mut sleeper) = cluster.node("sleeping").await;
    // The sleeper is known to have nothing until it tells; the change waits for it as long as it is told to.
    start_renewer(&cluster, joined, &stop);

    let status = cluster.admin().rotate_authorities().await.unwrap();
    assert_eq!((status.generation, status.settled, status.server_authorities.len()), (1, false, 2));
    let refused = cluster.admin().rotate_authorities().await.unwrap_err().to_string();
    assert!(refused.starts_with("a change of authorities is under way"), "{refused}");
    // Both the old and the new kubeconfig do, on the way.
    until(&cluster, |status| status.phase.ends_with("fetched them yet: system:node:sleeping")).await;
    sleeper_tells(&cluster).await;
    until(&cluster, |status| status.generation == 2).await;
    assert_ne!(cluster.pki.admin(), old_admin);
    let old = AdminClient::new(&cluster.url(), &cluster.pki.ca_pem(), &old_admin).unwrap();
    old.tokens().await.unwrap();
    cluster.admin().tokens().await.unwrap();
    let late = cluster.machine("late", &[MachineRole::Node], &old_token).enroll().await.unwrap();
    assert!(cluster.pki.is_of_current_client_authority(&late.certificates[0].pem).unwrap());

    let settled = until(&cluster, |status| status.settled).await;
    assert_eq!((settled.generation, settled.server_authorities.len()), (3, 1));
    assert!(!cluster.pki.ca_pem().contains(old_ca.trim()));
    let gone = AdminClient::new(&cluster.url(), &cluster.pki.ca_pem(), &old_admin).unwrap();
    assert!(gone.tokens().await.is_err());
    // The machine that ran has followed; the one that slept finds its way by its key; so does a new
    // one, with a token of before.
    let begun = Instant::now();
    loop {
        let now = sampan_join::joined(&running.wanted.dir).unwrap().unwrap();
        if now.server_pem == cluster.pki.ca_pem()
            && cluster.pki.is_of_current_client_authority(&now.certificates[0].pem).unwrap()
        {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sleeper.server_pem, old_ca);
    renew(&mut sleeper, &[cluster.url()], &[]).await.unwrap();
    assert_eq!(sleeper.server_pem, cluster.pki.ca_pem());
    cluster.machine("later", &[MachineRole::Node], &old_token).enroll().await.unwrap();
}

/// As if the node had fetched the authorities, and then went to sleep.
async fn sleeper_tells(cluster: &Cluster) {
    use sampan_store::{Op, Storage, Txn};
    let key = "/sampan/identities/node/sleeping";
    let mut record = cluster.record(key).await.unwrap();
    record["generation"] = 1.into();
    let op = Op::Put { key: key.into(), value: record.to_string().into() };
    cluster.storage.txn(Txn { success: vec![op], ..Txn::default() }).await.unwrap();
}

#[tokio::test]
async fn a_node_that_does_not_show_up_is_waited_for_so_long() {
    let cluster = cluster_with(short(3600), |config: &mut JoinConfig| {
        config.patience = jiff::SignedDuration::from_secs(2);
    })
    .await;
    cluster.node("asleep").await;
    cluster.service.rotate().await.unwrap();
    let begun = Instant::now();
    until(&cluster, |status| status.generation == 2).await;
    assert!(begun.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn a_second_server_follows_and_may_take_the_steps() {
    let cluster = cluster_with(short(3600), |config| config.step_every = Duration::from_secs(3600)).await;
    let (machine, joined) = cluster.server("s2").await;
    let names = ServingNames::new(["s2".to_owned()], []);
    let pki = Arc::new(Pki::load_or_create(&machine.wanted.dir, names.clone()).unwrap());
    cluster.service.rotate().await.unwrap();
    // The first server takes no step by itself; the second was away when it began.
    let status = cluster.service.rotation_status().await.unwrap();
    assert!(status.phase.ends_with("not fetched them yet: sampan:server:s2"), "{}", status.phase);
    let start = || {
        let members = Arc::new(FakeMembers::default());
        let mut config =
            JoinConfig::new(cluster.storage.clone(), Arc::clone(&pki), members, "the-cluster", "s2");
        config.step_every = Duration::from_millis(100);
        let (service, stop) = (JoinService::new(config), CancellationToken::new());
        let shutdown = stop.clone();
        let task = tokio::spawn(async move { service.run(shutdown).await });
        (task, stop)
    };
    let (task, stop) = start();
    until(&cluster, |status| status.generation == 2).await;
    let begun = Instant::now();
    while cluster.pki.authorities() != pki.authorities() || cluster.pki.authorities().generation != 2 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    task.await.unwrap();
    // It starts again with what it had.
    let again = Pki::load_or_create(&machine.wanted.dir, names).unwrap();
    assert_eq!(again.authorities(), cluster.pki.authorities());
    assert!(!again.is_of_current_client_authority(&joined.certificates[0].pem).unwrap());
}

#[tokio::test]
async fn a_server_on_a_restored_store_takes_its_authorities() {
    let first = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    let pki = Arc::new(Pki::load_or_create(dir.path(), ServingNames::new([], [])).unwrap());
    assert_ne!(pki.ca_pem(), first.pki.ca_pem());
    let members = Arc::new(FakeMembers::default());
    let config = JoinConfig::new(first.storage.clone(), Arc::clone(&pki), members, "restored", "s9");
    JoinService::new(config).share_authorities().await.unwrap();
    assert_eq!(pki.authorities(), first.pki.authorities());
    assert!(first.pki.has_signed(&pki.admin().certificate_pem).unwrap());
}
