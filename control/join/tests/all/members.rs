//! Servers become members, say where they are, and go.

use sampan_join::{MachineRole, TokenRole, format_member_id, join_members};

use crate::harness::cluster;

#[tokio::test]
async fn a_server_becomes_a_member_once_it_has_caught_up() {
    let cluster = cluster().await;
    let (_machine, joined) = cluster.server("s2").await;
    *cluster.members.lagging.lock() = 1;
    let addresses = ["10.0.0.2:6443".to_owned()];
    let error = join_members(&joined, &[cluster.url()], &addresses).await.unwrap_err();
    assert_eq!(error.to_string(), "the member lags behind still");
    let closed = "https://127.0.0.1:1".to_owned();
    let member = join_members(&joined, &[closed, cluster.url()], &addresses).await.unwrap();
    assert_eq!((member.id, member.key), (joined.key.id().member_id(), joined.key.id()));
    let listed = cluster.admin().members().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1].member.addresses, addresses);
    assert!(listed[1].voter);
    let moved = ["10.0.0.9:6443".to_owned()];
    sampan_join::update_addresses(&joined, &[cluster.url()], &moved).await.unwrap();
    assert_eq!(cluster.admin().members().await.unwrap()[1].member.addresses, moved);
    let bad = ["nowhere".to_owned()];
    let error = sampan_join::update_addresses(&joined, &[cluster.url()], &bad).await.unwrap_err();
    assert_eq!(error.to_string(), "\"nowhere\" is no address of the form host:port");
}

#[tokio::test]
async fn a_server_speaks_for_itself_only() {
    let cluster = cluster().await;
    let (_machine, joined) = cluster.server("s2").await;
    let identity = joined.identity(MachineRole::Server).unwrap();
    let as_server = sampan_join::AdminClient::new(&cluster.url(), &cluster.pki.ca_pem(), &identity).unwrap();
    let error = as_server.promote_member("s1").await.unwrap_err().to_string();
    assert_eq!(error, "a server may change no other member than itself");
    let error = as_server.remove_member("s1").await.unwrap_err().to_string();
    assert_eq!(error, "only an administrator removes a member");
    let error = as_server.tokens().await.unwrap_err().to_string();
    assert!(error.starts_with("forbidden: "), "{error}");
    // A node is no server.
    let (_node, node) = cluster.node("n1").await;
    let error = join_members(&node, &[cluster.url()], &[]).await.unwrap_err().to_string();
    assert!(!error.is_empty());
    assert_eq!(cluster.members.states.lock().len(), 1);
}

#[tokio::test]
async fn a_removed_member_does_not_come_back_and_its_name_is_free() {
    let cluster = cluster().await;
    let (machine, joined) = cluster.server("s2").await;
    let addresses = ["10.0.0.2:6443".to_owned()];
    join_members(&joined, &[cluster.url()], &addresses).await.unwrap();
    let removed =
        cluster.admin().remove_member(&format_member_id(joined.key.id().member_id())).await.unwrap();
    assert_eq!(removed.name, "s2");
    assert_eq!(cluster.admin().members().await.unwrap().len(), 1);
    let error = cluster.admin().remove_member("s2").await.unwrap_err().to_string();
    assert_eq!(error, "there is no member \"s2\"; 'sampan member list' shows them");

    // Neither with its certificate, nor with its key and a new token, nor by renewal.
    assert!(join_members(&joined, &[cluster.url()], &addresses).await.is_err());
    std::fs::rename(&machine.wanted.dir, machine.joining_dir()).unwrap();
    let refusal = machine.refusal().await;
    assert!(refusal.starts_with("this machine's key was removed from the cluster on "), "{refusal}");
    assert!(refusal.ends_with("to join again, delete its data directory and use a new token"), "{refusal}");
    let mut joined = joined;
    let error = sampan_join::renew(&mut joined, &[cluster.url()], &[]).await.unwrap_err().to_string();
    assert!(error.starts_with("this machine's key was removed from the cluster on "), "{error}");
    assert_eq!(cluster.members.states.lock().len(), 1);

    // Another machine may have the name now; the old certificate does not act for it.
    let (_new, new) = cluster.server("s2").await;
    join_members(&new, &[cluster.url()], &addresses).await.unwrap();
    let error = join_members(&joined, &[cluster.url()], &addresses).await.unwrap_err().to_string();
    assert!(error.starts_with("this machine's key was removed from the cluster on "), "{error}");
}

#[tokio::test]
async fn a_removal_that_was_cut_short_is_finished() {
    let cluster = cluster().await;
    let (_machine, joined) = cluster.server("s2").await;
    // The group has dropped it already; its key is not turned away yet.
    cluster.admin().remove_member("s2").await.unwrap();
    assert!(cluster.record(&format!("/sampan/removed/{}", joined.key.id())).await.is_some());
    assert_eq!(cluster.record("/sampan/identities/server/s2").await, None);
}

#[tokio::test]
async fn the_last_voter_stays() {
    let cluster = cluster().await;
    let (_machine, _) = cluster.server("s2").await;
    let error = cluster.admin().remove_member("s1").await.unwrap_err().to_string();
    assert_eq!(error, "s1 is the only voting member; without it there is no cluster");
    assert_eq!(cluster.members.states.lock().len(), 1);
    let token = cluster.token(TokenRole::Server).await;
    assert!(token.contains("::server:"));
}
