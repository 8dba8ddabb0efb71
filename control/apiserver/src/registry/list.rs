//! Lists, from the cache or from the store as of an older revision.

use std::sync::Arc;

use sampan_api::status::Status;
use sampan_store::{RangeRequest, Revision, StorageError};

use super::{Registry, storage_status};
use crate::cacher::{Listing, Object, Page, Selection};

/// How many objects are read from the store at a time where a selector may drop some.
const BATCH: usize = 500;

/// How new a list must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Whatever is at hand.
    Any,
    /// Every acknowledged write is in it.
    Newest,
    /// At least this revision.
    NotOlderThan(u64),
    /// This very revision.
    Exact(u64),
}

/// What to list.
#[derive(Clone, Debug)]
pub(crate) struct ListRequest {
    /// Which objects.
    pub(crate) selection: Selection,
    /// How new.
    pub(crate) consistency: Consistency,
    /// At most so many; 0 is all.
    pub(crate) limit: usize,
    /// Only keys from this one on.
    pub(crate) from: Option<String>,
}

impl Registry {
    /// Lists objects.
    pub(crate) async fn list(&self, request: &ListRequest) -> Result<Listing, Status> {
        match request.consistency {
            Consistency::Any => {}
            Consistency::Newest => self.caches.wait_current().await?,
            Consistency::NotOlderThan(revision) => self.caches.wait_for(revision).await?,
            Consistency::Exact(revision) => {
                self.caches.wait_for(revision).await?;
                return self.list_at(request, revision).await;
            }
        }
        let page = Page { limit: request.limit, from: request.from.as_deref() };
        Ok(self.cacher.list(&request.selection, page))
    }

    async fn list_at(&self, request: &ListRequest, revision: u64) -> Result<Listing, Status> {
        let filtered = request.selection.is_filtered();
        let within = format!("{}{}", self.prefix, request.selection.key_prefix());
        let mut start = match &request.from {
            Some(from) => format!("{}{from}", self.prefix),
            None => within.clone(),
        };
        let mut listing = Listing { revision, ..Listing::default() };
        loop {
            // One more than wanted tells where the next page begins.
            let batch = if request.limit == 0 || filtered { BATCH } else { request.limit + 1 };
            let range = RangeRequest::prefix(within.clone()).at(Revision(revision)).limit(batch);
            let range = RangeRequest { start: start.clone().into(), ..range };
            let found = self.storage.range(range).await.map_err(|e| self.list_status(&e, request))?;
            for (index, kv) in found.kvs.iter().enumerate() {
                let Some(key) = std::str::from_utf8(&kv.key).ok().and_then(|k| k.strip_prefix(&self.prefix))
                else {
                    continue;
                };
                let object = Object::from_stored(&*self.strategy, key, &kv.value, kv.mod_revision.0)
                    .map_err(|_| Status::internal(format!("the stored {key:?} cannot be read")))?;
                if !request.selection.matches(&*self.strategy, &object) {
                    continue;
                }
                if request.limit > 0 && listing.objects.len() == request.limit {
                    listing.next = Some(key.to_owned());
                    let seen = u64::try_from(index).unwrap_or_default();
                    listing.remaining = (!filtered).then(|| found.count.saturating_sub(seen));
                    return Ok(listing);
                }
                listing.objects.push(Arc::new(object));
            }
            match found.kvs.last() {
                // The next key after this one.
                Some(last) if found.more => start = format!("{}\0", String::from_utf8_lossy(&last.key)),
                _ => return Ok(listing),
            }
        }
    }

    fn list_status(&self, error: &StorageError, request: &ListRequest) -> Status {
        match error {
            StorageError::Compacted { .. } if request.from.is_some() => Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a \
                 new list without the continue parameter.",
            ),
            other => storage_status(other),
        }
    }
}
