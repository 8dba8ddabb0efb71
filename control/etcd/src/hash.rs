//! A number that two members with the same keys agree on.

use bytes::Bytes;
use sampan_store::{RangeRequest, Revision, Storage, StorageError};
use sha2::{Digest, Sha256};

/// How many keys are held at a time.
const PAGE: usize = 1000;

/// Hashes every key with its value and counters, as of a revision.
pub(crate) async fn hash(storage: &dyn Storage, at: Revision) -> Result<u32, StorageError> {
    let mut hasher = Sha256::new();
    let mut start = Bytes::new();
    loop {
        let page = RangeRequest {
            start,
            end: Some(Bytes::new()),
            revision: Some(at),
            limit: PAGE,
            keys_only: false,
            count_only: false,
        };
        let found = storage.range(page).await?;
        for kv in &found.kvs {
            for part in [&kv.key, &kv.value] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            for number in [kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease.0.cast_unsigned()] {
                hasher.update(number.to_be_bytes());
            }
        }
        match found.kvs.last() {
            Some(last) if found.more => {
                let mut next = last.key.to_vec();
                next.push(0);
                start = next.into();
            }
            _ => break,
        }
    }
    let digest = hasher.finalize();
    Ok(digest.iter().take(4).fold(0, |hash, byte| (hash << 8) | u32::from(*byte)))
}
