//! What administrators ask, and who may not.

use sampan_apiserver::pki::Identity;
use sampan_join::{AdminClient, TokenRole};
use sampan_store::{MemoryStore, RangeRequest, Storage};
use tokio::io::AsyncReadExt;

use crate::harness::{cluster, new_token};

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    assert_eq!(admin.tokens().await.unwrap(), []);
    let mut wanted = new_token(TokenRole::Agent, Some(3600));
    wanted.description = "for the shed".into();
    let made = admin.create_token(&wanted).await.unwrap();
    assert_eq!(made.info.expires, Some(made.info.created + 3600));
    let listed = admin.tokens().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0], made.info);
    assert_eq!(listed[0].description, "for the shed");
    let stored = cluster.record(&format!("/sampan/tokens/{}", made.info.id)).await.unwrap().to_string();
    assert!(!stored.contains(made.token.rsplit('.').next().unwrap()), "{stored}");
    admin.revoke_token(&made.info.id).await.unwrap();
    assert_eq!(admin.tokens().await.unwrap(), []);
    let error = admin.revoke_token(&made.info.id).await.unwrap_err().to_string();
    assert_eq!(error, format!("there is no token {:?}; 'sampan token list' shows them", made.info.id));
    assert!(
        admin.revoke_token("../members/s1").await.unwrap_err().to_string().contains("names nothing here")
    );
    let error = admin.create_token(&new_token(TokenRole::Agent, Some(u64::MAX))).await.unwrap_err();
    assert!(error.to_string().starts_with("a token holds for a hundred years at most"), "{error}");
}

#[tokio::test]
async fn a_new_cluster_shows_its_first_tokens_once() {
    let cluster = cluster().await;
    let [server, agent] = cluster.service.first_tokens().await.unwrap().unwrap();
    assert_eq!((server.info.role, agent.info.role), (TokenRole::Server, TokenRole::Agent));
    assert!(cluster.service.first_tokens().await.unwrap().is_none());
    assert_eq!(cluster.admin().tokens().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_snapshot_is_streamed_whole() {
    let cluster = cluster().await;
    // More than fits into any pipe on the way.
    for number in 0..200 {
        let text = format!("{number:03}").repeat(4000);
        let op = sampan_store::Op::Put { key: format!("/big/{number}").into(), value: text.into() };
        let txn = sampan_store::Txn { success: vec![op], ..Default::default() };
        cluster.storage.txn(txn).await.unwrap();
    }
    let mut snapshot = cluster.admin().snapshot().await.unwrap();
    let mut bytes = Vec::new();
    snapshot.read_to_end(&mut bytes).await.unwrap();
    let copy = MemoryStore::new();
    copy.restore(&mut bytes.as_slice()).await.unwrap();
    let count = copy.range(RangeRequest::prefix("/big/")).await.unwrap().count;
    assert_eq!(count, 200);
}

#[tokio::test]
async fn nobody_else_is_answered() {
    let cluster = cluster().await;
    let (_node, joined) = cluster.node("n1").await;
    let identity = joined.identity(sampan_join::MachineRole::Node).unwrap();
    let jane = cluster.pki.issue_client("jane", &["devs"]).unwrap();
    let client =
        |identity: &Identity| AdminClient::new(&cluster.url(), &cluster.pki.ca_pem(), identity).unwrap();
    for (identity, name) in [(&identity, "system:node:n1"), (&jane, "jane")] {
        let error = client(identity).tokens().await.unwrap_err().to_string();
        assert_eq!(error, format!("forbidden: User {name:?} cannot get path \"/sampan/v1/tokens\""));
        for error in [
            client(identity).create_token(&new_token(TokenRole::Server, None)).await.err(),
            client(identity).members().await.err(),
            client(identity).remove_member("s1").await.err(),
            client(identity).rotate_authorities().await.err(),
            client(identity).snapshot().await.err(),
        ] {
            assert!(error.unwrap().to_string().starts_with("forbidden: "));
        }
    }
    assert_eq!(cluster.members.states.lock().len(), 1);
}

#[tokio::test]
async fn a_kubeconfig_that_does_not_do_is_refused_with_one_line() {
    let cluster = cluster().await;
    let good = cluster.pki.admin_kubeconfig(&cluster.url());
    for (text, line) in [
        ("- [".to_owned(), "the kubeconfig is not YAML"),
        ("a: b".to_owned(), "the kubeconfig has no current-context"),
        (
            good.replace("current-context: sampan", "current-context: x"),
            "the kubeconfig has no context \"x\"",
        ),
        (good.replace("client-key-data", "client-key"), "the kubeconfig has no client-key-data"),
        (
            good.replace("client-key-data: ", "client-key-data: ?"),
            "the kubeconfig holds a client-key-data that is not base64",
        ),
        (good.replace("https:", "http:"), "is not the address of a server; it is https://HOST:6443"),
    ] {
        let error = AdminClient::from_kubeconfig(&text).err().unwrap().to_string();
        assert!(error.contains(line), "{error}");
    }
    // An administrator of another cluster.
    let other = crate::harness::cluster().await;
    let stranger = AdminClient::from_kubeconfig(&other.pki.admin_kubeconfig(&cluster.url())).unwrap();
    let error = stranger.tokens().await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{} does not prove to be a server of this cluster", cluster.url())),
        "{error}"
    );
}
