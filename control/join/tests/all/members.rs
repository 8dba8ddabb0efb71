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

#[tokio::test]
async fn a_removed_machines_certificate_is_refused_at_once() {
    let cluster = cluster().await;
    let (_machine, node) = cluster.node("n1").await;
    let (_other, other) = cluster.node("n2").await;
    let acting = |joined: &sampan_join::Joined| {
        let identity = joined.identity(MachineRole::Node).unwrap();
        sampan_join::AdminClient::new(&cluster.url(), &cluster.pki.ca_pem(), &identity).unwrap()
    };
    let refusal =
        async |joined: &sampan_join::Joined| acting(joined).members().await.unwrap_err().to_string();
    assert!(refusal(&node).await.starts_with("forbidden: "));
    let error = acting(&node).remove_node("n2").await.unwrap_err().to_string();
    assert!(error.starts_with("forbidden: "), "{error}");
    let error = cluster.admin().remove_node("n3").await.unwrap_err().to_string();
    assert_eq!(error, "no machine has joined as the node \"n3\"; 'kubectl get nodes' shows them");

    let gone = cluster.admin().remove_node("n1").await.unwrap();
    assert_eq!((gone.name.as_str(), gone.key), ("n1", node.key.id()));
    let begun = std::time::Instant::now();
    while !refusal(&node).await.starts_with("this machine's key was removed from the cluster on ") {
        assert!(begun.elapsed() < crate::harness::PATIENCE, "{}", refusal(&node).await);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(refusal(&other).await.starts_with("forbidden: "), "the other one is as it was");
    let mut node = node;
    let error = sampan_join::renew(&mut node, &[cluster.url()], &[]).await.unwrap_err().to_string();
    assert!(error.starts_with("this machine's key was removed from the cluster on "), "{error}");

    // The name is free; whoever has it is believed, and a server starts with what it knows.
    let (_new, new) = cluster.node("n1").await;
    assert!(refusal(&new).await.starts_with("forbidden: "));
    cluster.service.share_authorities().await.unwrap();
    assert!(refusal(&node).await.starts_with("this machine's key was removed from the cluster on "));
}

#[tokio::test]
async fn a_servers_own_node_is_removed_with_the_server() {
    let cluster = cluster().await;
    let token = cluster.token(TokenRole::Server).await;
    let machine = cluster.machine("s2", &[MachineRole::Server, MachineRole::Node], &token);
    let joined = machine.enroll().await.unwrap();
    join_members(&joined, &[cluster.url()], &["10.0.0.2:6443".to_owned()]).await.unwrap();
    let error = cluster.admin().remove_node("s2").await.unwrap_err().to_string();
    assert_eq!(error, "\"s2\" is a server; remove it with 'sampan member remove s2'");
}

#[tokio::test]
async fn a_restored_server_takes_its_own_name_over_and_nobody_elses() {
    let cluster = cluster().await;
    let restored = |name: &str| {
        let tls = cluster.dir.path().join(format!("restored-{name}"));
        std::fs::create_dir(&tls).unwrap();
        sampan_join::prepare_server(&tls, &cluster.pki, name, &[MachineRole::Server, MachineRole::Node])
            .unwrap()
    };
    let (_node, _) = cluster.node("n1").await;
    cluster.register_node("n1", true).await;
    // A member that is there keeps its name.
    let error = cluster.service.record_self(&restored("s1"), &[]).await.unwrap_err().to_string();
    assert!(error.contains("\"s1\" belongs to another machine's key"), "{error}");
    let old = cluster.members.states.lock()[0].member.key;
    let new = restored("s2");
    cluster.members.states.lock()[0].member.key = new.key.id();
    let own = sampan_join::prepare_server(
        &cluster.dir.path().join("restored-s1"),
        &cluster.pki,
        "s1",
        &[MachineRole::Server, MachineRole::Node],
    )
    .unwrap();
    cluster.service.record_self(&own, &[]).await.unwrap();
    assert!(cluster.record(&format!("/sampan/removed/{old}")).await.is_some());
    // So does a node that is no server.
    let error = cluster.service.record_self(&restored("n1"), &[]).await.unwrap_err().to_string();
    assert!(error.contains("\"n1\" belongs to another machine's key"), "{error}");
}
