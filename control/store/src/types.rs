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

/// Names a lease: keys that are attached to it go when it does. 0 is no lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease.
    pub const NONE: Self = Self(0);
    /// What the keys begin with that say which leases exist, see [`LeaseId::key`].
    pub const PREFIX: &'static [u8] = b"/sampan/leases/";

    /// Whether it names no lease.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The key that exists as long as the lease does. A lease is granted by writing it; its value
    /// is the granter's own.
    pub fn key(self) -> Bytes {
        let mut key = Self::PREFIX.to_vec();
        key.extend_from_slice(format!("{:016x}", self.0).as_bytes());
        key.into()
    }

    /// The lease that a key of [`LeaseId::key`] is of.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(key.strip_prefix(Self::PREFIX)?).ok()?;
        let id = u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)?;
        Some(Self(id.cast_signed()))
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
    /// The lease that the key is attached to.
    pub lease: LeaseId,
}

/// A read of the keys in `start..end`, in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Only count the keys.
    pub count_only: bool,
}

impl RangeRequest {
    /// The single key `key` at the newest revision.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None, revision: None, limit: 0, keys_only: false, count_only: false }
    }

    /// All keys that begin with `prefix`, at the newest revision.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = Some(prefix_end(&start));
        Self { start, end, revision: None, limit: 0, keys_only: false, count_only: false }
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Every key of a range compares so. Where there is none, one that was never written is
    /// compared in its place: its numbers are 0, and it has no value, which never holds.
    Each {
        /// The key, or the first of the range.
        key: Bytes,
        /// The end of the range, excluded; an empty key is the end of the key space.
        end: Option<Bytes>,
        /// How the key must stand to the operand.
        relation: Relation,
        /// What is compared, and with what.
        operand: Operand,
    },
}

/// How two things stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// They are equal.
    Equal,
    /// The first is greater.
    Greater,
    /// The first is less.
    Less,
    /// They are not equal.
    NotEqual,
}

impl Relation {
    /// Whether it is so where the two things compare like this.
    pub fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Greater => ordering.is_gt(),
            Self::Less => ordering.is_lt(),
            Self::NotEqual => ordering.is_ne(),
        }
    }
}

/// What [`Compare::Each`] compares, and with what. Callers may ask for numbers that no key can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand {
    /// How often the key was written.
    Version(i64),
    /// The revision at which it came to be.
    CreateRevision(i64),
    /// The revision of its last change.
    ModRevision(i64),
    /// The value, in byte order.
    Value(Bytes),
    /// Its lease.
    Lease(i64),
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
    /// Writes a key, or parts of it. A part that is kept must be there: a key that does not
    /// exist is refused with [`Refusal::KeyNotFound`].
    Write {
        /// The key.
        key: Bytes,
        /// Its new value; `None` keeps the present one.
        value: Option<Bytes>,
        /// The lease that it is attached to from now on ([`LeaseId::NONE`]: none), which must
        /// exist ([`Refusal::LeaseNotFound`]); `None` keeps the present one.
        lease: Option<LeaseId>,
    },
    /// Reads a range: at the newest revision as of this step, at an older one as it was then.
    Range(RangeRequest),
    /// A transaction within the transaction. Its conditions are judged on the state before the
    /// outermost one.
    Txn(Box<Txn>),
    /// Ends a lease: deletes its key ([`LeaseId::key`]) and the durable keys that are attached to it.
    Revoke {
        /// The lease.
        lease: LeaseId,
    },
    /// Lists the keys that are attached to a lease, those that live in memory only included.
    Attached {
        /// The lease.
        lease: LeaseId,
    },
}

/// `if all compares hold then success else failure`, atomically. All changes of one
/// transaction share one revision, so each branch may write a key only once (two deletions
/// may overlap: the second finds nothing). What transactions within it write counts as the
/// branch's own, in order; only their two branches exclude each other.
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
    /// The range as it was at this step. Its revision is the one that was asked for; else the
    /// newest, with this transaction's own where a step before this one changed something.
    Range(RangeResponse),
    /// What the inner transaction did.
    Txn {
        /// Whether its compares held.
        succeeded: bool,
        /// One result per step of it that ran.
        results: Vec<OpResult>,
    },
    /// The keys that are attached to the lease, in order.
    Attached {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// The transaction was refused as a whole, as the state does not allow one of its steps:
    /// nothing changed, and this is its only result.
    Refused(Refusal),
}

/// Why the state does not allow a transaction. Only steps that say so are refused in this way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A key is to be attached to a lease that does not exist.
    LeaseNotFound {
        /// The lease.
        lease: LeaseId,
    },
    /// A key of which a part is to be kept does not exist.
    KeyNotFound {
        /// The key.
        key: Bytes,
    },
    /// A range is to be read at a revision that was compacted away.
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// A range is to be read at a revision that lies ahead.
    Future {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest revision there was before the transaction.
        current: Revision,
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
