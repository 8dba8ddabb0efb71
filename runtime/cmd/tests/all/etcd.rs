//! The etcd API of a server, and snapshots that are made through it.

use std::io::Write;
use std::time::{Duration, Instant};

use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use sampan_etcd::proto::etcdserverpb::kv_client::KvClient;
use sampan_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::cluster::{PATIENCE, free_port, sampan};
use crate::machine::{Machine, first, path, reads, write};

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
    let listen = format!("127.0.0.1:{}", free_port());
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

/// Waits until the member at `url` says this of where clients reach each member: `name=url`.
async fn lists(url: &str, wanted: [String; 2]) {
    let mut client = ClusterClient::connect(url.to_owned()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = client.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
        let members = list.into_inner().members.into_iter();
        let mut found: Vec<_> =
            members.map(|member| format!("{}={}", member.name, member.client_ur_ls.join(","))).collect();
        found.sort();
        if found == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_knows_one_server_learns_of_all() {
    let listen = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let [one, two] = [0, 1].map(|server| format!("http://{}", listen[server]));
    let first = first(&["--etcd-listen", &listen[0]]).await;
    let (url, token) = (first.url(), first.token("server"));
    let join = ["--server", &url, "--token", &token];
    let mut second = Machine::server("s2", &[&join[..], &["--etcd-listen", &listen[1]]].concat());
    second.start().await;
    for url in [&one, &two] {
        lists(url, [format!("s1={one}"), format!("s2={two}")]).await;
    }
    // One that serves the API no more says so.
    second.stop();
    second.set_arguments(&["server", "--disable-agent", "--bind-address", "127.0.0.1"]);
    second.start().await;
    lists(&one, [format!("s1={one}"), "s2=".to_owned()]).await;
}
