//! The etcd API of a server, and snapshots that are made through it.

use std::io::Write;

use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::etcdserverpb::kv_client::KvClient;
use sampan_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::cluster::sampan;
use crate::machine::{first, path, reads, write};

/// What `etcdctl snapshot save` does.
async fn save(url: &str, file: &str) {
    let mut client = MaintenanceClient::connect(url.to_owned()).await.unwrap();
    let mut stream = client.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let mut file = std::fs::File::create(file).unwrap();
    while let Some(piece) = stream.message().await.unwrap() {
        file.write_all(&piece.blob).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_apis_show_the_same_and_a_snapshot_of_one_is_restored_for_both() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let mut server = first(&["--etcd-listen", &listen]).await;
    let url = format!("http://{listen}");
    write(&server, "saved").await;
    let mut client = KvClient::connect(url.clone()).await.unwrap();
    let key = "/registry/core/configmaps/default/saved";
    let get = pb::RangeRequest { key: key.into(), ..Default::default() };
    assert_eq!(client.range(get.clone()).await.unwrap().into_inner().count, 1);

    let directory = tempfile::tempdir().unwrap();
    let (file, damaged) = (path(directory.path(), "snap.db"), path(directory.path(), "damaged.db"));
    save(&url, &file).await;
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&damaged, content).unwrap();
    let status = sampan().args(["snapshot", "status", &file]).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("format    etcd\n") && status.contains("revision  "), "{status}");

    let gone = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
    assert_eq!(client.delete_range(gone).await.unwrap().into_inner().deleted, 1);
    assert!(!reads(&server, "saved").await);
    server.stop();
    let look = sampan().args(["snapshot", "status", &damaged]).output().unwrap();
    for refused in [look, server.run(&["snapshot", "restore", &damaged])] {
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("its checksum is another"), "{said}");
    }
    server.ok(&["snapshot", "restore", &file]);
    server.start().await;
    assert!(reads(&server, "saved").await);
    let mut client = KvClient::connect(url).await.unwrap();
    assert_eq!(client.range(get).await.unwrap().into_inner().count, 1);
}
