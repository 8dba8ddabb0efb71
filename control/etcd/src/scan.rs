//! All keys as of one revision, a page at a time.

use bytes::Bytes;
use sampan_store::{KeyValue, RangeRequest, Revision, Storage, StorageError};

/// How many keys are held at a time.
const PAGE: usize = 1000;

/// Goes over every key in order, without holding them all.
pub(crate) struct Scan<'a> {
    storage: &'a dyn Storage,
    at: Revision,
    next: Option<Bytes>,
}

impl<'a> Scan<'a> {
    /// Everything as of `at`.
    pub(crate) fn new(storage: &'a dyn Storage, at: Revision) -> Self {
        Self { storage, at, next: Some(Bytes::new()) }
    }

    /// The next keys; `None` after the last.
    pub(crate) async fn page(&mut self) -> Result<Option<Vec<KeyValue>>, StorageError> {
        let Some(start) = self.next.take() else { return Ok(None) };
        let page = RangeRequest {
            start,
            end: Some(Bytes::new()),
            revision: Some(self.at),
            limit: PAGE,
            keys_only: false,
            count_only: false,
        };
        let found = self.storage.range(page).await?;
        if let Some(last) = found.kvs.last().filter(|_| found.more) {
            let mut next = last.key.to_vec();
            next.push(0);
            self.next = Some(next.into());
        }
        Ok(Some(found.kvs))
    }
}
