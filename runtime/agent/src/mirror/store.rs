//! The mirror as a store beneath an API server: read-only, in memory, with the revisions that the
//! servers gave.
//!
//! [`sampan_store::MemoryStore`] gives out revisions of its own; copies must keep theirs. There is
//! no history: reads of and watches from older revisions are refused, and whoever asked lists again.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use sampan_store::{
    KeyValue, LeaseId, RangeRequest, RangeResponse, Revision, Storage, StorageError, Txn, TxnResponse,
    WatchBatch, WatchEvent, WatchRequest, WatchStream,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

/// A watcher that is so many changes behind lists again.
const QUEUE: usize = 512;

/// The copies. Written by the mirror alone.
#[derive(Debug)]
pub(crate) struct CopyStore {
    state: RwLock<State>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<Bytes, KeyValue>,
    revision: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Batch(WatchBatch),
    /// Everything is different: watches end.
    Reset(Revision),
}

impl CopyStore {
    pub(crate) fn new() -> Self {
        Self { state: RwLock::default(), changes: broadcast::channel(QUEUE).0 }
    }

    /// A copy is now this. Without a revision of a server the change gets one of the store's own.
    pub(crate) fn put(&self, key: Bytes, value: Bytes, revision: Option<u64>) {
        let mut state = self.state.write();
        let own = revision.unwrap_or(state.revision + 1);
        let previous = state.rows.get(&key).cloned();
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: previous.as_ref().map_or(Revision(own), |previous| previous.create_revision),
            mod_revision: Revision(own),
            version: previous.as_ref().map_or(1, |previous| previous.version + 1),
            lease: LeaseId::NONE,
        };
        state.rows.insert(key, kv.clone());
        state.revision = state.revision.max(own);
        self.tell(&state, WatchEvent::Put { kv, previous });
    }

    /// A copy is gone.
    pub(crate) fn remove(&self, key: &Bytes) {
        let mut state = self.state.write();
        let Some(previous) = state.rows.remove(key) else { return };
        state.revision += 1;
        let revision = Revision(state.revision);
        self.tell(&state, WatchEvent::Delete { key: key.clone(), revision, previous: Some(previous) });
    }

    /// All copies are now these.
    pub(crate) fn reset(&self, rows: impl IntoIterator<Item = (Bytes, Bytes, u64)>) {
        let mut state = self.state.write();
        state.rows.clear();
        state.revision = 0;
        for (key, value, revision) in rows {
            state.revision = state.revision.max(revision);
            let at = Revision(revision);
            let kv = KeyValue {
                key: key.clone(),
                value,
                create_revision: at,
                mod_revision: at,
                version: 1,
                lease: LeaseId::NONE,
            };
            state.rows.insert(key, kv);
        }
        // Nobody may be watching.
        drop(self.changes.send(Change::Reset(Revision(state.revision))));
    }

    fn tell(&self, state: &State, event: WatchEvent) {
        let batch = WatchBatch { revision: Revision(state.revision), events: vec![event] };
        // Nobody may be watching.
        drop(self.changes.send(Change::Batch(batch)));
    }
}

fn refused() -> StorageError {
    StorageError::Unavailable { why: "copies are not written to".to_owned() }
}

fn within(key: &[u8], start: &[u8], end: Option<&Bytes>) -> bool {
    match end {
        None => key == start,
        Some(end) => key >= start && (end.is_empty() || key < end.as_ref()),
    }
}

#[async_trait]
impl Storage for CopyStore {
    fn revision(&self) -> Revision {
        Revision(self.state.read().revision)
    }

    /// A copy is as current as it can be: there is nobody to ask.
    async fn current_revision(&self) -> Result<Revision, StorageError> {
        Ok(self.revision())
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        let state = self.state.read();
        let current = Revision(state.revision);
        match request.revision {
            Some(requested) if requested > current => {
                return Err(StorageError::Future { requested, current });
            }
            Some(requested) if requested < current => {
                return Err(StorageError::Compacted { requested, oldest: current });
            }
            _ => {}
        }
        let from = (Bound::Included(request.start.as_ref()), Bound::Unbounded);
        let rows = state.rows.range::<[u8], _>(from).map(|(_, kv)| kv);
        let rows = rows.take_while(|kv| within(&kv.key, &request.start, request.end.as_ref()));
        let mut found = RangeResponse { revision: current, kvs: Vec::new(), more: false, count: 0 };
        for kv in rows {
            found.count += 1;
            if request.count_only {
                continue;
            }
            if request.limit > 0 && found.kvs.len() == request.limit {
                found.more = true;
                continue;
            }
            let value = if request.keys_only { Bytes::new() } else { kv.value.clone() };
            found.kvs.push(KeyValue { value, ..kv.clone() });
        }
        Ok(found)
    }

    async fn txn(&self, _txn: Txn) -> Result<TxnResponse, StorageError> {
        Err(refused())
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        let (receiver, current) = {
            let state = self.state.read();
            (self.changes.subscribe(), Revision(state.revision))
        };
        if request.from <= current {
            return Err(StorageError::Compacted { requested: request.from, oldest: current });
        }
        let mark = WatchBatch { revision: current, events: Vec::new() };
        let live = futures::stream::unfold(Some((receiver, request)), |state| async move {
            let (mut receiver, request) = state?;
            let batch = match receiver.recv().await {
                Ok(Change::Batch(batch)) => Ok(select(batch, &request)),
                Ok(Change::Reset(oldest)) => Err(StorageError::Compacted { requested: request.from, oldest }),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    Err(StorageError::Compacted { requested: request.from, oldest: request.from })
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            let next = batch.is_ok().then_some((receiver, request));
            Some((batch, next))
        });
        Ok(Box::pin(futures::stream::iter([Ok(mark)]).chain(live)))
    }

    async fn compact(&self, _revision: Revision) -> Result<(), StorageError> {
        Err(refused())
    }

    async fn snapshot(&self, _to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError> {
        Err(refused())
    }

    async fn restore(&self, _from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError> {
        Err(refused())
    }
}

/// What of a batch a watcher wants; an empty one still tells how far it is.
fn select(mut batch: WatchBatch, request: &WatchRequest) -> WatchBatch {
    batch.events.retain(|event| {
        let (WatchEvent::Put { kv: KeyValue { key, .. }, .. } | WatchEvent::Delete { key, .. }) = event;
        within(key, &request.start, request.end.as_ref())
    });
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(found: &RangeResponse) -> Vec<&[u8]> {
        found.kvs.iter().map(|kv| kv.key.as_ref()).collect()
    }

    fn filled() -> CopyStore {
        let store = CopyStore::new();
        store.put("/a/1".into(), "x".into(), Some(7));
        store.put("/a/2".into(), "y".into(), Some(5));
        store.put("/b/1".into(), "z".into(), Some(9));
        store
    }

    #[tokio::test]
    async fn copies_keep_their_revisions_and_there_is_no_history() {
        let store = filled();
        assert_eq!(store.revision(), Revision(9));
        let found = store.range(RangeRequest::prefix("/a/").limit(1)).await.unwrap();
        assert_eq!((keys(&found), found.more, found.count), (vec![&b"/a/1"[..]], true, 2));
        let found = store.range(RangeRequest::key("/a/2")).await.unwrap();
        assert_eq!(found.kvs[0].mod_revision, Revision(5));
        let old = store.range(RangeRequest::prefix("/").at(Revision(8))).await;
        assert!(matches!(old, Err(StorageError::Compacted { .. })));
        let future = store.range(RangeRequest::prefix("/").at(Revision(10))).await;
        assert!(matches!(future, Err(StorageError::Future { .. })));
        assert!(store.txn(Txn::default()).await.is_err());
    }

    #[tokio::test]
    async fn a_watch_sees_changes_and_ends_when_everything_is_different() {
        let store = filled();
        let RangeRequest { start, end, .. } = RangeRequest::prefix("/a/");
        let request = WatchRequest { start, end, from: Revision(10) };
        assert!(store.watch(WatchRequest { from: Revision(9), ..request.clone() }).await.is_err());
        let mut watch = store.watch(request).await.unwrap();
        assert!(watch.next().await.unwrap().unwrap().events.is_empty());
        store.put("/b/1".into(), "other".into(), None);
        store.put("/a/1".into(), "own".into(), None);
        store.remove(&"/a/2".into());
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(watch.next().await.unwrap().unwrap().events);
        }
        assert!(matches!(&seen[0], WatchEvent::Put { kv, .. } if kv.mod_revision == Revision(11)));
        assert!(matches!(&seen[1], WatchEvent::Delete { revision: Revision(12), .. }));
        store.reset([("/a/1".into(), "x".into(), 7)]);
        assert!(matches!(watch.next().await, Some(Err(StorageError::Compacted { .. }))));
        assert!(watch.next().await.is_none());
        assert_eq!(store.revision(), Revision(7));
    }
}
