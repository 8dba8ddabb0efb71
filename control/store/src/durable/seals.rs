//! New keys to seal values with, and values sealed anew.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::error::OpenError;
use super::{Machine, keyfile};
use crate::codec::sealing_key;
use crate::machine::Core;
use crate::read::Cut;
use crate::span::Span;
use crate::storage::{Storage, StorageError};
use crate::types::{Compare, Op, RangeRequest, Revision, Txn, prefix_end};

/// How many values one round of sealing anew looks at.
const ROUND: usize = 256;

impl Machine {
    /// Adds a key, which new values are sealed with from now on; returns its number. Values
    /// sealed before stay readable, see [`Machine::reseal`].
    pub async fn rotate_key(&self) -> Result<u32, StorageError> {
        let shared = Arc::clone(&self.shared);
        self.shared
            .config
            .background
            .run(move || {
                let Some(keys) = shared.core.codec.keys() else {
                    return Err(StorageError::Invalid { why: "the store seals no values".into() });
                };
                // Held all along: two rotations must not make the same number.
                let mut ring = keys.write();
                let next = ring.with_new_key()?;
                // The key is safe on disk before the first value is sealed with it.
                keyfile::save(&shared.config.keys, &next)?;
                keyfile::prove(&shared.dir, &next).map_err(|error| match error {
                    OpenError::NoSpace { .. } => StorageError::NoSpace,
                    error => StorageError::Unavailable { why: error.to_string() },
                })?;
                *ring = next;
                Ok(ring.newest())
            })
            .await
    }

    /// Writes every value under the sealed prefixes that is not sealed with the newest key again,
    /// so that it is; returns how many. `store` is the store over this machine. Each write is a new revision with the same content.
    /// History keeps the old form until it is compacted.
    pub async fn reseal(&self, store: &dyn Storage) -> Result<u64, StorageError> {
        let codec = &self.shared.core.codec;
        let Some(newest) = codec.keys().map(|keys| keys.read().newest()) else {
            return Err(StorageError::Invalid { why: "the store seals no values".into() });
        };
        let mut written = 0;
        for prefix in codec.sealed_prefixes() {
            let mut next = Some(prefix.clone());
            while let Some(start) = next {
                let core = Arc::clone(&self.shared.core);
                let end = prefix_end(prefix);
                let background = self.shared.config.background;
                let stale = background.run(move || stale_keys(&core, &start, &end, newest)).await?;
                for (key, revision) in stale.keys {
                    written += u64::from(seal_again(store, key, revision).await?);
                }
                next = stale.next;
            }
        }
        Ok(written)
    }
}

/// Writes a value as it is. A key that changed in the meantime was sealed anew by that.
async fn seal_again(store: &dyn Storage, key: Bytes, revision: Revision) -> Result<bool, StorageError> {
    let found = store.range(RangeRequest::key(key.clone())).await?.kvs;
    let Some(kv) = found.into_iter().find(|kv| kv.mod_revision == revision) else { return Ok(false) };
    let txn = Txn {
        compares: vec![Compare::ModRevision { key: key.clone(), revision }],
        success: vec![Op::Put { key, value: kv.value }],
        failure: Vec::new(),
    };
    Ok(store.txn(txn).await?.succeeded)
}

/// Keys whose values are to be sealed anew, and where to look for more.
#[derive(Default)]
struct Stale {
    keys: Vec<(Bytes, Revision)>,
    next: Option<Bytes>,
}

/// The keys from `start` on whose values are not sealed with key `newest`.
fn stale_keys(core: &Core, start: &Bytes, end: &Bytes, newest: u32) -> Result<Stale, StorageError> {
    let span = Span::new(start, Some(end));
    let cut = Cut::take(core, &span, None)?;
    let (mut stale, mut seen) = (Stale::default(), 0);
    cut.visit(&span, |found| {
        let record = cut.load(found)?;
        if seen == ROUND {
            stale.next = Some(record.key.clone());
            return Ok(ControlFlow::Break(()));
        }
        seen += 1;
        if sealing_key(&record.value) != Some(newest) {
            stale.keys.push((record.key.clone(), Revision(record.pos.rev)));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(stale)
}
