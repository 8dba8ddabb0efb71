//! The mirror against its file and its readers.

use std::path::Path;

use sampan_store::RangeRequest;
use serde_json::json;

use super::*;

fn resource(plural: &str) -> &'static Resource {
    scheme::by_gvr("", "v1", plural).unwrap()
}

fn open(dir: &Path) -> Arc<Mirror> {
    open_within(dir, 1 << 20)
}

fn open_within(dir: &Path, limit: usize) -> Arc<Mirror> {
    Mirror::open(MirrorConfig { directory: dir.to_owned(), node: "n1".into(), limit }).unwrap()
}

fn object(namespace: &str, name: &str, version: &str, more: Value) -> Value {
    let mut object = json!({"metadata": {
        "name": name, "uid": format!("uid-{name}"), "resourceVersion": version,
        "creationTimestamp": "2026-01-01T00:00:00Z"
    }});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

fn pod(name: &str, version: &str) -> Value {
    let spec = json!({"nodeName": "n1", "volumes": [
        {"name": "a", "secret": {"secretName": "keys"}}, {"name": "b", "configMap": {"name": "files"}}
    ]});
    object("ns", name, version, json!({"spec": spec, "status": {"phase": "Running"}}))
}

fn fill(mirror: &Mirror) {
    mirror.put(resource("nodes"), object("", "n1", "3", json!({})));
    mirror.put(resource("pods"), pod("p", "10"));
    mirror.put(resource("secrets"), object("ns", "keys", "7", json!({"data": {"k": "dmVyeSBzZWNyZXQ="}})));
    mirror.put(resource("configmaps"), object("ns", "files", "8", json!({"data": {"f": "plain"}})));
}

#[tokio::test]
async fn a_new_run_finds_what_was_kept_as_it_was_and_nothing_is_readable_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    assert!(!first.is_usable());
    fill(&first);
    first.put_token("asked".into(), "uid-p", "the token".into());
    first.save().await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in ["dmVyeSBzZWNyZXQ=", "very secret", "the token", "plain"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }
    let second = open(dir.path());
    assert!(second.is_usable());
    let found = second.get(resource("pods"), "ns", "p").unwrap();
    assert_eq!(found["metadata"], first.get(resource("pods"), "ns", "p").unwrap()["metadata"]);
    assert_eq!(found["metadata"]["resourceVersion"], "10");
    assert_eq!(found["metadata"]["uid"], "uid-p");
    let secret = second.get(resource("secrets"), "ns", "keys").unwrap();
    assert_eq!(secret["data"]["k"], "dmVyeSBzZWNyZXQ=");
    assert_eq!(second.token("asked").as_deref(), Some(&b"the token"[..]));
    let stored = second.storage().range(RangeRequest::key("/registry/core/pods/ns/p")).await.unwrap();
    assert_eq!(stored.kvs[0].mod_revision.0, 10);
}

#[tokio::test]
async fn a_damaged_file_is_left_aside_and_a_good_one_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    fill(&first);
    first.save().await.unwrap();
    let path = dir.path().join("mirror");
    let good = std::fs::read(&path).unwrap();
    let (mut flipped, middle) = (good.clone(), good.len() / 2);
    flipped[middle] ^= 1;
    for bad in [&flipped[..], &good[..middle], b"", b"rubbish"] {
        std::fs::write(&path, bad).unwrap();
        let mirror = open(dir.path());
        assert!(!mirror.is_usable());
        assert!(mirror.list(resource("pods")).is_empty());
        fill(&mirror);
        mirror.save().await.unwrap();
        assert!(open(dir.path()).is_usable());
    }
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    fill(&mirror);
    mirror.save().await.unwrap();
    let path = dir.path().join("mirror");
    let first = std::fs::read(&path).unwrap();
    fill(&mirror);
    mirror.save().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "a new write would have a new nonce");
    mirror.remove(resource("pods"), "ns", "p");
    mirror.save().await.unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), first);
}

#[tokio::test]
async fn what_a_start_needs_is_written_soon_and_what_it_does_not_need_later() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    let due = || mirror.saving.lock().due.map(|due| due.saturating_duration_since(Instant::now()));
    assert_eq!(due(), None);
    fill(&mirror);
    assert!(due().unwrap() <= Duration::from_secs(1));
    mirror.save().await.unwrap();
    assert_eq!(due(), None);
    let mut busy = pod("p", "11");
    busy["status"]["message"] = "busy".into();
    mirror.put(resource("pods"), busy);
    assert!(due().unwrap() > Duration::from_secs(200));
    mirror.put(resource("pods"), pod("q", "12"));
    let soon = due().unwrap();
    assert!(soon > Duration::from_secs(1) && soon <= GAP, "not at once after the last write: {soon:?}");
}

#[tokio::test]
async fn the_file_is_written_by_itself_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(Arc::clone(&mirror).run(shutdown.clone()));
    fill(&mirror);
    let path = dir.path().join("mirror");
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mirror.put(resource("pods"), pod("q", "12"));
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(open(dir.path()).list(resource("pods")).len(), 2);
}

#[test]
fn an_answer_that_was_overtaken_does_not_bring_the_old_state_back() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    let version = || mirror.get(resource("pods"), "ns", "p").unwrap()["metadata"]["resourceVersion"].clone();
    mirror.put(resource("pods"), pod("p", "11"));
    mirror.put(resource("pods"), pod("p", "10"));
    assert_eq!(version(), "11");
    // Another cluster, or one restored from a backup, may count lower.
    let mut other = pod("p", "5");
    other["metadata"]["uid"] = "another".into();
    mirror.put(resource("pods"), other);
    assert_eq!(version(), "5");
}

#[test]
fn other_nodes_and_their_pods_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    let mut foreign = pod("p", "1");
    foreign["spec"]["nodeName"] = "n2".into();
    mirror.put(resource("pods"), foreign);
    mirror.put(resource("nodes"), object("", "n2", "1", json!({})));
    assert!(mirror.list(resource("pods")).is_empty());
    assert!(mirror.list(resource("nodes")).is_empty());
}

#[test]
fn a_list_says_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    for name in ["a", "b", "c"] {
        mirror.put(resource("pods"), pod(name, "1"));
    }
    mirror.replace(resource("pods"), vec![pod("b", "2"), pod("d", "3")]);
    let names: Vec<_> =
        mirror.list(resource("pods")).iter().map(|pod| pod["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["b", "d"]);
}

#[test]
fn what_the_node_adds_keeps_the_servers_version() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    fill(&mirror);
    let before = mirror.storage().revision();
    let amended = mirror.amend(resource("pods"), "ns", "p", |pod| pod["status"]["phase"] = "Failed".into());
    assert_eq!(amended.unwrap()["metadata"]["resourceVersion"], "10");
    assert!(mirror.storage().revision() > before, "readers that watch see it");
    mirror.refresh_readers();
    assert_eq!(mirror.storage().revision(), before);
    assert_eq!(mirror.get(resource("pods"), "ns", "p").unwrap()["status"]["phase"], "Failed");
}

#[tokio::test]
async fn a_full_mirror_leaves_out_large_objects_and_says_so_to_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open_within(dir.path(), 4000);
    fill(&mirror);
    let large = object("ns", "files", "9", json!({"data": {"f": "x".repeat(5000)}}));
    mirror.put(resource("configmaps"), large);
    mirror.save().await.unwrap();
    let next = open_within(dir.path(), 4000);
    assert!(next.get(resource("configmaps"), "ns", "files").is_none());
    assert!(next.was_left_out(resource("configmaps"), "ns", "files"));
    assert!(!next.was_left_out(resource("configmaps"), "ns", "other"));
    assert!(next.get(resource("secrets"), "ns", "keys").is_some());
}

#[test]
fn namespaces_and_accounts_of_pods_are_missed_until_they_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = open(dir.path());
    let mut pod = pod("p", "1");
    pod["spec"]["serviceAccountName"] = "robot".into();
    mirror.put(resource("pods"), pod);
    let missing = || -> Vec<_> {
        mirror.missing_companions().into_iter().map(|(kind, ns, name)| (kind.plural, ns, name)).collect()
    };
    let (none, ns) = (String::new(), "ns".to_owned());
    assert_eq!(missing(), [("namespaces", none, ns.clone()), ("serviceaccounts", ns, "robot".into())]);
    mirror.put(resource("namespaces"), object("", "ns", "1", json!({})));
    mirror.put(resource("serviceaccounts"), object("ns", "robot", "1", json!({})));
    assert!(missing().is_empty());
}
