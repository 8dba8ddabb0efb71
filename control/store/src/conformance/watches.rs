//! Checks of watches.

use std::collections::BTreeMap;

use super::*;

pub(super) async fn live(store: Store) {
    let mut watching = Watching::begin(&store, watch_request("/w/", after(store.revision()))).await;
    put(&store, "/w/a", "1").await;
    put(&store, "/w/a", "2").await;
    run(&store, vec![put_op("/w/b", "1"), delete_op("/w/a"), put_op("/other", "x")]).await;
    let last = put(&store, "/w/a", "3").await;
    let events = watching.events_to(last).await;
    assert_eq!(shown(&events), ["+/w/a=1", "+/w/a=2 (1)", "+/w/b=1", "-/w/a (2)", "+/w/a=3"]);
}

pub(super) async fn from_the_past(store: Store) {
    let first = put(&store, "/w/a", "1").await;
    let second = put(&store, "/w/a", "2").await;
    run(&store, vec![put_op("/w/b", "1"), delete_op("/w/a")]).await;
    for at in 0..2_000 {
        put(&store, &format!("/w/many/{}", at % 7), &at.to_string()).await;
    }
    let last = store.revision();
    let mut watching = Watching::begin(&store, watch_request("/w/", first)).await;
    let events = watching.events_to(last).await;
    assert_eq!(shown(&events[..4]), ["+/w/a=1", "+/w/a=2 (1)", "+/w/b=1", "-/w/a (2)"]);
    assert_eq!(events.len(), 2_004);
    assert_eq!(show(events.last().unwrap()), "+/w/many/4=1999 (1992)");
    let mut watching = Watching::begin(&store, watch_request("/w/a", second)).await;
    let next = put(&store, "/w/a", "3").await;
    assert_eq!(shown(&watching.events_to(next).await), ["+/w/a=2 (1)", "-/w/a (2)", "+/w/a=3"]);
    let mut everything = Watching::begin(&store, watch_request("", second)).await;
    assert_eq!(everything.events_to(next).await.len(), 2_004);
}

pub(super) async fn from_the_future(store: Store) {
    let from = Revision(store.revision().0 + 3);
    let mut watching = Watching::begin(&store, watch_request("/", from)).await;
    for value in ["1", "2", "3", "4"] {
        put(&store, "/a", value).await;
    }
    let last = store.revision();
    assert_eq!(shown(&watching.events_to(last).await), ["+/a=3 (2)", "+/a=4 (3)"]);
}

pub(super) async fn progress(store: Store) {
    put(&store, "/r/g/a/x", "1").await;
    let listed = store.revision();
    let mut watching = Watching::begin(&store, watch_request("/r/g/a/", after(listed))).await;
    let first = watching.batch().await.unwrap();
    assert!(
        first.events.is_empty() && first.revision >= listed,
        "a mark as soon as history is done: {first:?}"
    );
    let elsewhere = put(&store, "/r/g/b/x", "1").await;
    assert!(watching.events_to(elsewhere).await.is_empty(), "progress without an event");
}

pub(super) async fn only_its_range(store: Store) {
    let from = after(store.revision());
    let single = WatchRequest { start: bytes("/r/g/a/k"), end: None, from };
    let open_end = WatchRequest { start: bytes("/r/g/a/k"), end: Some(Bytes::new()), from };
    let mut single = Watching::begin(&store, single).await;
    let mut open_end = Watching::begin(&store, open_end).await;
    let mut group = Watching::begin(&store, watch_request("/r/g/a/", from)).await;
    for key in ["/r/g/a/j", "/r/g/a/k", "/r/g/a/k/2", "/r/g/b/k"] {
        put(&store, key, "1").await;
    }
    let last = delete(&store, "/r/g/a/k").await;
    assert_eq!(shown(&single.events_to(last).await), ["+/r/g/a/k=1", "-/r/g/a/k (1)"]);
    assert_eq!(
        shown(&open_end.events_to(last).await),
        ["+/r/g/a/k=1", "+/r/g/a/k/2=1", "+/r/g/b/k=1", "-/r/g/a/k (1)"]
    );
    assert_eq!(
        shown(&group.events_to(last).await),
        ["+/r/g/a/j=1", "+/r/g/a/k=1", "+/r/g/a/k/2=1", "-/r/g/a/k (1)"]
    );
}

pub(super) async fn forgotten(store: Store) {
    let first = put(&store, "/w/a", "1").await;
    put(&store, "/w/a", "2").await;
    let kept = put(&store, "/w/a", "3").await;
    delete(&store, "/w/a").await;
    store.compact(kept).await.unwrap();
    let refusal = store.watch(watch_request("/w/", first)).await.err().expect("a refusal");
    assert!(matches!(refusal, StorageError::Compacted { oldest, .. } if oldest == kept), "{refusal:?}");
    let mut watching = Watching::begin(&store, watch_request("/w/", kept)).await;
    let events = watching.events_to(store.revision()).await;
    assert_eq!(events.len(), 2);
    assert_eq!(show(&events[1]), "-/w/a (3)");
    assert_eq!(revision_of(&events[0]), kept);
}

pub(super) async fn slow(store: Store) {
    let mut slow = Watching::begin(&store, watch_request("/w/", after(store.revision()))).await;
    let first = put(&store, "/w/a", "first").await;
    slow.events_to(first).await;
    // Far more than any queue should hold, and nobody reads.
    for round in 0..200 {
        let writes = (0..100).map(|at| {
            let store = Arc::clone(&store);
            async move { put(&store, &format!("/w/{at}"), &round.to_string()).await }
        });
        futures::future::join_all(writes).await;
    }
    let end = slow.end().await;
    assert!(matches!(end, StorageError::Compacted { .. }), "{end:?}");
    let listed = list(&store, "/w/").await;
    let mut again = Watching::begin(&store, watch_request("/w/", after(listed.revision))).await;
    let next = put(&store, "/w/a", "next").await;
    assert_eq!(again.events_to(next).await.len(), 1, "listing again helps");
}

pub(super) async fn under_load(store: Store) {
    const WRITERS: usize = 8;
    const EACH: usize = 100;
    let from = after(store.revision());
    let mut early = Watching::begin(&store, watch_request("/r/g/w/", from)).await;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for at in 0..EACH {
                    put(&store, &format!("/r/g/w/{}", (writer + at) % 5), &format!("{writer}.{at}")).await;
                }
            })
        })
        .collect();
    // Begun in the midst of it, from the beginning.
    tokio::task::yield_now().await;
    let mut late = Watching::begin(&store, watch_request("/r/g/w/", from)).await;
    for task in tasks {
        task.await.unwrap();
    }
    let last = store.revision();
    let events = early.events_to(last).await;
    assert_eq!(events.len(), WRITERS * EACH);
    assert_eq!(late.events_to(last).await, events, "both saw the same");
    let mut state = BTreeMap::new();
    for event in &events {
        let WatchEvent::Put { kv, previous } = event else { panic!("{event:?}") };
        assert_eq!(state.insert(kv.key.clone(), kv.clone()), previous.clone(), "previous is what was there");
    }
    let listed = list(&store, "/r/g/w/").await;
    assert_eq!(state.into_values().collect::<Vec<_>>(), listed.kvs, "events add up to the state");
}
