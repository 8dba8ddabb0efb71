//! Data directories of released formats open, with exactly what they held.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sampan_store::{DurableConfig, RangeRequest, Revision, Storage, StorageError};

use crate::support::{all, bytes, get, open, put, small};

fn released() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/data/format-1")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
            // A checkout does not keep that keys are private.
            std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
        }
    }
}

fn config(dir: &Path) -> DurableConfig {
    let mut config = small(&dir.join("data"));
    config.segment_bytes = 32 << 10;
    config.checkpoint_bytes = 16 << 10;
    config.keys = dir.join("seal.keys");
    config.sealed_prefixes = vec!["/registry/secrets/".into()];
    config.volatile_prefixes = vec!["/registry/leases/".into()];
    config
}

/// What a store holds, in the form of the file that came with the directory.
async fn content(store: &dyn Storage) -> String {
    let mut text = String::new();
    for kv in all(store).await {
        write!(
            text,
            "{} {} {} {} ",
            std::str::from_utf8(&kv.key).unwrap(),
            kv.create_revision,
            kv.mod_revision,
            kv.version
        )
        .unwrap();
        for byte in &kv.value {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

#[tokio::test]
async fn a_directory_of_0_1_0_opens_with_what_it_held_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    copy(&released(), dir.path());
    let expected = std::fs::read_to_string(dir.path().join("expected.txt")).unwrap();
    let (counters, expected) = expected.split_once('\n').unwrap();
    let numbers: Vec<u64> = counters.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [revision, compacted] = numbers[..] else { panic!("{counters}") };
    let config = config(dir.path());

    let store = open(&config).await;
    assert_eq!(content(&store).await, expected);
    assert!(store.revision().0 > revision, "revisions never go back, and leases are gone");
    assert_eq!(store.stats().compacted, compacted);
    let at = |at| store.range(RangeRequest::prefix(bytes("/")).at(Revision(at)));
    assert!(matches!(at(compacted - 1).await, Err(StorageError::Compacted { .. })));
    let pods = |at| store.range(RangeRequest::prefix(bytes("/registry/pods/")).at(Revision(at)));
    assert!(!pods(compacted).await.unwrap().kvs.is_empty(), "history is there");
    assert!(!store.cluster_id().is_none());
    put(&store, "/registry/secrets/default/new", "1").await;
    let (cluster, before) = (store.cluster_id(), content(&store).await);
    drop(store);

    let store = open(&config).await;
    assert_eq!(store.cluster_id(), cluster);
    assert_eq!(content(&store).await, before);
    store.close().await.unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("data/format")).unwrap(), "sampan-store 2\n");
    let store = open(&config).await;
    assert_eq!(content(&store).await, before);
    assert_eq!(get(&store, "/registry/secrets/default/new").await.unwrap().value, "1");
}
