//! Watches: order, selectors' edges, bookmarks, ends.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};

use crate::harness::{brief, cluster, take};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on_with_what_happens() {
    let c = cluster().await;
    c.config_map("a", json!({})).await;
    let mut watch = c.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    c.config_map("b", json!({})).await;
    c.patch(&format!("{MAPS}/a"), "merge-patch", &json!({"data": {"k": "w"}})).await.expect(200);
    c.delete(&format!("{MAPS}/b"), &Value::Null).await.expect(200);
    assert_eq!(watch.brief().await, "ADDED b");
    let changed = watch.next().await.unwrap();
    assert_eq!(brief(&changed), "MODIFIED a");
    assert_eq!(changed["object"]["data"]["k"], "w");
    assert_eq!(changed["object"]["kind"], "ConfigMap");
    let gone = watch.next().await.unwrap();
    assert_eq!(brief(&gone), "DELETED b");
    // The last state, at the revision of the deletion.
    assert_eq!(gone["object"]["data"]["k"], "v");
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], c.storage.revision().to_string());
}

#[tokio::test]
async fn a_watch_from_a_revision_repeats_and_misses_nothing() {
    let c = cluster().await;
    let mut revisions = Vec::new();
    for i in 0..5 {
        let made = c.config_map(&format!("n{i}"), json!({})).await;
        revisions.push(made["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
    }
    for (i, revision) in revisions.iter().enumerate() {
        let mut watch =
            c.watch(&format!("{MAPS}?watch=true&resourceVersion={revision}&timeoutSeconds=60")).await;
        for expected in i + 1..5 {
            assert_eq!(watch.brief().await, format!("ADDED n{expected}"));
        }
    }
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let c = cluster().await;
    c.config_map("a", json!({"l": "x"})).await;
    let list = c.get(MAPS).await.expect(200);
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = c.watch(&format!("{MAPS}?watch=true&resourceVersion={from}&labelSelector=l%3Dx")).await;
    let label = |value: Value| json!({"metadata": {"labels": {"l": value}}});
    for (value, expected) in [(json!("y"), "DELETED a"), (json!("x"), "ADDED a"), (json!("z"), "DELETED a")] {
        c.patch(&format!("{MAPS}/a"), "merge-patch", &label(value)).await.expect(200);
        assert_eq!(watch.brief().await, expected);
    }
    // What never was in the selection is never heard of.
    c.delete(&format!("{MAPS}/a"), &Value::Null).await.expect(200);
    c.config_map("b", json!({"l": "x"})).await;
    assert_eq!(watch.brief().await, "ADDED b");
}

#[tokio::test]
async fn a_watch_of_one_name_hears_of_no_other() {
    let c = cluster().await;
    let mut watch = c.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Db")).await;
    c.config_map("a", json!({})).await;
    c.config_map("b", json!({})).await;
    assert_eq!(watch.brief().await, "ADDED b");
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let c = cluster().await;
    c.config_map("a", json!({})).await;
    c.config_map("b", json!({})).await;
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = c.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    assert_eq!(watch.brief().await, "ADDED b");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], c.storage.revision().to_string());
    c.config_map("c", json!({})).await;
    assert_eq!(watch.brief().await, "ADDED c");
}

#[tokio::test]
async fn a_watch_ends_when_asked_to_with_a_bookmark_before() {
    let c = cluster().await;
    let made = c.config_map("a", json!({})).await;
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    // Progress elsewhere moves the bookmark.
    c.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}})).await.expect(201);
    let query = format!("watch=true&resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds=3");
    let events = c.watch(&format!("{MAPS}?{query}")).await.all().await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["type"], "BOOKMARK");
    let marked: u64 = events[0]["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(marked > from.parse().unwrap());
    let events =
        c.watch(&format!("{MAPS}?watch=true&resourceVersion={from}&timeoutSeconds=1")).await.all().await;
    assert!(events.is_empty(), "{events:?}");
}

#[tokio::test]
async fn a_watch_from_before_history_is_told_so() {
    let c = cluster().await;
    for i in 0..1100 {
        c.patch_or_make(i).await;
    }
    // A list that is current: the cache has seen it all.
    c.get(MAPS).await.expect(200);
    let events = c.watch(&format!("{MAPS}?watch=true&resourceVersion=1")).await.all().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "ERROR");
    assert_eq!(events[0]["object"]["code"], 410);
    assert_eq!(events[0]["object"]["reason"], "Expired");
}

impl crate::harness::Cluster {
    async fn patch_or_make(&self, i: usize) {
        if i == 0 {
            self.config_map("a", json!({})).await;
        } else {
            let patch = json!({"data": {"k": i.to_string()}});
            self.patch(&format!("{MAPS}/a"), "merge-patch", &patch).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_watcher_who_does_not_listen_is_let_go_and_the_others_are_not_held_up() {
    let c = cluster().await;
    let mut deaf = c.watch(&format!("{MAPS}?watch=true")).await;
    let mut keen = c.watch(&format!("{MAPS}?watch=true")).await;
    for i in 0..1500 {
        c.patch_or_make(i).await;
        keen.next().await.unwrap();
    }
    let mut heard = 0;
    while deaf.next().await.is_some() {
        heard += 1;
    }
    assert!(heard < 1500, "{heard}");
}

#[tokio::test]
async fn a_watch_may_be_of_tables() {
    let c = cluster().await;
    c.config_map("a", json!({})).await;
    let mut watch =
        c.watch_as(&format!("{MAPS}?watch=true"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    c.config_map("b", json!({})).await;
    let second = watch.next().await.unwrap();
    assert_eq!(second["object"]["rows"][0]["object"]["metadata"]["name"], "b");
    assert!(second["object"]["columnDefinitions"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn watches_end_cleanly_when_the_server_stops() {
    let c = cluster().await;
    let watch = c.watch(&format!("{MAPS}?watch=true")).await;
    c.server.shutdown();
    assert!(watch.all().await.is_empty());
}

#[tokio::test]
async fn the_watcher_of_kube_works_in_both_of_its_ways() {
    let c = cluster().await;
    c.config_map("a", json!({})).await;
    let api: Api<ConfigMap> = Api::default_namespaced(c.client());
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = watcher(api.clone(), config).boxed();
        let seen: Vec<String> =
            take(&mut events, 3).await.into_iter().map(|e| describe(e.unwrap())).collect();
        assert_eq!(seen, ["init", "init a", "ready"]);
        c.patch(&format!("{MAPS}/a"), "merge-patch", &json!({"data": {"n": seen.len().to_string()}}))
            .await
            .expect(200);
        c.config_map("b", json!({})).await;
        c.delete(&format!("{MAPS}/b"), &Value::Null).await.expect(200);
        let mut seen = Vec::new();
        while seen.last().map(String::as_str) != Some("deleted b") {
            seen.extend(take(&mut events, 1).await.into_iter().map(|e| describe(e.unwrap())));
        }
        assert!(seen.contains(&"applied b".to_owned()), "{seen:?}");
    }
}

fn describe(event: Event<ConfigMap>) -> String {
    let name = |object: ConfigMap| object.metadata.name.unwrap();
    match event {
        Event::Init => "init".into(),
        Event::InitApply(object) => format!("init {}", name(object)),
        Event::InitDone => "ready".into(),
        Event::Apply(object) => format!("applied {}", name(object)),
        Event::Delete(object) => format!("deleted {}", name(object)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_at_once_lose_no_change_and_watchers_see_each_in_order() {
    const WRITERS: u64 = 6;
    const ROUNDS: u64 = 25;
    let c = Arc::new(cluster().await);
    c.config_map("shared", json!({})).await;
    let mut watch = c.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Dshared")).await;
    let writers = (0..WRITERS).map(|writer| {
        let c = Arc::clone(&c);
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let patch = json!({"data": {format!("w{writer}"): round.to_string()}});
                c.patch(&format!("{MAPS}/shared"), "merge-patch", &patch).await.expect(200);
                // Whoever wrote sees what was written.
                let list = c.get(MAPS).await.expect(200);
                let seen = &list["items"][0]["data"][format!("w{writer}")];
                assert_eq!(*seen, round.to_string());
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut last = 0;
    for event in 0..=WRITERS * ROUNDS {
        let seen = watch.next().await.unwrap();
        let revision: u64 = seen["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(revision > last, "{revision} after {last}");
        last = revision;
        if event == WRITERS * ROUNDS {
            for writer in 0..WRITERS {
                assert_eq!(seen["object"]["data"][format!("w{writer}")], (ROUNDS - 1).to_string());
            }
        }
    }
}
