//! Checks of transactions.

use std::sync::Arc;

use super::*;
use crate::types::{Compare, OpResult};

pub(super) async fn life_of_a_key(store: Store) {
    let before = store.revision();
    assert!(get(&store, "/a").await.is_none());
    let born = put(&store, "/a", "1").await;
    assert_eq!(born, after(before));
    let second = put(&store, "/a", "2").await;
    assert_eq!(second, after(born));
    let kv = get(&store, "/a").await.unwrap();
    let expected = KeyValue {
        key: bytes("/a"),
        value: bytes("2"),
        create_revision: born,
        mod_revision: second,
        version: 2,
        lease: LeaseId::NONE,
    };
    assert_eq!(kv, expected);
    let died = delete(&store, "/a").await;
    assert_eq!(died, after(second));
    assert!(get(&store, "/a").await.is_none());
    assert_eq!(store.revision(), died);
    let reborn = put(&store, "/a", "3").await;
    let kv = get(&store, "/a").await.unwrap();
    assert_eq!((kv.create_revision, kv.version), (reborn, 1), "a new life");
}

pub(super) async fn all_or_nothing(store: Store) {
    put(&store, "/gone", "x").await;
    let before = store.revision();
    let response = run(&store, vec![put_op("/a", "1"), put_op("/b", "2"), delete_op("/gone")]).await;
    assert_eq!(response.revision, after(before), "one revision for all");
    let all = list(&store, "/").await;
    assert_eq!(texts(&all.kvs), pairs(&[("/a", "1"), ("/b", "2")]));
    assert!(all.kvs.iter().all(|kv| kv.mod_revision == response.revision));
    let refused = store.txn(ops(vec![put_op("/c", "1"), put_op("/c", "2")])).await;
    assert!(refused.is_err());
    assert_eq!(list(&store, "/").await.kvs, all.kvs, "a refused transaction changes nothing");
    let refused =
        store.txn(ops(vec![Op::Delete { key: bytes("/"), end: Some(bytes("0")) }, put_op("/c", "1")]));
    assert!(refused.await.is_err());
    assert_eq!(list(&store, "/").await.kvs, all.kvs);
    let wiped = run(&store, vec![Op::Delete { key: bytes("/"), end: Some(bytes("0")) }]).await;
    assert_eq!(wiped.revision, after(response.revision));
    assert_eq!(list(&store, "/").await.count, 0);
}

pub(super) async fn unchanged(store: Store) {
    let revision = put(&store, "/a", "1").await;
    let nothing = run(&store, vec![]).await;
    assert_eq!((nothing.revision, nothing.succeeded), (revision, true));
    assert_eq!(run(&store, vec![delete_op("/none")]).await.revision, revision);
    assert_eq!(run(&store, vec![Op::Get { key: bytes("/a") }]).await.revision, revision);
    let failing = Txn {
        compares: vec![Compare::Version { key: bytes("/a"), version: 9 }],
        success: vec![put_op("/a", "2")],
        failure: vec![Op::Get { key: bytes("/a") }],
    };
    let response = store.txn(failing).await.unwrap();
    assert_eq!((response.revision, response.succeeded), (revision, false));
    let [OpResult::Got { kv: Some(kv) }] = &response.results[..] else { panic!("{response:?}") };
    assert_eq!(kv.value, bytes("1"));
    assert_eq!(store.revision(), revision);
    let same = put(&store, "/a", "1").await;
    assert_eq!(same, after(revision), "a write of the same value is a write");
}

pub(super) async fn conditions(store: Store) {
    let created = put(&store, "/a", "1").await;
    let changed = put(&store, "/a", "2").await;
    let a = || bytes("/a");
    let none = || bytes("/none");
    let table = [
        (vec![], true),
        (vec![Compare::ModRevision { key: a(), revision: changed }], true),
        (vec![Compare::ModRevision { key: a(), revision: created }], false),
        (vec![Compare::ModRevision { key: a(), revision: Revision(0) }], false),
        (vec![Compare::ModRevision { key: none(), revision: Revision(0) }], true),
        (vec![Compare::CreateRevision { key: a(), revision: created }], true),
        (vec![Compare::CreateRevision { key: a(), revision: Revision(0) }], false),
        (vec![Compare::Version { key: a(), version: 2 }], true),
        (vec![Compare::Version { key: none(), version: 0 }], true),
        (vec![Compare::Value { key: a(), value: bytes("2") }], true),
        (vec![Compare::Value { key: a(), value: bytes("1") }], false),
        (vec![Compare::Value { key: none(), value: bytes("") }], false),
        (
            vec![
                Compare::ModRevision { key: a(), revision: changed },
                Compare::ModRevision { key: none(), revision: changed },
            ],
            false,
        ),
    ];
    for (at, (compares, expected)) in table.into_iter().enumerate() {
        let mark = format!("/mark/{at}");
        let txn = Txn {
            compares: compares.clone(),
            success: vec![put_op(&mark, "success")],
            failure: vec![put_op(&mark, "failure")],
        };
        let response = store.txn(txn).await.unwrap();
        assert_eq!(response.succeeded, expected, "{compares:?}");
        let mark = get(&store, &mark).await.unwrap();
        assert_eq!(mark.value, bytes(if expected { "success" } else { "failure" }), "{compares:?}");
    }
}

pub(super) async fn step_results(store: Store) {
    let born = run(&store, vec![put_op("/a", "1"), put_op("/b", "1")]).await.revision;
    let steps = vec![
        put_op("/a", "2"),
        Op::Get { key: bytes("/a") },
        Op::Delete { key: bytes("/b"), end: Some(bytes("/c")) },
        Op::Get { key: bytes("/b") },
        put_op("/c", "1"),
    ];
    let response = run(&store, steps).await;
    let old = |key: &str| KeyValue {
        key: bytes(key),
        value: bytes("1"),
        create_revision: born,
        mod_revision: born,
        version: 1,
        lease: LeaseId::NONE,
    };
    let new = KeyValue { value: bytes("2"), mod_revision: response.revision, version: 2, ..old("/a") };
    let expected = vec![
        OpResult::Put { previous: Some(old("/a")) },
        OpResult::Got { kv: Some(new) },
        OpResult::Deleted { previous: vec![old("/b")] },
        OpResult::Got { kv: None },
        OpResult::Put { previous: None },
    ];
    assert_eq!(response.results, expected);
}

pub(super) async fn refusals(store: Store) {
    let before = store.revision();
    let large = Txn {
        success: vec![Op::Put { key: bytes("/a"), value: Bytes::from(vec![0; crate::MAX_TXN_BYTES]) }],
        ..Txn::default()
    };
    let refusal = store.txn(large).await.unwrap_err();
    assert!(matches!(refusal, StorageError::TooLarge { .. }), "{refusal:?}");
    let refusal = store.txn(ops(vec![put_op("", "1")])).await.unwrap_err();
    assert!(matches!(refusal, StorageError::Invalid { .. }), "{refusal:?}");
    let refusal = store.txn(ops(vec![put_op("/a", "1"), delete_op("/a")])).await.unwrap_err();
    assert!(matches!(refusal, StorageError::Invalid { .. }), "{refusal:?}");
    assert_eq!(store.revision(), before);
}

pub(super) async fn concurrent_swaps(store: Store) {
    const WRITERS: usize = 16;
    const EACH: usize = 20;
    put(&store, "/counter", "0").await;
    let tasks: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(count_up(Arc::clone(&store), EACH))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counter = get(&store, "/counter").await.unwrap();
    assert_eq!(counter.value, bytes((WRITERS * EACH).to_string()));
    assert_eq!(counter.version as usize, WRITERS * EACH + 1);
}

async fn count_up(store: Store, times: usize) {
    let mut left = times;
    while left > 0 {
        let counter = get(&store, "/counter").await.unwrap();
        let value: usize = std::str::from_utf8(&counter.value).unwrap().parse().unwrap();
        let txn = Txn {
            compares: vec![Compare::ModRevision { key: counter.key, revision: counter.mod_revision }],
            success: vec![put_op("/counter", &(value + 1).to_string())],
            failure: vec![],
        };
        if store.txn(txn).await.unwrap().succeeded {
            left -= 1;
        }
    }
}
