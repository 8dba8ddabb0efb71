//! Checks of what transactions can do beyond single keys, and of leases.

use super::*;
use crate::types::{Compare, LeaseId, OpResult, Operand, Refusal, Relation};

const LEASE: LeaseId = LeaseId(0x2a);

fn range(start: &str, end: &str) -> RangeRequest {
    RangeRequest { end: Some(bytes(end)), ..RangeRequest::key(bytes(start)) }
}

fn write_op(key: &str, value: Option<&str>, lease: Option<LeaseId>) -> Op {
    Op::Write { key: bytes(key), value: value.map(bytes), lease }
}

fn inner(compare: Compare, success: Vec<Op>, failure: Vec<Op>) -> Op {
    Op::Txn(Box::new(Txn { compares: vec![compare], success, failure }))
}

fn each(key: &str, end: Option<&str>, relation: Relation, operand: Operand) -> Compare {
    Compare::Each { key: bytes(key), end: end.map(bytes), relation, operand }
}

pub(super) async fn ranges_within(store: Store) {
    let before = run(&store, vec![put_op("/a", "1"), put_op("/b", "1"), put_op("/c", "1")]).await.revision;
    let steps = vec![
        Op::Range(range("/a", "/z")),
        put_op("/b", "2"),
        delete_op("/c"),
        put_op("/d", "2"),
        Op::Range(range("/a", "/z")),
        Op::Range(range("/a", "/z").limit(1)),
        Op::Range(RangeRequest { count_only: true, ..range("/a", "/z") }),
        Op::Range(range("/a", "/z").at(before)),
    ];
    let response = run(&store, steps).await;
    let found = |at: usize| match &response.results[at] {
        OpResult::Range(found) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(texts(&found(0).kvs), pairs(&[("/a", "1"), ("/b", "1"), ("/c", "1")]));
    assert_eq!(texts(&found(4).kvs), pairs(&[("/a", "1"), ("/b", "2"), ("/d", "2")]));
    assert_eq!((found(5).kvs.len(), found(5).count, found(5).more), (1, 3, true));
    assert_eq!((found(6).kvs.len(), found(6).count, found(6).more), (0, 3, false));
    assert_eq!(texts(&found(7).kvs), pairs(&[("/a", "1"), ("/b", "1"), ("/c", "1")]), "as it was then");
    assert_eq!((found(0).revision, found(4).revision), (before, response.revision));
    let ahead = Revision(response.revision.0 + 100);
    let refused = run(&store, vec![put_op("/a", "no"), Op::Range(range("/a", "/z").at(ahead))]).await;
    assert!(matches!(refused.results[..], [OpResult::Refused(Refusal::Future { .. })]), "{refused:?}");
    assert_eq!(get(&store, "/a").await.unwrap().value, "1", "refused as a whole");
    assert_eq!(store.revision(), response.revision, "and without a revision");
}

pub(super) async fn inner_transactions(store: Store) {
    put(&store, "/a", "1").await;
    let written_once = || each("/a", None, Relation::Equal, Operand::Version(1));
    let steps = vec![
        put_op("/a", "2"),
        inner(written_once(), vec![put_op("/b", "still"), Op::Get { key: bytes("/a") }], vec![]),
        inner(
            each("/b", None, Relation::Greater, Operand::CreateRevision(0)),
            vec![],
            vec![inner(written_once(), vec![delete_op("/b")], vec![])],
        ),
    ];
    let response = run(&store, steps).await;
    let [_, OpResult::Txn { succeeded: true, results }, OpResult::Txn { succeeded: false, results: last }] =
        &response.results[..]
    else {
        panic!("{response:?}");
    };
    let OpResult::Got { kv: Some(kv) } = &results[1] else { panic!("{results:?}") };
    assert_eq!(kv.value, "2", "steps see the steps before them, conditions do not");
    let OpResult::Txn { succeeded: true, results } = &last[0] else { panic!("{last:?}") };
    assert!(matches!(&results[0], OpResult::Deleted { previous } if previous.len() == 1));
    assert!(get(&store, "/b").await.is_none(), "written and deleted at one revision");
    let mut watching = Watching::begin(&store, watch_request("/", response.revision)).await;
    assert_eq!(
        shown(&watching.events_to(response.revision).await),
        ["+/a=2 (1)", "+/b=still", "-/b (still)"]
    );
}

pub(super) async fn relations(store: Store) {
    let first = put(&store, "/a", "m").await.0.cast_signed();
    run(&store, vec![put_op("/b", "m"), put_op("/a", "n")]).await;
    let value = |text: &str| Operand::Value(bytes(text));
    let table = [
        (each("/a", None, Relation::Equal, Operand::Version(2)), true),
        (each("/a", None, Relation::Greater, Operand::Version(2)), false),
        (each("/a", None, Relation::Less, Operand::CreateRevision(first + 1)), true),
        (each("/a", None, Relation::NotEqual, Operand::ModRevision(first)), true),
        (each("/a", None, Relation::Greater, value("m")), true),
        (each("/a", None, Relation::Equal, Operand::Lease(0)), true),
        (each("/a", Some("/c"), Relation::Greater, Operand::CreateRevision(first)), false),
        (each("/a", Some("/c"), Relation::Greater, Operand::CreateRevision(first - 1)), true),
        (each("/a", Some("/c"), Relation::Equal, value("m")), false),
        (each("/a", Some("/c"), Relation::Greater, value("l")), true),
        (each("/x", None, Relation::Equal, Operand::Version(0)), true),
        (each("/x", Some("/z"), Relation::Greater, Operand::ModRevision(-1)), true),
        (each("/x", None, Relation::NotEqual, value("m")), false),
    ];
    for (compare, holds) in table {
        let txn = Txn { compares: vec![compare.clone()], ..Txn::default() };
        assert_eq!(store.txn(txn).await.unwrap().succeeded, holds, "{compare:?}");
    }
}

/// The keys of a lease.
async fn attached(store: &Store, lease: LeaseId) -> Vec<Bytes> {
    match run(store, vec![Op::Attached { lease }]).await.results.pop() {
        Some(OpResult::Attached { keys }) => keys,
        other => panic!("{other:?}"),
    }
}

async fn grant(store: &Store, lease: LeaseId) {
    run(store, vec![Op::Put { key: lease.key(), value: bytes("60") }]).await;
}

pub(super) async fn leases(store: Store) {
    let before = store.revision();
    let refused = run(&store, vec![put_op("/x", "1"), write_op("/a", Some("1"), Some(LEASE))]).await;
    assert_eq!(refused.results, [OpResult::Refused(Refusal::LeaseNotFound { lease: LEASE })]);
    let refused = run(&store, vec![write_op("/a", None, Some(LeaseId::NONE))]).await;
    assert_eq!(refused.results, [OpResult::Refused(Refusal::KeyNotFound { key: bytes("/a") })]);
    assert_eq!(store.revision(), before);

    grant(&store, LEASE).await;
    for key in ["/c", "/a", "/b", "/d"] {
        run(&store, vec![write_op(key, Some("1"), Some(LEASE))]).await;
    }
    assert_eq!(get(&store, "/a").await.unwrap().lease, LEASE);
    assert_eq!(attached(&store, LEASE).await, ["/a", "/b", "/c", "/d"]);
    put(&store, "/b", "without").await;
    delete(&store, "/c").await;
    run(&store, vec![write_op("/d", Some("2"), None)]).await;
    run(&store, vec![write_op("/a", None, Some(LEASE))]).await;
    let kv = get(&store, "/d").await.unwrap();
    assert_eq!((&*kv.value, kv.version, kv.lease), (&b"2"[..], 2, LEASE), "the lease was kept");
    let kv = get(&store, "/a").await.unwrap();
    assert_eq!((&*kv.value, kv.version), (&b"1"[..], 2), "the value was kept");
    assert_eq!(attached(&store, LEASE).await, ["/a", "/d"]);

    let from = after(store.revision());
    let ended = run(&store, vec![Op::Revoke { lease: LEASE }]).await;
    let OpResult::Deleted { previous } = &ended.results[0] else { panic!("{ended:?}") };
    let names: Vec<_> = previous.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!(names, [bytes("/a"), bytes("/d"), LEASE.key()]);
    let mut watching = Watching::begin(&store, watch_request("/", from)).await;
    assert_eq!(watching.events_to(ended.revision).await.len(), 3, "all at one revision");
    assert_eq!(attached(&store, LEASE).await, Vec::<Bytes>::new());
    assert_eq!(texts(&list(&store, "/").await.kvs), pairs(&[("/b", "without")]));
    let again = run(&store, vec![Op::Revoke { lease: LEASE }]).await;
    assert_eq!(again.results, [OpResult::Deleted { previous: vec![] }]);
}

pub(super) async fn leases_in_snapshots(store: Store) {
    grant(&store, LEASE).await;
    run(&store, vec![write_op("/a", Some("1"), Some(LEASE)), put_op("/b", "1")]).await;
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    run(&store, vec![Op::Revoke { lease: LEASE }, put_op("/c", "later")]).await;
    store.restore(&mut &*snapshot).await.unwrap();
    assert_eq!(get(&store, "/a").await.unwrap().lease, LEASE);
    assert_eq!(attached(&store, LEASE).await, ["/a"]);
    run(&store, vec![Op::Revoke { lease: LEASE }]).await;
    assert_eq!(texts(&list(&store, "/").await.kvs), pairs(&[("/b", "1")]));
}
