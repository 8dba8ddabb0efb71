//! What every [`Storage`] must do, as checks that any implementation runs.
//!
//! [`run_all`] takes a maker of fresh stores; each check gets its own and panics where the store
//! breaks a promise. Nothing else in this crate calls this.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "checks fail loudly"
)]

mod reads;
mod snapshots;
mod transactions;
mod watches;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use crate::storage::{Storage, StorageError, WatchStream};
use crate::types::{
    KeyValue, LeaseId, Op, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchBatch, WatchEvent,
    WatchRequest, prefix_end,
};

/// A store under check.
pub type Store = Arc<dyn Storage>;
type Check = fn(Store) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Every check by name.
const CHECKS: &[(&str, Check)] = &[
    ("a key lives from its creation to its deletion", |s| Box::pin(writes::life_of_a_key(s))),
    ("a transaction happens whole or not at all", |s| Box::pin(writes::all_or_nothing(s))),
    ("what changes nothing uses up no revision", |s| Box::pin(writes::unchanged(s))),
    ("conditions decide which branch runs", |s| Box::pin(writes::conditions(s))),
    ("steps answer with what they met", |s| Box::pin(writes::step_results(s))),
    ("transactions that break a rule are refused", |s| Box::pin(writes::refusals(s))),
    ("concurrent compare-and-swap loses no update", |s| Box::pin(writes::concurrent_swaps(s))),
    ("ranges within a transaction see its steps", |s| Box::pin(transactions::ranges_within(s))),
    ("transactions stand within transactions", |s| Box::pin(transactions::inner_transactions(s))),
    ("conditions compare all there is", |s| Box::pin(transactions::relations(s))),
    ("a lease takes its keys with it", |s| Box::pin(transactions::leases(s))),
    ("leases are part of a snapshot", |s| Box::pin(transactions::leases_in_snapshots(s))),
    ("a range comes in key order within its bounds", |s| Box::pin(reads::ranges(s))),
    ("a limit cuts a range and says so", |s| Box::pin(reads::limits(s))),
    ("the past can be read", |s| Box::pin(reads::the_past(s))),
    ("compaction forgets the past and nothing else", |s| Box::pin(reads::compaction(s))),
    ("a watch delivers every change once and in order", |s| Box::pin(watches::live(s))),
    ("a watch from the past catches up", |s| Box::pin(watches::from_the_past(s))),
    ("a watch from the future waits for it", |s| Box::pin(watches::from_the_future(s))),
    ("a watch tells of its progress", |s| Box::pin(watches::progress(s))),
    ("a watch sees only its range", |s| Box::pin(watches::only_its_range(s))),
    ("a watch of forgotten history is refused", |s| Box::pin(watches::forgotten(s))),
    ("a watcher that falls behind is cut off and holds up nobody", |s| Box::pin(watches::slow(s))),
    ("watches under many writers miss nothing", |s| Box::pin(watches::under_load(s))),
    ("a restored snapshot is the state that was", |s| Box::pin(snapshots::round_trip(s))),
    ("a bad snapshot is refused and changes nothing", |s| Box::pin(snapshots::refusals(s))),
];

/// Runs every check, each on a store of its own.
pub async fn run_all<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Store>,
{
    run_where(|_| true, make).await;
}

/// Runs the checks whose names are selected, for stores that refuse something by design.
pub async fn run_where<F, Fut>(select: impl Fn(&str) -> bool, make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Store>,
{
    for (name, check) in CHECKS.iter().filter(|(name, _)| select(name)) {
        println!("checking that {name}");
        let check = check(make().await);
        tokio::time::timeout(PATIENCE, check).await.unwrap_or_else(|_| panic!("not in time: {name}"));
    }
}

/// How long a check may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(120);

fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

fn put_op(key: &str, value: &str) -> Op {
    Op::Put { key: bytes(key), value: bytes(value) }
}

fn delete_op(key: &str) -> Op {
    Op::Delete { key: bytes(key), end: None }
}

fn ops(ops: Vec<Op>) -> Txn {
    Txn { success: ops, ..Txn::default() }
}

async fn run(store: &Store, steps: Vec<Op>) -> TxnResponse {
    store.txn(ops(steps)).await.unwrap()
}

async fn put(store: &Store, key: &str, value: &str) -> Revision {
    run(store, vec![put_op(key, value)]).await.revision
}

async fn delete(store: &Store, key: &str) -> Revision {
    run(store, vec![delete_op(key)]).await.revision
}

async fn get(store: &Store, key: &str) -> Option<KeyValue> {
    store.range(RangeRequest::key(bytes(key))).await.unwrap().kvs.pop()
}

async fn list(store: &Store, prefix: &str) -> RangeResponse {
    store.range(RangeRequest::prefix(bytes(prefix))).await.unwrap()
}

/// Keys with their values, as text.
fn texts(kvs: &[KeyValue]) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn watch_request(prefix: &str, from: Revision) -> WatchRequest {
    WatchRequest { start: bytes(prefix), end: Some(prefix_end(prefix.as_bytes())), from }
}

fn after(revision: Revision) -> Revision {
    Revision(revision.0 + 1)
}

/// A watch that checks its stream's own rules while it is read.
struct Watching {
    stream: WatchStream,
    from: Revision,
    delivered: Revision,
}

impl Watching {
    async fn begin(store: &Store, request: WatchRequest) -> Self {
        let from = request.from;
        let stream = store.watch(request).await.unwrap();
        Self { stream, from, delivered: Revision(0) }
    }

    async fn batch(&mut self) -> Result<WatchBatch, StorageError> {
        let batch = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("a batch in time");
        let batch = batch.expect("the stream goes on")?;
        let mut last = self.delivered;
        for event in &batch.events {
            let revision = revision_of(event);
            assert!(revision >= self.from, "{event:?} is from before the watch");
            assert!(revision > self.delivered, "{event:?} again, after progress to {}", self.delivered);
            assert!(revision >= last && revision <= batch.revision, "{event:?} out of order");
            last = revision;
        }
        assert!(batch.revision >= self.delivered, "progress goes back");
        self.delivered = batch.revision;
        Ok(batch)
    }

    /// The events up to and with `revision`.
    async fn events_to(&mut self, revision: Revision) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        while self.delivered < revision {
            events.extend(self.batch().await.unwrap().events);
        }
        events
    }

    /// How the stream ends.
    async fn end(&mut self) -> StorageError {
        loop {
            if let Err(error) = self.batch().await {
                let more = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("an end in time");
                assert!(more.is_none(), "nothing follows an error");
                return error;
            }
        }
    }
}

fn revision_of(event: &WatchEvent) -> Revision {
    match event {
        WatchEvent::Put { kv, .. } => kv.mod_revision,
        WatchEvent::Delete { revision, .. } => *revision,
    }
}

/// An event as `+key=value`, with `(previous value)` where it is known, or `-key`.
fn show(event: &WatchEvent) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (what, previous) = match event {
        WatchEvent::Put { kv, previous } => (format!("+{}={}", text(&kv.key), text(&kv.value)), previous),
        WatchEvent::Delete { key, previous, .. } => (format!("-{}", text(key)), previous),
    };
    previous.as_ref().map_or_else(|| what.clone(), |previous| format!("{what} ({})", text(&previous.value)))
}

fn shown(events: &[WatchEvent]) -> Vec<String> {
    events.iter().map(show).collect()
}
