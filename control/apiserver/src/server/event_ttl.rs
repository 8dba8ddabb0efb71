//! Events expire an hour after they were last seen (Kubernetes' `--event-ttl`). They live in
//! memory, so that this costs the disk nothing.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sampan_store::{Compare, KeyValue, Op, RangeRequest, Storage, StorageError, Txn};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

const PREFIX: &[u8] = b"/registry/core/events/";
const TTL: SignedDuration = SignedDuration::from_hours(1);
const PERIOD: Duration = Duration::from_secs(60);
/// Events read at a time.
const PAGE: usize = 500;

/// The times by which an event's age is told.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    metadata: Metadata,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    creation_timestamp: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    last_observed_time: Option<Timestamp>,
}

/// Removes old events until `shutdown`; of several servers, the leading one does.
pub(super) async fn run(
    storage: std::sync::Arc<dyn Storage>,
    leading: Option<tokio::sync::watch::Receiver<bool>>,
    shutdown: CancellationToken,
) {
    while tokio::time::timeout(PERIOD, shutdown.cancelled()).await.is_err() {
        if leading.as_ref().is_some_and(|leading| !*leading.borrow()) {
            continue;
        }
        if let Err(error) = sweep(&*storage, Timestamp::now()).await {
            tracing::debug!(%error, "old events stay for now");
        }
    }
}

/// Removes what has expired by `now`; says how many events that were.
async fn sweep(storage: &dyn Storage, now: Timestamp) -> Result<usize, StorageError> {
    let mut start = Bytes::from_static(PREFIX);
    let mut removed = 0;
    loop {
        let request = RangeRequest { start, ..RangeRequest::prefix(PREFIX) }.limit(PAGE);
        let page = storage.range(request).await?;
        let Some(last) = page.kvs.last() else { return Ok(removed) };
        // The key after the last one.
        start = [&last.key[..], b"\0"].concat().into();
        for kv in page.kvs.iter().filter(|kv| has_expired(&kv.value, now)) {
            removed += usize::from(storage.txn(removal(kv)).await?.succeeded);
        }
        if !page.more {
            return Ok(removed);
        }
    }
}

fn removal(kv: &KeyValue) -> Txn {
    Txn {
        // One that is seen again meanwhile stays.
        compares: vec![Compare::ModRevision { key: kv.key.clone(), revision: kv.mod_revision }],
        success: vec![Op::Delete { key: kv.key.clone(), end: None }],
        failure: Vec::new(),
    }
}

fn has_expired(event: &[u8], now: Timestamp) -> bool {
    let Ok(times) = serde_json::from_slice::<Times>(event) else { return true };
    let seen = [
        times.metadata.creation_timestamp,
        times.last_timestamp,
        times.event_time,
        times.series.and_then(|series| series.last_observed_time),
    ];
    seen.into_iter().flatten().max().is_none_or(|last| now.duration_since(last) > TTL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_store::MemoryStore;
    use serde_json::{Value, json};

    async fn put(storage: &MemoryStore, name: &str, event: &Value) {
        let key = Bytes::from([PREFIX, b"default/", name.as_bytes()].concat());
        let value = Bytes::from(event.to_string());
        let txn = Txn { success: vec![Op::Put { key, value }], ..Txn::default() };
        storage.txn(txn).await.unwrap();
    }

    #[tokio::test]
    async fn events_go_an_hour_after_they_were_last_seen() {
        let storage = MemoryStore::new();
        let created = json!({"creationTimestamp": "2026-01-01T00:00:00Z"});
        put(&storage, "old", &json!({"metadata": created})).await;
        put(&storage, "seen", &json!({"metadata": created, "lastTimestamp": "2026-01-01T00:30:00Z"})).await;
        let series = json!({"count": 2, "lastObservedTime": "2026-01-01T00:45:00.000000Z"});
        put(&storage, "series", &json!({"metadata": created, "series": series})).await;
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(sweep(&storage, at("2026-01-01T00:59:00Z")).await.unwrap(), 0);
        assert_eq!(sweep(&storage, at("2026-01-01T01:01:00Z")).await.unwrap(), 1);
        assert_eq!(sweep(&storage, at("2026-01-01T01:31:00Z")).await.unwrap(), 1);
        assert_eq!(sweep(&storage, at("2026-01-01T02:00:00Z")).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_sweep_goes_over_all_pages() {
        let storage = MemoryStore::new();
        for number in 0..(PAGE + 3) {
            put(&storage, &format!("e{number}"), &json!({"metadata": {}})).await;
        }
        assert_eq!(sweep(&storage, Timestamp::UNIX_EPOCH).await.unwrap(), PAGE + 3);
    }
}
