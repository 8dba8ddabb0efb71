//! Watches: what they promise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sampan_etcd::Options;
use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::mvccpb::{Event, event::EventType};
use sampan_store::{MemoryStore, Op, Txn};
use tonic::Code;

use crate::leases::Fickle;
use crate::support::{clients, end_of, key, ours, ours_with};

fn watch(prefix: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key(prefix), range_end: end_of(prefix), ..Default::default() }
}

fn show(event: &Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let kv = event.kv.as_ref().unwrap();
    match event.r#type() {
        EventType::Put => format!("+{}={}", text(&kv.key), text(&kv.value)),
        EventType::Delete => format!("-{}", text(&kv.key)),
    }
}

fn shown(events: &[Event]) -> Vec<String> {
    events.iter().map(show).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_of_a_stream_have_names_of_their_own() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let mut watching = clients.watching();
    assert_eq!(watching.create(watch("a")).await.watch_id, 0);
    assert_eq!(watching.create(pb::WatchCreateRequest { watch_id: 2, ..watch("b") }).await.watch_id, 2);
    assert_eq!(watching.create(watch("c")).await.watch_id, 1);
    assert_eq!(watching.create(watch("d")).await.watch_id, 3, "2 is taken");
    let twice = watching.create(pb::WatchCreateRequest { watch_id: 2, ..watch("e") }).await;
    assert!(twice.canceled && twice.watch_id == -1);
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = pb::WatchCreateRequest { key: key("b"), range_end: key("a"), ..Default::default() };
    assert_eq!(watching.create(empty).await.cancel_reason, "mvcc: watcher range is empty");
    watching.cancel(1).await;
    let gone = watching.answer().await;
    assert!(gone.canceled && gone.watch_id == 1);
    watching.cancel(1).await;
    clients.put_text("c", "not seen").await;
    clients.put_text("d", "seen").await;
    let event = watching.answer().await;
    assert_eq!((event.watch_id, shown(&event.events)), (3, vec!["+d=seen".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_gets_what_it_asked_for() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let first = clients.put_text("a", "1").await;
    clients.put_text("a", "2").await;
    let delete = pb::DeleteRangeRequest { key: key("a"), ..Default::default() };
    clients.delete(delete.clone()).await.unwrap();
    let last = clients.put_text("b", "3").await;

    let events = async |request: pb::WatchCreateRequest, count: usize| {
        let mut watching = clients.watching();
        watching.create(request).await;
        watching.events(count).await
    };
    let all = pb::WatchCreateRequest { start_revision: first, range_end: key("\0"), ..watch("a") };
    assert_eq!(shown(&events(all.clone(), 4).await), ["+a=1", "+a=2", "-a", "+b=3"]);
    let noput = pb::WatchCreateRequest { filters: vec![0], ..all.clone() };
    assert_eq!(shown(&events(noput, 1).await), ["-a"]);
    let nodelete = pb::WatchCreateRequest { filters: vec![1], ..all.clone() };
    assert_eq!(shown(&events(nodelete, 3).await), ["+a=1", "+a=2", "+b=3"]);
    let previous = pb::WatchCreateRequest { prev_kv: true, ..all.clone() };
    let before: Vec<_> = events(previous, 4).await.into_iter().map(|event| event.prev_kv).collect();
    let values: Vec<_> = before.iter().map(|kv| kv.as_ref().map(|kv| &*kv.value)).collect();
    assert_eq!(values, [None, Some(&b"1"[..]), Some(b"2"), None]);
    let mut ahead = clients.watching();
    ahead.create(pb::WatchCreateRequest { start_revision: last + 2, ..all }).await;
    clients.put_text("c", "too early").await;
    clients.put_text("c", "in time").await;
    assert_eq!(shown(&ahead.events(1).await), ["+c=in time"]);
}

/// Two watches of a stream see each other's revisions in order, whoever is quicker.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_several_watches_come_in_the_order_of_their_revisions() {
    const WRITES: usize = 400;
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let mut watching = clients.watching();
    for prefix in ["/registry/a/b/c/", "/registry/d/e/f/", "/registry/", "/registry/a/b/c/3"] {
        watching.create(watch(prefix)).await;
    }
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let clients = clients.clone();
            tokio::spawn(async move {
                for number in 0..WRITES / 4 {
                    let group = if (number + writer) % 2 == 0 { "a/b/c" } else { "d/e/f" };
                    clients.put_text(&format!("/registry/{group}/{writer}"), "v").await;
                }
            })
        })
        .collect();
    let mut newest = 0;
    let mut seen: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    while seen.get(&2).is_none_or(|seen| seen.len() < WRITES) {
        let answer = watching.answer().await;
        for event in &answer.events {
            let revision = event.kv.as_ref().unwrap().mod_revision;
            assert!(revision >= newest, "revision {revision} of watch {} after {newest}", answer.watch_id);
            newest = revision;
            seen.entry(answer.watch_id).or_default().push(revision);
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(seen[&2].is_sorted_by(|a, b| a < b), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_when_asked_for_and_only_when_it_is_made() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let mut watching = clients.watching();
    watching.ask_progress().await;
    assert_eq!(watching.answer().await.watch_id, -1, "without a watch there is nothing to wait for");
    watching.create(watch("a")).await;
    watching.create(pb::WatchCreateRequest { start_revision: 1, ..watch("b") }).await;
    for round in 0..20 {
        let wrote = clients.put_text(if round % 2 == 0 { "a" } else { "z" }, "v").await;
        watching.ask_progress().await;
        let mut told = 0;
        loop {
            let answer = watching.answer().await;
            told += answer.events.len();
            if answer.watch_id == -1 {
                assert!(answer.header.unwrap().revision >= wrote && answer.events.is_empty());
                break;
            }
        }
        assert_eq!(told, usize::from(round % 2 == 0), "events come before the progress that covers them");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_watches_are_told_of_progress_now_and_then() {
    let options = Options { progress_interval: Duration::from_millis(300), ..Options::default() };
    let ours = ours_with(Arc::new(MemoryStore::new()), Fickle::new(true), options).await;
    let clients = clients(ours.address).await;
    let mut watching = clients.watching();
    watching.create(watch("quiet and not interested")).await;
    watching.create(pb::WatchCreateRequest { progress_notify: true, ..watch("a") }).await;
    let wrote = clients.put_text("z", "v").await;
    loop {
        let answer = watching.answer().await;
        assert!(answer.watch_id == 1 && answer.events.is_empty() && !answer.canceled, "{answer:?}");
        if answer.header.unwrap().revision >= wrote {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_cut_for_those_who_ask() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    // Larger in sum than one request could be: written past the API.
    let value = bytes::Bytes::from(vec![b'x'; 700 << 10]);
    let put = |name: &str| Op::Put { key: key(name), value: value.clone() };
    for name in ["a1", "a2"] {
        ours.storage.txn(Txn { success: vec![put(name)], ..Txn::default() }).await.unwrap();
    }
    let revision = ours.storage.revision().0 as i64;
    let ops =
        vec![Op::Delete { key: key("a1"), end: None }, Op::Delete { key: key("a2"), end: None }, put("a3")];
    ours.storage.txn(Txn { success: ops, ..Txn::default() }).await.unwrap();
    let request = pb::WatchCreateRequest { start_revision: revision + 1, prev_kv: true, ..watch("a") };
    let mut whole = clients.watching();
    whole.create(request.clone()).await;
    let answer = whole.answer().await;
    assert_eq!((answer.events.len(), answer.fragment), (3, false));
    let mut cut = clients.watching();
    cut.create(pb::WatchCreateRequest { fragment: true, ..request }).await;
    let parts = [cut.answer().await, cut.answer().await];
    assert_eq!(parts.each_ref().map(|part| part.fragment), [true, false]);
    assert_eq!(parts.iter().map(|part| part.events.len()).sum::<usize>(), 3);
}

/// The store cuts off whoever falls behind; a client of this API does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_misses_nothing() {
    const WRITES: usize = 12_000;
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let mut watching = clients.watching();
    watching.create(watch("a")).await;
    let value = bytes::Bytes::from(vec![b'x'; 256]);
    for _ in 0..WRITES {
        let put = Op::Put { key: key("a"), value: value.clone() };
        ours.storage.txn(Txn { success: vec![put], ..Txn::default() }).await.unwrap();
    }
    let events = watching.events(WRITES).await;
    let versions: Vec<_> = events.iter().map(|event| event.kv.as_ref().unwrap().version).collect();
    assert_eq!(versions, (1..=WRITES as i64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_own_keys_are_not_shown() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let mut watching = clients.watching();
    watching
        .create(pb::WatchCreateRequest { key: key("\0"), range_end: key("\0"), ..Default::default() })
        .await;
    let put = Op::Put { key: key("/sampan/tokens/x"), value: key("secret") };
    ours.storage.txn(Txn { success: vec![put], ..Txn::default() }).await.unwrap();
    clients.grant(4, 60).await.unwrap();
    clients.put_text("/sampan", "beside").await;
    assert_eq!(shown(&watching.events(1).await), ["+/sampan=beside"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_want_a_leader_end_without_one() {
    let view = Fickle::new(true);
    let options = Options { leader_patience: Duration::from_millis(200), ..Options::default() };
    let ours = ours_with(Arc::new(MemoryStore::new()), view.clone(), options).await;
    let clients = clients(ours.address).await;
    let open = || {
        clients.watching_with(|request| {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        })
    };
    let mut wants = open();
    wants.create(watch("a")).await;
    let mut does_not_mind = clients.watching();
    does_not_mind.create(watch("a")).await;
    view.nobody_leads();
    let ended = wants.next().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert_eq!(open().next().await.unwrap_err().code(), Code::Unavailable);
    clients.put_text("a", "v").await;
    does_not_mind.events(1).await;
}
