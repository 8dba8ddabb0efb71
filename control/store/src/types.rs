//! The vocabulary of the store: revisions, key-values, requests and answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A point in the store's history: it grows with every transaction that changes something.
/// Revision 0 is the empty store; revisions never go back, not even across a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value as of some revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty where only keys were asked for.
    pub value: Bytes,
    /// The revision at which the key came to be (after its last deletion).
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
    /// How often the key was written since it came to be; 1 for a new key.
    pub version: u64,
}

/// A read of the keys in `start..end`, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// First key, included.
    pub start: Bytes,
    /// Last key, excluded; an empty key is the end of the key space. `None` reads the single key `start`.
    pub end: Option<Bytes>,
    /// The revision to read at; `None` is the newest.
    pub revision: Option<Revision>,
    /// At most so many keys; 0 is no limit.
    pub limit: usize,
    /// Leave the values empty.
    pub keys_only: bool,
}

impl RangeRequest {
    /// The single key `key` at the newest revision.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None, revision: None, limit: 0, keys_only: false }
    }

    /// All keys that begin with `prefix`, at the newest revision.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = Some(prefix_end(&start));
        Self { start, end, revision: None, limit: 0, keys_only: false }
    }

    /// The same range read at `revision`.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The same range, cut after `limit` keys.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// The first key after all keys that begin with `prefix`; for a prefix of only `0xff`
/// bytes (or none) it is the end of the key space, an empty key, as etcd has it.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::new()
}

/// The answer to a [`RangeRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's revision that the answer is of (the one asked for, or the newest).
    pub revision: Revision,
    /// The keys found, in byte order.
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` cut the answer.
    pub more: bool,
    /// How many keys the whole range holds, `limit` aside.
    pub count: u64,
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// The key was last changed at exactly this revision; revision 0 means that it does not exist.
    ModRevision {
        /// The key.
        key: Bytes,
        /// Its last change, or 0.
        revision: Revision,
    },
    /// The key came to be at exactly this revision; revision 0 means that it does not exist.
    CreateRevision {
        /// The key.
        key: Bytes,
        /// Its creation, or 0.
        revision: Revision,
    },
    /// The key was written exactly so often; 0 means that it does not exist.
    Version {
        /// The key.
        key: Bytes,
        /// How often.
        version: u64,
    },
    /// The key holds exactly this value.
    Value {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Deletes `key`, or the range `key..end`; an empty `end` is the end of the key space.
    Delete {
        /// The key, or the first of the range.
        key: Bytes,
        /// The end of the range, excluded.
        end: Option<Bytes>,
    },
    /// Reads one key as of this step.
    Get {
        /// The key.
        key: Bytes,
    },
}

/// `if all compares hold then success else failure`, atomically. All changes of one
/// transaction share one revision, so each branch may write a key only once (two deletions
/// may overlap: the second finds nothing).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// The conditions, all of which must hold.
    pub compares: Vec<Compare>,
    /// What to do where they hold.
    pub success: Vec<Op>,
    /// What to do where one does not.
    pub failure: Vec<Op>,
}

/// What one step of a transaction gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// The key was written; the state before, if it existed.
    Put {
        /// The state before.
        previous: Option<KeyValue>,
    },
    /// These keys were deleted.
    Deleted {
        /// Their last states, in key order.
        previous: Vec<KeyValue>,
    },
    /// The key as it was at this step.
    Got {
        /// The key, if it existed.
        kv: Option<KeyValue>,
    },
}

/// The answer to a [`Txn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResponse {
    /// The store's revision after the transaction.
    pub revision: Revision,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One result per step that ran.
    pub results: Vec<OpResult>,
}

/// A watch over the keys in `start..end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// First key, included.
    pub start: Bytes,
    /// Last key, excluded; an empty key is the end of the key space. `None` watches one key.
    pub end: Option<Bytes>,
    /// The first revision whose events are wanted (so a list at `r` is followed by a watch from `r + 1`).
    pub from: Revision,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was written; `previous` is its state before, where there was one and it is still known.
    Put {
        /// The key as it is now.
        kv: KeyValue,
        /// Its state before.
        previous: Option<KeyValue>,
    },
    /// The key was deleted at `revision`; `previous` is its last state, where it is still known.
    Delete {
        /// The key.
        key: Bytes,
        /// When it was deleted.
        revision: Revision,
        /// Its last state.
        previous: Option<KeyValue>,
    },
}

/// Events of one or more whole revisions, in order. An empty batch is a progress mark:
/// every event up to `revision` has been delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// Every event up to and including this revision has now been delivered.
    pub revision: Revision,
    /// The events.
    pub events: Vec<WatchEvent>,
}
