//! Whose directory it is: refusals are typed, one line long, and change nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sampan_store::OpenError;

use crate::support::{get, open, put, small};

/// Everything below a directory: names, modes, content.
pub(crate) fn everything(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = everything(&path).into_iter().map(|(below, what)| (format!("{name}/{below}"), what));
            found.extend(below);
        } else {
            found.insert(name, (mode, std::fs::read(&path).unwrap()));
        }
    }
    found
}

pub(crate) async fn refusal(config: &sampan_store::DurableConfig) -> OpenError {
    let error = crate::support::try_open(config).await.expect_err("a refusal");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn a_directory_is_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    let store = open(&config).await;
    put(&store, "/a", "1").await;
    let error = refusal(&config).await;
    let OpenError::Locked { process, .. } = error else { panic!("{error:?}") };
    assert_eq!(process, Some(std::process::id()));
    store.close().await.unwrap();
    let next = open(&config).await;
    assert_eq!(get(&next, "/a").await.unwrap().value, "1");
    drop(next);
    open(&config).await;
}

#[tokio::test]
async fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("family.jpg"), b"irreplaceable").unwrap();
    let before = everything(dir.path());
    let error = refusal(&small(dir.path())).await;
    assert!(matches!(&error, OpenError::Foreign { found, .. } if found == "family.jpg"), "{error:?}");
    assert_eq!(everything(dir.path()), before);
    for text in ["another program's\n", ""] {
        std::fs::write(dir.path().join("format"), text).unwrap();
        let before = everything(dir.path());
        let error = refusal(&small(dir.path())).await;
        assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
        assert_eq!(everything(dir.path()), before);
    }
}

#[tokio::test]
async fn a_directory_of_a_newer_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    open(&config).await.close().await.unwrap();
    std::fs::write(dir.path().join("format"), "sampan-store 7\n").unwrap();
    let before = everything(dir.path());
    let error = refusal(&config).await;
    assert!(matches!(error, OpenError::NewerFormat { found: 7, supported: 4, .. }), "{error:?}");
    assert_eq!(everything(dir.path()), before);
}

#[tokio::test]
async fn a_path_that_cannot_be_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refusal(&small(&path)).await;
        assert!(matches!(error, OpenError::Unusable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small(&dir.path().join("data"));
    config.segment_bytes = 10;
    let error = refusal(&config).await;
    assert!(matches!(error, OpenError::Config { .. }), "{error:?}");
    assert!(!dir.path().join("data").exists());
}

#[tokio::test]
async fn an_unfinished_beginning_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(dir.path());
    open(&config).await.close().await.unwrap();
    // Killed before the store was marked whole.
    std::fs::remove_file(dir.path().join("format")).unwrap();
    std::fs::write(dir.path().join("state.redb"), b"half").unwrap();
    let store = open(&config).await;
    put(&store, "/a", "1").await;
    store.close().await.unwrap();
    assert!(get(&open(&config).await, "/a").await.is_some());
}

#[tokio::test]
async fn data_is_private_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut config = small(&path);
    config.sealed_prefixes = vec!["/s/".into()];
    config.last_good_interval = std::time::Duration::from_secs(1);
    let store = open(&config).await;
    put(&store, "/s/a", "1").await;
    store.close().await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    for (name, (mode, _)) in everything(&path) {
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}
