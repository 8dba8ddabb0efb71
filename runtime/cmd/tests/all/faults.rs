//! Damage: what is said when the database is broken, and the way back.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;

use crate::cluster::{Cluster, sampan};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupted_database_is_said_plainly_and_the_snapshot_offered_brings_it_back() {
    let mut cluster = Cluster::start().await;
    let namespaces = Api::<Namespace>::all(cluster.client().await);
    let before = namespaces.get("default").await.unwrap().metadata.uid;
    assert_eq!(cluster.stop(), Some(0));
    let database = find(&cluster.data_dir().join("db"));
    let length = std::fs::metadata(&database).unwrap().len();
    std::fs::write(&database, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
    let output = sampan()
        .args(["dev", "--https-listen-port", "0", "--data-dir"])
        .arg(cluster.data_dir())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(text.contains(database.to_str().unwrap()), "names the file: {text}");
    let offer = text.split('\'').find(|part| part.starts_with("sampan snapshot restore ")).expect("an offer");
    let restored = sampan().args(offer.split(' ').skip(1)).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    cluster.resume().await;
    let namespaces = Api::<Namespace>::all(cluster.client().await);
    assert_eq!(namespaces.get("default").await.unwrap().metadata.uid, before, "the same cluster");
}

fn find(directory: &std::path::Path) -> std::path::PathBuf {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "redb"))
        .expect("a redb file")
}
