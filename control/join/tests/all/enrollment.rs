//! Joining with a token: what a machine has afterwards, and every way in which it is refused.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use jiff::SignedDuration;
use sampan_apiserver::ApiServer;
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_join::{KEY_FILE, MachineRole, TokenRole, joined, measure_skew};
use sampan_store::MemoryStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{SEAL_KEYS, cluster, new_token};

const NODE: &[MachineRole] = &[MachineRole::Node];
const SERVER: &[MachineRole] = &[MachineRole::Server];

#[tokio::test]
async fn an_agent_joins_and_is_known_by_its_key() {
    let cluster = cluster().await;
    let (machine, found) = cluster.node("n1").await;
    assert_eq!(found.cluster_id, "the-cluster");
    assert_eq!(found.server_pem, cluster.pki.ca_pem());
    assert_eq!(found.settings["cluster-cidr"], "10.42.0.0/16");
    assert_eq!(found.servers[0].addresses, [cluster.address.to_string()]);
    assert!(found.sealing_keys().is_none());
    let identity = cluster.record("/sampan/identities/node/n1").await.unwrap();
    assert_eq!(identity["key"], found.key.id().to_string());
    // Nothing but what an agent may know, for nobody else to read.
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&machine.wanted.dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["client-ca.crt", "cluster.json", "machine-node.crt", KEY_FILE, "server-ca.crt"]);
    assert!(!machine.joining_dir().exists());
    let again = joined(&machine.wanted.dir).unwrap().unwrap();
    assert_eq!(again.key.id(), found.key.id());
    assert_eq!(again.certificates, found.certificates);
    assert_eq!(again.life, SignedDuration::from_hours(24 * 365));
}

#[tokio::test]
async fn a_server_gets_what_servers_share() {
    let cluster = cluster().await;
    let both = &[MachineRole::Server, MachineRole::Node];
    let token = cluster.token(TokenRole::Server).await;
    let machine = cluster.machine("s2", both, &token);
    let found = machine.enroll().await.unwrap();
    let keys = found.sealing_keys().unwrap();
    assert_eq!(std::fs::read_to_string(keys).unwrap(), SEAL_KEYS);
    assert_eq!(found.certificates.len(), 2);
}

#[tokio::test]
async fn a_server_starts_from_the_directory_that_it_joined_with() {
    let cluster = cluster().await;
    let (machine, found) = cluster.server("s2").await;
    let pki = Pki::load_or_create(&machine.wanted.dir, ServingNames::new(["s2".to_owned()], [])).unwrap();
    assert_eq!(pki.authorities(), cluster.pki.authorities());
    assert_eq!(pki.token_key_pem(), cluster.pki.token_key_pem());
    let own = sampan_join::prepare_server(&machine.wanted.dir, &pki, "s2", SERVER).unwrap();
    assert_eq!(own.certificates, found.certificates);
    let renamed = sampan_join::prepare_server(&machine.wanted.dir, &pki, "s3", SERVER).unwrap();
    assert_eq!(renamed.key.id(), found.key.id());
    assert_eq!(renamed.cluster_id, "the-cluster");
    assert!(cluster.pki.has_signed(&renamed.certificates[0].pem).unwrap());
}

#[tokio::test]
async fn bad_tokens_are_refused_with_one_line() {
    let cluster = cluster().await;
    let agent = cluster.token(TokenRole::Agent).await;
    let revoked = cluster.token(TokenRole::Agent).await;
    cluster.admin().revoke_token(&revoked).await.unwrap();
    let short = cluster.service.create_token(&new_token(TokenRole::Agent, Some(1))).await.unwrap().token;
    let (head, secret) = agent.split_at(agent.len() - 32);
    let wrong = format!("{head}{}", secret.chars().rev().collect::<String>());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let forged = agent.replace("::agent:", "::server:");
    for (token, roles, line) in [
        ("rubbish", NODE, "the token is not of the form K10<64 hex digits>::<server|agent>:<id>.<secret>"),
        (&wrong, NODE, "the token is not known: it was revoked, or is of another cluster"),
        (&revoked, NODE, "the token is not known: it was revoked, or is of another cluster"),
        (&short, NODE, "the token expired at "),
        (&agent, SERVER, "the token is for agents; a server joins with one of 'sampan token create"),
        (&forged, SERVER, "the token is for agents; a server joins with one of 'sampan token create"),
    ] {
        let refusal = cluster.machine("m1", roles, token).refusal().await;
        assert!(refusal.starts_with(line), "{refusal}");
    }
    assert_eq!(cluster.record("/sampan/identities/node/m1").await, None);
    assert_eq!(cluster.record("/sampan/identities/server/m1").await, None);
}

#[tokio::test]
async fn strangers_do_not_keep_the_servers_busy() {
    let cluster = cluster().await;
    let revoked = cluster.token(TokenRole::Agent).await;
    cluster.admin().revoke_token(&revoked).await.unwrap();
    let machine = cluster.machine("n1", NODE, &revoked);
    let mut last = String::new();
    for _ in 0..60 {
        last = machine.refusal().await;
        if !last.starts_with("the token is not known") {
            break;
        }
    }
    assert_eq!(last, "too many machines that are not known here ask to join; try again in a moment");
    // Whoever has a good token is none.
    cluster.node("n2").await;
}

#[tokio::test]
async fn another_clusters_server_is_found_out() {
    let (ours, other) = (cluster().await, cluster().await);
    let token = ours.token(TokenRole::Agent).await;
    let mut machine = ours.machine("n1", NODE, &token);
    machine.wanted.server = other.url();
    let expected = format!("{} is a server of another cluster than the token is for; ", other.url());
    assert!(machine.refusal().await.starts_with(&expected));
    // Neither does it learn the token, where it says that it is one of ours.
    let ca = serde_json::json!({
        "cluster_id": "the-cluster", "generation": 0, "successions": [],
        "server_pem": ours.pki.ca_pem(), "client_pem": ours.pki.client_ca_pem(),
    });
    let pki = Arc::new(Pki::in_memory(ServingNames::new([], [])).unwrap());
    let mut config = sampan_apiserver::Config::new(Arc::new(MemoryStore::new()), pki, "127.0.0.1:6443");
    config.extension = Some(Router::new().route("/sampan/v1/ca", get(async move || ca.to_string())));
    let api = ApiServer::new(config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    machine.wanted.server = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    tokio::spawn(async move { api.serve(listener, stop).await });
    let line = format!("{} does not prove to be a server of this cluster; ", machine.wanted.server);
    let refusal = machine.refusal().await;
    assert!(refusal.starts_with(&line), "{refusal}");
}

#[tokio::test]
async fn bad_requests_are_refused_with_one_line() {
    let cluster = cluster().await;
    let token = cluster.token(TokenRole::Server).await;
    let mut machine = cluster.machine("Not_A_Name", NODE, &token);
    let refusal = machine.refusal().await;
    assert!(refusal.starts_with("\"Not_A_Name\" cannot be a machine's name: "), "{refusal}");
    machine.wanted.name = "m1".into();
    machine.wanted.roles = Vec::new();
    assert_eq!(machine.refusal().await, "a machine is a server, a node, or both");
    machine.wanted.roles = SERVER.to_vec();
    machine.wanted.addresses = vec!["nowhere".into()];
    assert_eq!(machine.refusal().await, "\"nowhere\" is no address of the form host:port");
    machine.wanted.server = "10.0.0.1".into();
    assert_eq!(
        machine.refusal().await,
        "\"10.0.0.1\" is not the address of a server; it is https://HOST:6443"
    );
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    machine.wanted.server = format!("https://{closed}");
    let error = machine.enroll().await.unwrap_err();
    assert_eq!(error.to_string(), format!("https://{closed} cannot be reached"));
    assert!(error.may_pass());
}

#[tokio::test]
async fn a_second_attempt_goes_on_with_the_same_key() {
    let cluster = cluster().await;
    let short = cluster.service.create_token(&new_token(TokenRole::Agent, Some(1))).await.unwrap().token;
    let mut machine = cluster.machine("n1", NODE, &short);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    machine.refusal().await;
    let key = std::fs::read_to_string(machine.joining_dir().join(KEY_FILE)).unwrap();
    machine.wanted.token = cluster.token(TokenRole::Agent).await;
    let found = machine.enroll().await.unwrap();
    assert_eq!(found.key.pem(), key);
    // A machine that has joined does not join again.
    let error = machine.enroll().await.unwrap_err().to_string();
    assert!(
        error.ends_with(
            "already holds the keys of a cluster; name an empty directory with --data-dir to join another one"
        ),
        "{error}"
    );
    assert_eq!(joined(&machine.wanted.dir).unwrap().unwrap().key.id(), found.key.id());
}

#[tokio::test]
async fn a_machine_that_lost_the_answer_enrols_again() {
    let cluster = cluster().await;
    let (machine, found) = cluster.node("n1").await;
    let key = found.key.pem();
    // As if it had crashed before the last rename.
    std::fs::rename(&machine.wanted.dir, machine.joining_dir()).unwrap();
    cluster.register_node("n1", true).await;
    assert_eq!(machine.enroll().await.unwrap().key.pem(), key);
}

#[tokio::test]
async fn a_name_belongs_to_one_key_until_it_is_freed() {
    let cluster = cluster().await;
    let (_first, owner) = cluster.node("n1").await;
    let token = cluster.token(TokenRole::Agent).await;
    let second = cluster.machine("n1", NODE, &token);
    assert_eq!(
        second.refusal().await,
        "the node name \"n1\" was given to another machine's key a moment ago; choose another --node-name"
    );
    cluster.register_node("n1", true).await;
    cluster.age("node", "n1").await;
    assert_eq!(
        second.refusal().await,
        "the node name \"n1\" belongs to another machine's key; delete that Node first ('kubectl delete node n1'), or choose another --node-name"
    );
    let identity = cluster.record("/sampan/identities/node/n1").await.unwrap();
    assert_eq!(identity["key"], owner.key.id().to_string());
    cluster.register_node("n1", false).await;
    let found = second.enroll().await.unwrap();
    let identity = cluster.record("/sampan/identities/node/n1").await.unwrap();
    assert_eq!(identity["key"], found.key.id().to_string());
    let server = cluster.machine("s1", SERVER, &cluster.token(TokenRole::Server).await);
    assert_eq!(
        server.refusal().await,
        "the server name \"s1\" belongs to another machine's key; remove that member first ('sampan member remove s1'), or choose another --node-name"
    );
}

#[tokio::test]
async fn of_machines_that_want_the_same_name_at_once_one_gets_it() {
    let cluster = cluster().await;
    let token = cluster.token(TokenRole::Server).await;
    let machines: Vec<_> = (0..8).map(|_| cluster.machine("s9", SERVER, &token)).collect();
    let outcomes = futures::future::join_all(machines.iter().map(|machine| machine.enroll())).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(machines.iter().filter(|machine| machine.wanted.dir.exists()).count(), 1);
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_left_alone() {
    let cluster = cluster().await;
    let mut machine = cluster.machine("n1", NODE, &cluster.token(TokenRole::Agent).await);
    machine.wanted.dir = cluster.dir.path().join("tls");
    assert!(machine.enroll().await.unwrap_err().to_string().contains("already holds the keys of a cluster"));
    // One that a release without members left.
    let old = tempfile::tempdir().unwrap();
    machine.wanted.dir = old.path().join("tls");
    let pki = Pki::load_or_create(&machine.wanted.dir, ServingNames::new([], [])).unwrap();
    assert!(machine.enroll().await.unwrap_err().to_string().contains("already holds the keys of a cluster"));
    let again = Pki::load_or_create(&machine.wanted.dir, ServingNames::new([], [])).unwrap();
    assert_eq!(pki.authorities(), again.authorities());
    assert_eq!(cluster.record("/sampan/identities/node/n1").await, None);
}

#[tokio::test]
async fn a_damaged_directory_is_named() {
    let cluster = cluster().await;
    let (machine, _) = cluster.node("n1").await;
    let (_other, other) = cluster.node("n2").await;
    let dir = &machine.wanted.dir;
    std::fs::write(dir.join("machine-node.crt"), &other.certificates[0].pem).unwrap();
    let error = joined(dir).unwrap_err().to_string();
    assert!(error.contains("there is no certificate for system:node:n1 over this machine's key"), "{error}");
    std::fs::remove_file(dir.join(KEY_FILE)).unwrap();
    let error = joined(dir).unwrap_err().to_string();
    assert!(error.ends_with("machine.key: is missing"), "{error}");
    std::fs::write(dir.join("cluster.json"), "rubbish").unwrap();
    let error = joined(dir).unwrap_err().to_string();
    assert!(error.contains("cluster.json"), "{error}");
}

#[tokio::test]
async fn the_clocks_difference_is_measured() {
    let cluster = cluster().await;
    let skew = measure_skew(&cluster.url(), &cluster.pki.ca_pem()).await.unwrap();
    assert!(skew.abs() < SignedDuration::from_secs(10), "{skew}");
}
