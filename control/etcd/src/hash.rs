//! A number that two members with the same keys agree on.

use sampan_store::{Revision, Storage, StorageError};
use sha2::{Digest, Sha256};

use crate::scan::Scan;

/// Hashes every key with its value and counters, as of a revision.
pub(crate) async fn hash(storage: &dyn Storage, at: Revision) -> Result<u32, StorageError> {
    let mut hasher = Sha256::new();
    let mut scan = Scan::new(storage, at);
    while let Some(page) = scan.page().await? {
        for kv in &page {
            for part in [&kv.key, &kv.value] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            for number in [kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease.0.cast_unsigned()] {
                hasher.update(number.to_be_bytes());
            }
        }
    }
    let digest = hasher.finalize();
    Ok(digest.iter().take(4).fold(0, |hash, byte| (hash << 8) | u32::from(*byte)))
}
