//! Data directories of released formats open, with exactly what they held.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sampan_raft::{Member, NoPeers, RaftConfig, RaftStore, Start};
use sampan_store::{DurableConfig, Level, RangeRequest, Revision, Storage, StorageError};

use crate::support::{all, bytes, get, open, put, small};

fn released(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/data").join(format)
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
    copy(&released("format-1"), dir.path());
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
    // Alone as it is, the group goes on at once.
    while store.level() != Level::NEWEST {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await.unwrap();
    assert_eq!(format_of(dir.path()), NEWEST);
    let store = open(&config).await;
    assert_eq!(content(&store).await, before);
    assert_eq!(get(&store, "/registry/secrets/default/new").await.unwrap().value, "1");
}

/// The format of a directory whose group is at the newest level.
const NEWEST: &str = "sampan-store 4\n";

/// How `sampan` sets up the store of the groups whose directories of 0.2 and 0.3 are kept.
fn config_of_group(dir: &Path) -> DurableConfig {
    let mut config = DurableConfig::new(dir.join("data"));
    config.keys = dir.join("seal.keys");
    config.sealed_prefixes = vec!["/registry/core/secrets/".into()];
    config.volatile_prefixes = vec!["/registry/core/events/".into(), "/sampan/renewals/".into()];
    config
}

/// The group's only member, as its directory knows it.
fn founder(id: &str) -> Member {
    let id = u64::from_str_radix(id, 16).unwrap();
    Member { id, name: "s1".into(), addresses: vec!["127.0.0.1:17446".into()], ..Member::default() }
}

async fn open_group(config: &DurableConfig, member: &Member, level: Level) -> Arc<RaftStore> {
    let mut config = config.clone();
    config.level = level;
    RaftStore::open(RaftConfig::new(config, member.clone()), Start::Join, Arc::new(NoPeers)).await.unwrap()
}

/// The same as [`content`], with the leases that keys are attached to.
async fn content_with_leases(store: &dyn Storage) -> String {
    let mut text = String::new();
    for kv in all(store).await {
        let key = std::str::from_utf8(&kv.key).unwrap();
        let (created, changed, version) = (kv.create_revision, kv.mod_revision, kv.version);
        let value: String = kv.value.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{key} {created} {changed} {version} {} {value}", kv.lease.0).unwrap();
    }
    text
}

fn format_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("data/format")).unwrap()
}

#[tokio::test]
async fn a_directory_of_a_group_of_0_2_opens_with_what_it_held_stays_one_and_goes_on() {
    opens_stays_and_goes_on("format-2", Level::OLDEST).await;
}

#[tokio::test]
async fn a_directory_of_a_group_of_0_3_opens_with_what_it_held_stays_one_and_goes_on() {
    opens_stays_and_goes_on("format-3", Level::BATCHES).await;
}

async fn opens_stays_and_goes_on(format: &str, level: Level) {
    let dir = tempfile::tempdir().unwrap();
    copy(&released(format), dir.path());
    // The rest of the segment, which is but zeros, is not kept.
    let segment = std::fs::File::options().write(true).open(dir.path().join("data/wal/0000000000000001.wal"));
    segment.unwrap().set_len(4 << 20).unwrap();
    let expected = std::fs::read_to_string(dir.path().join("expected.txt")).unwrap();
    let (counters, expected) = expected.split_once('\n').unwrap();
    let words: Vec<&str> = counters.split(' ').collect();
    let ["revision", revision, "compacted", compacted, "cluster", cluster, "member", id] = words[..] else {
        panic!("{counters}")
    };
    let written = format_of(dir.path());
    let (config, member) = (config_of_group(dir.path()), founder(id));

    // As the version that wrote it: any number of times, and it stays what it was.
    for _ in 0..2 {
        let store = open_group(&config, &member, level).await;
        assert_eq!(content_with_leases(&*store).await, expected);
        assert!(store.revision().0 >= revision.parse().unwrap(), "revisions never go back");
        assert_eq!(store.stats().compacted.to_string(), compacted);
        assert_eq!(store.cluster_id().to_string(), cluster);
        let members = store.members();
        let [only] = &members[..] else { panic!("{members:?}") };
        assert!(only.voter && only.leader);
        let known = &only.member;
        assert_eq!((known.id, &known.name, &known.addresses), (member.id, &member.name, &member.addresses));
        assert_eq!(known.key[..8], member.id.to_be_bytes(), "its id is that of its key");
        assert_eq!(store.level(), level);
        store.close().await.unwrap();
        assert_eq!(format_of(dir.path()), written);
    }

    let store = open_group(&config, &member, Level::NEWEST).await;
    while store.level() != Level::NEWEST {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(content_with_leases(&*store).await, expected);
    store.close().await.unwrap();
    assert_eq!(format_of(dir.path()), NEWEST);
    let store = open_group(&config, &member, Level::NEWEST).await;
    assert_eq!((store.level(), store.cluster_id().to_string()), (Level::NEWEST, cluster.to_owned()));
    assert_eq!(content_with_leases(&*store).await, expected);
}
