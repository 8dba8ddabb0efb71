//! What a Kubernetes API server asks of its store, replayed against ours and a real etcd: every
//! answer, compared field by field.

use bytes::Bytes;
use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use sampan_etcd::proto::etcdserverpb::request_op::Request;
use sampan_etcd::proto::etcdserverpb::response_op::Response;
use sampan_etcd::proto::mvccpb;

use crate::differential::Both;
use crate::support::{Ours, Theirs, clients, end_of, key, ours, prefix, theirs};

const PODS: &str = "/registry/pods/default/";

async fn both() -> (Ours, Theirs, Both) {
    let (ours, theirs) = (ours().await, theirs().await);
    let both = Both::new(clients(ours.address).await, clients(theirs.address).await).await;
    (ours, theirs, both)
}

fn put(name: &str, value: &str, lease: i64) -> Request {
    Request::RequestPut(pb::PutRequest { key: key(name), value: key(value), lease, ..Default::default() })
}

fn get(name: &str) -> Request {
    Request::RequestRange(pb::RangeRequest { key: key(name), ..Default::default() })
}

fn delete(name: &str) -> Request {
    Request::RequestDeleteRange(pb::DeleteRangeRequest { key: key(name), ..Default::default() })
}

/// The key was last changed at `revision` (as `Both` names revisions).
fn unchanged(name: &str, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key(name),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

fn txn(compare: pb::Compare, success: Vec<Request>, failure: Vec<Request>) -> pb::TxnRequest {
    let ops = |ops: Vec<Request>| ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    pb::TxnRequest { compare: vec![compare], success: ops(success), failure: ops(failure) }
}

impl Both {
    async fn same_txn(&mut self, request: pb::TxnRequest) -> pb::TxnResponse {
        self.txn(&request).await.unwrap().expect("no refusal")
    }

    async fn create(&mut self, name: &str, value: &str, lease: i64) -> bool {
        self.same_txn(txn(unchanged(name, 0), vec![put(name, value, lease)], vec![])).await.succeeded
    }

    /// The state of a key, in etcd's terms.
    async fn state(&mut self, name: &str) -> Option<mvccpb::KeyValue> {
        let request = pb::RangeRequest { key: key(name), ..Default::default() };
        self.range(&request).await.unwrap().expect("no refusal").kvs.pop()
    }

    /// Writes if nobody wrote since, else reads, as the API server does.
    async fn update(&mut self, name: &str, value: &str, seen: i64) -> pb::TxnResponse {
        let seen = self.symbol(seen);
        self.same_txn(txn(unchanged(name, seen), vec![put(name, value, 0)], vec![get(name)])).await
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn objects_are_made_changed_and_deleted() {
    let (_ours, _theirs, mut both) = both().await;
    let name = "/registry/pods/default/a";
    assert!(both.state(name).await.is_none());
    assert!(both.create(name, "one", 0).await);
    assert!(!both.create(name, "again", 0).await, "it exists");
    let made = both.state(name).await.unwrap();
    assert!(both.update(name, "two", made.mod_revision).await.succeeded);
    let conflict = both.update(name, "late", made.mod_revision).await;
    assert!(!conflict.succeeded);
    let Some(Response::ResponseRange(read)) = &conflict.responses[0].response else { panic!("{conflict:?}") };
    assert_eq!((&*read.kvs[0].value, read.kvs[0].version), (&b"two"[..], 2));
    let seen = both.symbol(read.kvs[0].mod_revision);
    let stale = both.symbol(made.mod_revision);
    assert!(!both.same_txn(txn(unchanged(name, stale), vec![delete(name)], vec![get(name)])).await.succeeded);
    assert!(both.same_txn(txn(unchanged(name, seen), vec![delete(name)], vec![get(name)])).await.succeeded);
    assert!(both.state(name).await.is_none());
    assert!(both.create(name, "new life", 0).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn lists_come_in_pages_of_one_revision() {
    let (_ours, _theirs, mut both) = both().await;
    for number in 0..10 {
        assert!(both.create(&format!("{PODS}{number}"), "v", 0).await);
    }
    both.create("/registry/pods/other/x", "v", 0).await;
    let first = pb::RangeRequest { limit: 4, ..prefix(PODS) };
    let page = both.range(&first).await.unwrap().unwrap();
    assert_eq!((page.kvs.len(), page.more, page.count), (4, true, 10));
    // What happens between the pages does not show in them.
    let at = page.header.unwrap().revision;
    both.create(&format!("{PODS}5a"), "later", 0).await;
    both.same_txn(txn(unchanged(&format!("{PODS}9"), 0), vec![], vec![delete(&format!("{PODS}9"))])).await;
    let mut names: Vec<Bytes> = page.kvs.into_iter().map(|kv| kv.key).collect();
    loop {
        let mut next = names.last().unwrap().to_vec();
        next.push(0);
        let request = pb::RangeRequest { key: next.into(), revision: both.symbol(at), ..first.clone() };
        let page = both.range(&request).await.unwrap().unwrap();
        names.extend(page.kvs.into_iter().map(|kv| kv.key));
        if !page.more {
            break;
        }
    }
    let expected: Vec<String> = (0..10).map(|number| format!("{PODS}{number}")).collect();
    assert_eq!(names, expected);
    let count = pb::RangeRequest { count_only: true, ..prefix("/registry/pods/") };
    assert_eq!(both.range(&count).await.unwrap().unwrap().count, 11);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn watches_go_on_where_the_list_ended() {
    let (_ours, _theirs, mut both) = both().await;
    both.create(&format!("{PODS}a"), "one", 0).await;
    let listed = both.range(&prefix(PODS)).await.unwrap().unwrap();
    let at = listed.header.unwrap().revision;
    both.update(&format!("{PODS}a"), "two", listed.kvs[0].mod_revision).await;
    let from = both.symbol(at) - 1;
    let watch = |from: i64| pb::WatchCreateRequest {
        key: key(PODS),
        range_end: end_of(PODS),
        start_revision: from,
        prev_kv: true,
        progress_notify: true,
        ..Default::default()
    };
    let (our_from, their_from) = both.sent(from);
    let (mut ours, mut theirs) = (both.ours.watching(), both.theirs.watching());
    assert_eq!(ours.create(watch(our_from)).await.watch_id, 0);
    assert_eq!(theirs.create(watch(their_from)).await.watch_id, 0);
    both.create(&format!("{PODS}b"), "other", 0).await;
    both.create("/registry/secrets/default/s", "not watched", 0).await;
    let state = both.state(&format!("{PODS}a")).await.unwrap();
    let seen = both.symbol(state.mod_revision);
    let delete = txn(unchanged(&format!("{PODS}a"), seen), vec![delete(&format!("{PODS}a"))], vec![]);
    assert!(both.same_txn(delete).await.succeeded);
    let (ours, theirs) = (ours.events(3).await, theirs.events(3).await);
    let ours: Vec<_> = ours.into_iter().map(|event| both.in_their_terms(event)).collect();
    assert_eq!(ours, theirs);
    assert_eq!(ours.iter().map(|event| event.r#type).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(ours[2].prev_kv.as_ref().unwrap().value, "two");
}

/// API servers take turns: whoever counts the key's version on compacts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn compaction_is_agreed_on_by_a_key() {
    let (_ours, _theirs, mut both) = both().await;
    for number in 0..5 {
        both.create(&format!("{PODS}{number}"), "v", 0).await;
    }
    let turn = |version: i64| pb::Compare {
        target: CompareTarget::Version.into(),
        key: key("compact_rev_key"),
        target_union: Some(TargetUnion::Version(version)),
        ..Default::default()
    };
    let attempt =
        |version| txn(turn(version), vec![put("compact_rev_key", "1", 0)], vec![get("compact_rev_key")]);
    assert!(both.same_txn(attempt(0)).await.succeeded);
    let lost = both.same_txn(attempt(0)).await;
    assert!(!lost.succeeded, "another was quicker");
    assert!(both.same_txn(attempt(1)).await.succeeded);
    assert!(both.compact(3).await.unwrap().is_some());
    assert!(both.compact(3).await.unwrap().is_none(), "compacted already: both say so");
    let old = pb::RangeRequest { revision: 5, ..prefix(PODS) };
    assert!(both.range(&old).await.unwrap().is_none(), "both refuse what is forgotten");
    let edge = pb::RangeRequest { revision: 3, ..prefix(PODS) };
    assert_eq!(both.range(&edge).await.unwrap().unwrap().kvs.len(), 5);

    let forgotten = |from| pb::WatchCreateRequest {
        key: key(PODS),
        range_end: end_of(PODS),
        start_revision: from,
        ..Default::default()
    };
    let (our_from, their_from) = both.sent(5);
    let (mut ours, mut theirs) = (both.ours.watching(), both.theirs.watching());
    ours.create(forgotten(our_from)).await;
    theirs.create(forgotten(their_from)).await;
    let (ours, theirs) = (ours.answer().await, theirs.answer().await);
    let (oldest, _) = both.sent(3);
    assert_eq!((ours.watch_id, ours.canceled, ours.events.len()), (theirs.watch_id, theirs.canceled, 0));
    assert_eq!(ours.compact_revision, oldest);
    assert!(theirs.canceled && theirs.compact_revision > 0);
}

/// Events get leases that many of them share; API servers announce themselves with one each.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn leases_carry_events_and_announcements() {
    let (_ours, _theirs, mut both) = both().await;
    both.grant(77, 3600).await.unwrap();
    for number in 0..3 {
        assert!(both.create(&format!("/registry/events/default/e{number}"), "event", 77).await);
    }
    both.grant(78, 15).await.unwrap();
    let master = "/registry/masterleases/10.0.0.1";
    assert!(both.create(master, "endpoint", 78).await);
    let state = both.state(master).await.unwrap();
    assert_eq!(state.lease, 78);
    both.grant(79, 15).await.unwrap();
    let seen = both.symbol(state.mod_revision);
    both.same_txn(txn(unchanged(master, seen), vec![put(master, "endpoint", 79)], vec![get(master)])).await;
    assert_eq!(both.state(master).await.unwrap().lease, 79);
    let (ours, mut theirs) = (both.ours.time_to_live(77).await, both.theirs.time_to_live(77).await);
    // Ours come in order.
    theirs.keys.sort();
    assert_eq!((ours.keys, ours.granted_ttl), (theirs.keys, theirs.granted_ttl));
    let keys = (both.ours.time_to_live(78).await.keys, both.theirs.time_to_live(78).await.keys);
    assert_eq!(keys, (vec![], vec![]), "the key went over to the other lease");
    both.ours.revoke(77).await.unwrap();
    both.theirs.revoke(77).await.unwrap();
    both.range(&prefix("/registry/events/")).await.unwrap();
    assert!(both.create(&format!("{PODS}after"), "v", 0).await);
    let unknown = txn(unchanged("/registry/events/default/late", 0), vec![put("x", "v", 77)], vec![]);
    assert!(both.txn(&unknown).await.unwrap().is_none(), "both refuse a lease that is gone");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn what_an_api_server_looks_for_is_there() {
    let ours = ours().await;
    let clients = clients(ours.address).await;
    let status = clients.maintenance.clone().status(pb::StatusRequest {}).await.unwrap().into_inner();
    let version: Vec<u32> = status.version.split('.').map(|part| part.parse().unwrap()).collect();
    assert!(version[0] == 3 && version[1] == 5 && version[2] >= 13, "progress can be asked for since 3.5.13");
    assert!(status.leader != 0 && !status.is_learner && status.errors.is_empty());
    let health = pb::RangeRequest { key: key("health"), ..Default::default() };
    assert_eq!(clients.range(health).await.unwrap().count, 0);
}
