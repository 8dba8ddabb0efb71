//! Snapshots: saved while the cluster runs, looked at, restored, refused when damaged.

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;

use crate::agents::{joining, node_ready, words_and_keys};
use crate::machine::{Machine, first, joined, path, reads, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_snapshot_brings_the_state_back_as_a_new_cluster() {
    let mut server = first(&[]).await;
    write(&server, "saved").await;
    let directory = tempfile::tempdir().unwrap();
    let (plain, sealed) = (path(directory.path(), "plain"), path(directory.path(), "sealed"));
    let secret = path(directory.path(), "passphrase");
    std::fs::write(&secret, "open sesame\n").unwrap();
    server.ok(&["snapshot", "save", &plain]);
    server.ok(&["snapshot", "save", &sealed, "--passphrase-file", &secret]);
    let again = server.run(&["snapshot", "save", &plain]);
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("--force"),
        "{again:?}"
    );
    write(&server, "later").await;

    for arguments in [vec![&*plain], vec![&*sealed, "--passphrase-file", &*secret], vec![&*sealed]] {
        let status = crate::cluster::sampan().args(["snapshot", "status"]).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&status.stdout).to_lowercase();
        assert!(status.status.success(), "{status:?}");
        for part in ["revision", "keys", "size", "sha256"] {
            assert!(text.contains(part), "{text}");
        }
    }
    let running = server.run(&["snapshot", "restore", &plain]);
    assert!(!running.status.success(), "the server must be stopped: {running:?}");
    server.stop();
    let keyless = server.run(&["snapshot", "restore", &sealed]);
    assert!(String::from_utf8_lossy(&keyless.stderr).contains("--passphrase-file"), "{keyless:?}");
    server.ok(&["snapshot", "restore", &sealed, "--passphrase-file", &secret]);
    server.start().await;
    assert!(reads(&server, "saved").await);
    assert!(!reads(&server, "later").await);
    write(&server, "after").await;
    let other = joined("s2", &server).await;
    assert!(reads(&other, "saved").await, "others join the restored cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_with_the_reason_and_changes_nothing() {
    let mut server = first(&[]).await;
    write(&server, "kept").await;
    let directory = tempfile::tempdir().unwrap();
    let file = path(directory.path(), "snapshot");
    server.ok(&["snapshot", "save", &file]);
    server.stop();
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    for (content, part) in
        [(flipped, "damaged"), (whole[..whole.len() - 9].to_vec(), ""), (b"text".to_vec(), "snapshot")]
    {
        std::fs::write(&file, content).unwrap();
        for command in ["status", "restore"] {
            let arguments: Vec<&str> = vec!["snapshot", command, &file];
            let output = if command == "status" {
                crate::cluster::sampan().args(&arguments).output().unwrap()
            } else {
                server.run(&arguments)
            };
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains(part), "{text}");
            assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        }
    }
    server.start().await;
    assert!(reads(&server, "kept").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_made_by_schedule() {
    // Every minute is as often as cron does it. How many are kept is tested where they are made.
    let server = first(&["--snapshot-schedule", "* * * * *", "--snapshot-retention", "1"]).await;
    write(&server, "one").await;
    let directory = server.data_dir().join("snapshots");
    let deadline = std::time::Instant::now() + crate::cluster::PATIENCE;
    let made = loop {
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let found =
            entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "snapshot"));
        if let Some(found) = found {
            break found;
        }
        assert!(std::time::Instant::now() < deadline, "{}", server.errors());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let status = crate::cluster::sampan().args(["snapshot", "status"]).arg(&made).output().unwrap();
    assert!(status.status.success() && String::from_utf8_lossy(&status.stdout).contains("s1"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_snapshot_alone_brings_a_lost_machine_back_with_its_nodes() {
    let mut server = first(&[]).await;
    let mut agent = joining("edge", &server);
    agent.spawn();
    let client = server.client().await;
    node_ready(&client, &agent, "True").await;
    words_and_keys(&client).await;
    let directory = tempfile::tempdir().unwrap();
    let (sealed, keyless) = (path(directory.path(), "sealed"), path(directory.path(), "keyless"));
    let secret = path(directory.path(), "passphrase");
    std::fs::write(&secret, "open sesame\n").unwrap();
    let said = server.ok(&["snapshot", "save", &sealed, "--passphrase-file", &secret]);
    assert!(said.contains("identity  inside"), "{said}");
    let said = server.ok(&["snapshot", "save", &keyless, "--passphrase-file", &secret, "--without-keys"]);
    assert!(said.contains("identity  not inside"), "{said}");
    let said = crate::cluster::sampan().args(["snapshot", "status", &sealed]).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("identity  inside"), "{said:?}");
    let open = server.run(&["snapshot", "save", &path(directory.path(), "open"), "--without-keys"]);
    assert!(!open.status.success(), "an open one never carries them: {open:?}");
    server.kill();

    // Another machine, with nothing but the file; the same name, and another key.
    let mut new = Machine::server("s1", &[]);
    new.listens_where(&server);
    let said = new.ok(&["snapshot", "restore", &sealed, "--passphrase-file", &secret]);
    assert!(said.contains("keys are in place"), "{said}");
    new.start().await;
    let client = new.client().await;
    let keys = Api::<Secret>::default_namespaced(client.clone()).get("keys").await.unwrap();
    assert_eq!(keys.data.unwrap()["password"].0, b"correct-horse-battery");
    node_ready(&client, &agent, "True").await;
    write(&new, "after").await;
    let other = joined("s2", &new).await;
    assert!(reads(&other, "after").await);
    drop(other);

    // A machine that began a cluster of its own keeps it, unless it is told.
    let mut third = first(&[]).await;
    write(&third, "own").await;
    third.stop();
    let refused = third.run(&["snapshot", "restore", &sealed, "--passphrase-file", &secret]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("--on-other-keys"), "{text}");
    third.start().await;
    assert!(reads(&third, "own").await, "nothing was changed");
    third.stop();
    let replace =
        ["snapshot", "restore", &sealed, "--passphrase-file", &secret, "--on-other-keys", "replace"];
    let said = third.ok(&replace);
    assert!(said.contains("replaced-"), "{said}");
    third.start().await;
    let keys = Api::<Secret>::default_namespaced(third.client().await).get("keys").await.unwrap();
    assert_eq!(keys.data.unwrap()["password"].0, b"correct-horse-battery");
}
