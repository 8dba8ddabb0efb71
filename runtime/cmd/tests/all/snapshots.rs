//! Snapshots: saved while the cluster runs, looked at, restored, refused when damaged.

use crate::machine::{first, joined, path, reads, write};

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
