//! Checks of reads and of compaction.

use super::*;

pub(super) async fn ranges(store: Store) {
    for key in ["/b/2", "/a", "/b/1", "/c", "/b", "/b/10", "\u{ff}z"] {
        put(&store, key, "v").await;
    }
    let keys = |response: RangeResponse| -> Vec<String> {
        texts(&response.kvs).into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys(list(&store, "/b/").await), ["/b/1", "/b/10", "/b/2"]);
    assert_eq!(keys(list(&store, "/b").await), ["/b", "/b/1", "/b/10", "/b/2"]);
    assert_eq!(keys(list(&store, "").await).len(), 7, "the empty prefix is everything");
    let range = |start: &str, end: Option<&str>| RangeRequest {
        start: bytes(start),
        end: end.map(bytes),
        revision: None,
        limit: 0,
        count_only: false,
        keys_only: true,
    };
    let table: [(&str, Option<&str>, &[&str]); 6] = [
        ("/b", None, &["/b"]),
        ("/x", None, &[]),
        ("/a", Some("/b"), &["/a"]),
        ("/b/10", Some("/c"), &["/b/10", "/b/2"]),
        ("/c", Some(""), &["/c", "\u{ff}z"]),
        ("/c", Some("/a"), &[]),
    ];
    for (start, end, expected) in table {
        let response = store.range(range(start, end)).await.unwrap();
        assert!(response.kvs.iter().all(|kv| kv.value.is_empty()), "keys only");
        assert_eq!(response.count, expected.len() as u64);
        assert_eq!(keys(response), expected, "{start}..{end:?}");
    }
}

pub(super) async fn limits(store: Store) {
    for at in 0..10 {
        put(&store, &format!("/k/{at}"), "v").await;
    }
    // limit, found, more
    for (limit, found, more) in [(0, 10, false), (1, 1, true), (9, 9, true), (10, 10, false), (11, 10, false)]
    {
        let request = RangeRequest::prefix(bytes("/k/")).limit(limit);
        let response = store.range(request).await.unwrap();
        assert_eq!((response.kvs.len(), response.more, response.count), (found, more, 10), "limit {limit}");
        assert_eq!(response.revision, store.revision());
    }
}

pub(super) async fn the_past(store: Store) {
    let start = store.revision();
    let mut states = vec![(start, vec![])];
    let steps: [&[Op]; 6] = [
        &[put_op("/a", "1")],
        &[put_op("/b", "1"), put_op("/c", "1")],
        &[put_op("/a", "2"), delete_op("/c")],
        &[delete_op("/a")],
        &[put_op("/a", "3")],
        &[Op::Delete { key: bytes("/"), end: Some(bytes("0")) }],
    ];
    for step in steps {
        let revision = run(&store, step.to_vec()).await.revision;
        states.push((revision, list(&store, "/").await.kvs));
    }
    for (revision, expected) in states {
        let response = store.range(RangeRequest::prefix(bytes("/")).at(revision)).await.unwrap();
        assert_eq!(response.kvs, expected, "at {revision}");
        assert_eq!((response.revision, response.count), (revision, expected.len() as u64));
        let one = store.range(RangeRequest::key(bytes("/a")).at(revision)).await.unwrap();
        let expected: Vec<_> = expected.into_iter().filter(|kv| kv.key == bytes("/a")).collect();
        assert_eq!(one.kvs, expected, "/a at {revision}");
    }
    let ahead = after(store.revision());
    let refusal = store.range(RangeRequest::key(bytes("/a")).at(ahead)).await.unwrap_err();
    assert!(matches!(refusal, StorageError::Future { requested, .. } if requested == ahead), "{refusal:?}");
}

pub(super) async fn compaction(store: Store) {
    let first = put(&store, "/a", "1").await;
    put(&store, "/b", "1").await;
    put(&store, "/a", "2").await;
    delete(&store, "/b").await;
    let kept = put(&store, "/a", "3").await;
    put(&store, "/b", "2").await;
    let newest = put(&store, "/a", "4").await;
    store.compact(kept).await.unwrap();
    let refusal = store.range(RangeRequest::key(bytes("/a")).at(first)).await.unwrap_err();
    assert!(matches!(refusal, StorageError::Compacted { oldest, .. } if oldest == kept), "{refusal:?}");
    let at = |revision| store.range(RangeRequest::prefix(bytes("/")).at(revision));
    assert_eq!(texts(&at(kept).await.unwrap().kvs), pairs(&[("/a", "3")]));
    assert_eq!(texts(&at(after(kept)).await.unwrap().kvs), pairs(&[("/a", "3"), ("/b", "2")]));
    assert_eq!(texts(&at(newest).await.unwrap().kvs), pairs(&[("/a", "4"), ("/b", "2")]));
    store.compact(first).await.unwrap();
    assert!(at(kept).await.is_ok(), "what is compacted stays compacted, no more and no less");
    let refusal = store.compact(after(newest)).await.unwrap_err();
    assert!(matches!(refusal, StorageError::Future { .. }), "{refusal:?}");
    store.compact(newest).await.unwrap();
    assert_eq!(texts(&list(&store, "/").await.kvs), pairs(&[("/a", "4"), ("/b", "2")]));
    assert_eq!(store.revision(), newest, "compaction is no change");
    let kv = get(&store, "/a").await.unwrap();
    assert_eq!((kv.create_revision, kv.version), (first, 4));
    assert_eq!(put(&store, "/a", "5").await, after(newest));
}
