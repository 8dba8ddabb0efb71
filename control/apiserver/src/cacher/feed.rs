//! The one watch that feeds all caches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sampan_store::{RangeRequest, Revision, StorageError, WatchBatch, WatchEvent, WatchRequest, WatchStream};
use tokio_util::sync::CancellationToken;

use super::object::Object;
use super::state::{Cacher, Change};
use super::{Caches, ROOT};

/// How long to wait before the store is asked again after it failed.
const RETRY: Duration = Duration::from_millis(500);

/// After so many events those who watch get a turn, so that a burst does not overflow their queues.
const BURST: usize = 128;

/// Loaded caches, and the events that follow.
pub(super) struct Feed {
    caches: Arc<Caches>,
    events: WatchStream,
}

impl Feed {
    /// Loads every cache at one revision and opens the watch behind it.
    pub(super) async fn open(caches: Arc<Caches>) -> Result<Self, StorageError> {
        let events = open(&caches).await?;
        Ok(Self { caches, events })
    }

    /// Applies events until `shutdown`; when the watch breaks, everything is loaded anew.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut burst = 0;
        loop {
            let next = tokio::select! {
                next = self.events.next() => next,
                () = shutdown.cancelled() => return,
            };
            match next {
                Some(Ok(batch)) => {
                    burst += batch.events.len();
                    apply(&self.caches, batch);
                    if burst >= BURST {
                        burst = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the store's watch broke; loading anew"
                    );
                    self.reopen(&shutdown).await;
                }
                None => self.reopen(&shutdown).await,
            }
        }
    }

    async fn reopen(&mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            match open(&self.caches).await {
                Ok(events) => {
                    self.events = events;
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the store cannot be read");
                    let _ = tokio::time::timeout(RETRY, shutdown.cancelled()).await;
                }
            }
        }
    }
}

async fn open(caches: &Caches) -> Result<WatchStream, StorageError> {
    loop {
        let revision = caches.storage.revision();
        match load(caches, revision).await {
            Ok(()) => {}
            // Compacted while we read: there is a newer revision to read.
            Err(StorageError::Compacted { .. }) => continue,
            Err(error) => return Err(error),
        }
        let RangeRequest { start, end, .. } = RangeRequest::prefix(ROOT);
        let request = WatchRequest { start, end, from: Revision(revision.0 + 1) };
        match caches.storage.watch(request).await {
            Ok(events) => {
                caches.progress.send_replace(revision.0);
                return Ok(events);
            }
            Err(StorageError::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn load(caches: &Caches, revision: Revision) -> Result<(), StorageError> {
    for ((group, plural), cacher) in &caches.by_place {
        let prefix = format!("{ROOT}{group}/{plural}/");
        let found = caches.storage.range(RangeRequest::prefix(prefix.clone()).at(revision)).await?;
        let objects = found.kvs.iter().filter_map(|kv| {
            let key = std::str::from_utf8(&kv.key).ok()?.strip_prefix(&prefix)?;
            object(cacher, key, &kv.value, kv.mod_revision.0)
        });
        cacher.reset(objects.collect(), revision.0);
    }
    Ok(())
}

/// An object from the store; one that cannot be read is reported and left out, so that it does not
/// take the whole server down.
fn object(cacher: &Cacher, key: &str, value: &[u8], revision: u64) -> Option<Object> {
    match Object::from_stored(cacher.strategy(), key, value, revision) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(
                key,
                error = &error as &dyn std::error::Error,
                "an object in the store is damaged"
            );
            None
        }
    }
}

fn apply(caches: &Caches, batch: WatchBatch) {
    let mut changes: HashMap<(&'static str, &'static str), Vec<Change>> = HashMap::new();
    for event in &batch.events {
        let (WatchEvent::Put { kv: sampan_store::KeyValue { key, .. }, .. } | WatchEvent::Delete { key, .. }) =
            event;
        let Some((place, cacher, key)) = locate(caches, key) else { continue };
        let change = match event {
            WatchEvent::Put { kv, .. } => object(cacher, key, &kv.value, kv.mod_revision.0).map(Change::Put),
            WatchEvent::Delete { revision, .. } => Some(Change::Delete(key.to_owned(), revision.0)),
        };
        changes.entry(place).or_default().extend(change);
    }
    for (place, changes) in changes {
        if let Some(cacher) = caches.by_place.get(&place) {
            cacher.apply(changes);
        }
    }
    caches.progress.send_if_modified(|progress| {
        let newer = batch.revision.0 > *progress;
        *progress = batch.revision.0.max(*progress);
        newer
    });
}

/// The cache that a key belongs to, and the key within it.
fn locate<'a>(
    caches: &'a Caches,
    key: &'a [u8],
) -> Option<((&'static str, &'static str), &'a Arc<Cacher>, &'a str)> {
    let path = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    let mut parts = path.splitn(3, '/');
    let (group, plural, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let cacher = caches.cacher((group, plural))?;
    Some((cacher.strategy().resource().storage?, cacher, rest))
}
