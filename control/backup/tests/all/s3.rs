//! Backups in a bucket: of the server in this crate's tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sampan_backup::{
    BackupError, Bucket, BucketSettings, Existing, Location, Place, PlainHttp, SaveOptions, Secret, list,
    save, save_stream, status,
};
use sampan_store::MemoryStore;

use crate::s3_server::{ACCESS_KEY, SECRET_KEY, Server, Trouble, serve};
use crate::support::*;

pub(crate) fn settings(endpoint: &str) -> BucketSettings {
    BucketSettings {
        endpoint: Some(endpoint.parse().unwrap()),
        bucket: "backups".into(),
        region: "eu-central-1".into(),
        folder: "site/a".into(),
        access_key: Secret::new(ACCESS_KEY),
        secret_key: Secret::new(SECRET_KEY),
        session_token: None,
        ca: None,
        plain_http: PlainHttp::Allow,
        retry_for: Duration::from_secs(1),
    }
}

/// Plain HTTP needs no certificates, but a machine without any is refused: so one is given.
pub(crate) fn bucket(address: SocketAddr, dir: &std::path::Path) -> Place {
    let ca = dir.join("ca.pem");
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, key.cert.pem()).unwrap();
    let settings = BucketSettings { ca: Some(ca), ..settings(&format!("http://{address}")) };
    Place::Bucket(Bucket::new(&settings).unwrap())
}

fn at(place: &Place, name: &str) -> Location {
    Location { place: place.clone(), name: name.to_owned() }
}

/// More than two parts.
async fn large() -> MemoryStore {
    store(4_200, 3_000).await
}

#[tokio::test]
async fn a_bucket_gives_back_what_the_store_had() {
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let place = bucket(address, dir.path());
    round_trips(&place).await;
    assert_eq!(server.unfinished(), 0);
    let requests = server.requests();
    let parts = requests.iter().filter(|request| request.starts_with("part ")).count();
    assert_eq!(parts, 6, "two large ones of three parts each");
    assert_eq!(requests.iter().filter(|request| request.starts_with("put ")).count(), 10, "small ones");
    assert!(server.objects().keys().all(|key| key.starts_with("site/a/")));
}

/// Saves, reads, lists and deletes; of any server.
pub(crate) async fn round_trips(place: &Place) {
    for (kind, store) in
        [("empty", store(0, 0).await), ("small", store(50, 200).await), ("large", large().await)]
    {
        for options in [options(), sealed()] {
            let passphrase = options.seal.as_ref().map(|seal| seal.passphrase.clone());
            let location = at(place, &format!("{kind}-{}", passphrase.is_some()));
            let saved = save(&store, &location, &options).await.unwrap();
            assert_eq!(status(&location, passphrase.as_ref()).await.unwrap(), saved);
            assert_eq!(restored(&location, passphrase.as_ref()).await, contents(&store).await, "{location}");
        }
    }
    let store = store(5, 5).await;
    let taken = at(place, "small-false");
    let refusal = save(&store, &taken, &options()).await.unwrap_err();
    assert_eq!(refusal.to_string(), format!("{taken} exists already"));
    assert_eq!(status(&taken, None).await.unwrap().keys, 50);
    let replace = SaveOptions { existing: Existing::Replace, ..options() };
    save(&store, &taken, &replace).await.unwrap();
    assert_eq!(status(&taken, None).await.unwrap().keys, 5);

    let name = |revision| format!("sampan-n-20261121T00000{revision}Z-{revision}.snapshot");
    for revision in 1..=5 {
        save_stream(&plain(&store).await[..], &at(place, &name(revision)), &options()).await.unwrap();
    }
    let found: Vec<_> = list(place).await.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(found, [5, 4, 3, 2, 1].map(name), "over several pages, and no others");
    for revision in 1..=5 {
        at(place, &name(revision)).delete().await.unwrap();
    }
    assert_eq!(list(place).await.unwrap(), []);
    let missing = at(place, &name(1));
    let refusal = status(&missing, None).await.unwrap_err();
    assert_eq!(refusal.to_string(), format!("{missing} does not exist"));
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let settings = BucketSettings {
        retry_for: Duration::from_secs(30),
        ca: Some(dir.path().join("ca.pem")),
        ..settings(&format!("http://{address}"))
    };
    bucket(address, dir.path());
    let place = Place::Bucket(Bucket::new(&settings).unwrap());
    let store = large().await;
    server.fail(|what, count| match (what, count) {
        ("part", 2) | ("complete", 1) => Some(Trouble::Answer(500)),
        ("begin", 1) => Some(Trouble::Answer(503)),
        ("get", 1) => Some(Trouble::Half),
        _ => None,
    });
    let location = at(&place, "b");
    let saved = save(&store, &location, &options()).await.unwrap();
    assert_eq!(status(&location, None).await.unwrap(), saved, "the rest is asked for after a cut");
    assert!(server.requests().iter().filter(|request| request.starts_with("get ")).count() > 1);
    assert_eq!(server.unfinished(), 0);
}

#[tokio::test]
async fn failures_that_stay_end_the_backup_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let place = bucket(address, dir.path());
    let (small, large) = (store(50, 200).await, large().await);
    for (failing, store) in [("begin", &large), ("part", &large), ("complete", &large), ("put", &small)] {
        server.fail(move |what, _| (what == failing).then_some(Trouble::Answer(500)));
        let refusal = save(store, &at(&place, "b"), &options()).await.unwrap_err();
        let expected = "writing s3://backups/site/a/b failed: InternalError: told to fail";
        assert_eq!(refusal.to_string(), expected, "{failing}");
        assert_eq!((server.unfinished(), server.objects().len()), (0, 0), "{failing}");
    }
    // The second part only: some of it was there already.
    server.fail(|what, count| (what == "part" && count > 1).then_some(Trouble::Answer(403)));
    save(&large, &at(&place, "b"), &options()).await.unwrap_err();
    assert_eq!((server.unfinished(), server.objects().len()), (0, 0));
    server.work();
    save(&large, &at(&place, "b"), &options()).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_ends_early_or_a_backup_given_up_aborts_the_upload() {
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let place = bucket(address, dir.path());
    let bytes = plain(&large().await).await;
    let cut = &bytes[..bytes.len() - 10];
    save_stream(cut, &at(&place, "b"), &options()).await.unwrap_err();
    assert_eq!((server.unfinished(), server.objects().len()), (0, 0));

    server.fail(|what, count| (what == "part" && count == 2).then_some(Trouble::Silence));
    let location = at(&place, "b");
    let options = options();
    let saving = save_stream(&bytes[..], &location, &options);
    assert!(tokio::time::timeout(Duration::from_secs(3), saving).await.is_err());
    for _ in 0..100 {
        if server.unfinished() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((server.unfinished(), server.objects().len()), (0, 0));
}

#[tokio::test]
async fn a_damaged_object_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = Server::start().await;
    let place = bucket(address, dir.path());
    let location = at(&place, "b");
    save(&store(300, 1_000).await, &location, &sealed()).await.unwrap();
    let good = server.objects()["site/a/b"].to_vec();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for (bytes, why) in [(flipped, "it is damaged"), (good[..good.len() / 2].to_vec(), "it is cut off")] {
        server.replace("site/a/b", bytes);
        let refusal = read_out(&location, Some(&passphrase())).await.unwrap_err();
        assert_eq!(refusal, format!("the backup cannot be used: {why}"));
    }
}

#[tokio::test]
async fn wrong_keys_and_servers_that_are_not_there_are_said_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, address) = Server::start().await;
    bucket(address, dir.path());
    let ca = Some(dir.path().join("ca.pem"));
    let wrong = BucketSettings {
        access_key: Secret::new("OTHER"),
        ca: ca.clone(),
        ..settings(&format!("http://{address}"))
    };
    let place = Place::Bucket(Bucket::new(&wrong).unwrap());
    let refusal = list(&place).await.unwrap_err().to_string();
    assert_eq!(refusal, "listing s3://backups/site/a failed: AccessDenied: told to fail");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = BucketSettings { ca, ..settings(&format!("http://{free}")) };
    let place = Place::Bucket(Bucket::new(&nobody).unwrap());
    let refusal = save(&store(1, 1).await, &at(&place, "b"), &options()).await.unwrap_err();
    assert!(matches!(refusal, BackupError::Bucket { .. }));
    let refusal = refusal.to_string();
    assert!(refusal.contains("Connection refused") && !refusal.contains('\n'), "{refusal}");
}

/// The same server behind TLS.
async fn tls_server(key: &rcgen::CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::default().router();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                serve(tls, router).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn with_tls_the_authority_that_was_named_counts_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let address = tls_server(&key).await;
    let place = |pem: String, name: &str| {
        let ca = dir.path().join(name);
        std::fs::write(&ca, pem).unwrap();
        let endpoint = format!("https://localhost:{}", address.port());
        let plain_http = PlainHttp::Refuse;
        let retry_for = Duration::from_secs(60);
        let settings = BucketSettings { ca: Some(ca), plain_http, retry_for, ..settings(&endpoint) };
        Place::Bucket(Bucket::new(&settings).unwrap())
    };
    let store = store(50, 100).await;
    let right = at(&place(key.cert.pem(), "right.pem"), "b");
    let saved = save(&store, &right, &options()).await.unwrap();
    assert_eq!(status(&right, None).await.unwrap(), saved);
    let wrong = at(&place(other.cert.pem(), "wrong.pem"), "b");
    // It is not tried again: no certificate gets better by that.
    let refusal = tokio::time::timeout(Duration::from_secs(10), status(&wrong, None)).await.unwrap();
    let refusal = refusal.unwrap_err().to_string();
    assert!(refusal.contains("certificate") && !refusal.contains('\n'), "{refusal}");
}
