//! Snapshots as etcd has them: a bbolt file and its SHA-256, which etcdctl saves, etcd's tools
//! restore, and `sampan snapshot restore` reads.
//!
//! There is one version of each key in it, the newest as of one revision; history before that
//! revision counts as compacted.

mod export;
mod import;
#[cfg(test)]
mod tests;

pub(crate) use export::Export;
pub use import::{EtcdSnapshot, EtcdSnapshotError};

/// Buckets that etcd expects, in the order of their names.
const BUCKETS: [&str; 9] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "meta"];

/// How far etcd has read its log: it counts from here.
const CONSISTENT_INDEX: &str = "consistent_index";
/// Up to which revision history is gone.
const FINISHED_COMPACTION: &str = "finishedCompactRev";
/// Up to which revision history is being forgotten.
const SCHEDULED_COMPACTION: &str = "scheduledCompactRev";

/// The length of a digest at a file's end.
const DIGEST: usize = 32;
/// etcd's tools tell by the length that a digest follows: a file comes in whole blocks of this size.
const BLOCK: u64 = 512;

/// A revision, and the place among its changes, as etcd has them for keys.
fn position(revision: u64, sub: u64) -> [u8; 17] {
    let mut out = [b'_'; 17];
    let (main, rest) = out.split_at_mut(8);
    main.copy_from_slice(&revision.to_be_bytes());
    if let Some(place) = rest.get_mut(1..) {
        place.copy_from_slice(&sub.to_be_bytes());
    }
    out
}

/// A lease as etcd keeps it.
#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}
