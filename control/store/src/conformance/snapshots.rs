//! Checks of snapshots.

use super::*;

async fn take(store: &Store) -> (Revision, Vec<u8>) {
    let mut out = Vec::new();
    let revision = store.snapshot(&mut out).await.unwrap();
    (revision, out)
}

pub(super) async fn round_trip(store: Store) {
    let text = "long and repetitive ".repeat(100);
    for at in 0..500 {
        put(&store, &format!("/k/{at:03}"), &format!("{text}{at}")).await;
    }
    delete(&store, "/k/250").await;
    put(&store, "/k/001", "again").await;
    let before = list(&store, "/k/").await;
    let (revision, snapshot) = take(&store).await;
    assert_eq!(revision, store.revision());

    run(&store, vec![Op::Delete { key: bytes("/k/1"), end: Some(bytes("/k/4")) }]).await;
    let lost = put(&store, "/lost", "later").await;
    let mut watching = Watching::begin(&store, watch_request("/", after(lost))).await;
    let restored = store.restore(&mut &snapshot[..]).await.unwrap();
    assert!(restored > lost, "revisions never go back");
    assert_eq!(store.revision(), restored);
    let now = list(&store, "/").await;
    assert_eq!((now.revision, now.count), (restored, 500 - 1));
    assert_eq!(now.kvs, before.kvs, "with their revisions and versions");
    let end = watching.end().await;
    assert!(matches!(end, StorageError::Compacted { .. }), "{end:?}");
    let old = store.watch(watch_request("/", after(lost))).await.err().expect("a refusal");
    assert!(matches!(old, StorageError::Compacted { .. }), "{old:?}");
    let old = store.range(RangeRequest::key(bytes("/lost")).at(lost)).await.unwrap_err();
    assert!(matches!(old, StorageError::Compacted { .. }), "{old:?}");

    let mut watching = Watching::begin(&store, watch_request("/", after(restored))).await;
    let next = put(&store, "/k/001", "on").await;
    assert_eq!(next, after(restored));
    assert_eq!(shown(&watching.events_to(next).await), ["+/k/001=on (again)"]);
    assert_eq!(get(&store, "/k/001").await.unwrap().version, 3);
}

pub(super) async fn refusals(store: Store) {
    for at in 0..200 {
        put(&store, &format!("/k/{at}"), &format!("value {at}")).await;
    }
    let (_, good) = take(&store).await;
    put(&store, "/k/0", "newer").await;
    let before = list(&store, "/").await;

    let mut bad: Vec<(String, Vec<u8>)> = vec![
        ("nothing".into(), Vec::new()),
        ("something else".into(), b"PK\x03\x04 a zip archive, for all we know".to_vec()),
        ("less its last byte".into(), good[..good.len() - 1].to_vec()),
        ("less its second half".into(), good[..good.len() / 2].to_vec()),
    ];
    for at in (0..good.len()).step_by(good.len() / 40 + 1) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        bad.push((format!("with byte {at} flipped"), flipped));
    }
    let mut newer = good.clone();
    newer[16..18].copy_from_slice(&9_999_u16.to_le_bytes());
    bad.push(("of a newer format".into(), newer));
    for (name, snapshot) in bad {
        let refusal = store.restore(&mut &snapshot[..]).await.expect_err(&name);
        assert!(matches!(refusal, StorageError::Corrupt { .. }), "{name}: {refusal:?}");
        if name.contains("newer") {
            assert!(refusal.to_string().contains("format 9999"), "{refusal}");
        }
    }
    assert_eq!(list(&store, "/").await, before, "nothing changed");
    store.restore(&mut &good[..]).await.unwrap();
    assert_eq!(get(&store, "/k/0").await.unwrap().value, bytes("value 0"));
}
