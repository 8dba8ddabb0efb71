//! One version of one key, as layers and tables keep it.
//!
//! Every change is an immutable [`Record`] at a [`Pos`]; the newest of each key is found by its
//! [`Head`], older ones by the chain of `prev`. Values are in the codec's envelope here
//! (compressed, perhaps sealed), never plain.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::storage::StorageError;
use crate::types::LeaseId;

/// Where a record stands: its revision, and its place among the changes of that revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Pos {
    pub(crate) rev: u64,
    pub(crate) sub: u32,
}

impl Pos {
    /// The position of no record; what the first record of a key has for its `prev`.
    pub(crate) const NONE: Self = Self { rev: 0, sub: 0 };

    /// The first position of a revision.
    pub(crate) fn first(rev: u64) -> Self {
        Self { rev, sub: 0 }
    }

    /// The last position of a revision.
    pub(crate) fn last(rev: u64) -> Self {
        Self { rev, sub: u32::MAX }
    }
}

/// What a record says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The key has a value.
    Put,
    /// The key was deleted.
    Tombstone,
    /// The key has a value, and goes with this lease.
    Leased(LeaseId),
}

impl Kind {
    /// What a key with a value is that goes with `lease`.
    pub(crate) fn live(lease: LeaseId) -> Self {
        if lease.is_none() { Self::Put } else { Self::Leased(lease) }
    }

    pub(crate) fn is_live(self) -> bool {
        self != Self::Tombstone
    }

    /// The lease of a key that has a value.
    pub(crate) fn lease(self) -> LeaseId {
        match self {
            Self::Leased(lease) => lease,
            Self::Put | Self::Tombstone => LeaseId::NONE,
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) pos: Pos,
    pub(crate) key: Bytes,
    /// In the codec's envelope; empty for a tombstone.
    pub(crate) value: Bytes,
    /// The revision at which the key came to be.
    pub(crate) create: u64,
    /// Grows by one with each change since then, the deletion included.
    pub(crate) version: u64,
    /// The change before, if there was one; it may be compacted away.
    pub(crate) prev: Pos,
    pub(crate) kind: Kind,
}

/// The newest record of a key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) pos: Pos,
    pub(crate) create: u64,
    pub(crate) version: u64,
    pub(crate) kind: Kind,
}

impl Head {
    pub(crate) fn is_live(&self) -> bool {
        self.kind.is_live()
    }

    pub(crate) fn to_bytes(self) -> Result<Vec<u8>, StorageError> {
        postcard::to_allocvec(&self).map_err(|error| damaged(self.pos, &error))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StorageError> {
        postcard::from_bytes(bytes)
            .map_err(|error| StorageError::Corrupt { what: format!("a key's entry is damaged: {error}") })
    }
}

/// The stored form of a record: its position is the table's key.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    create: u64,
    version: u64,
    prev: Pos,
    kind: Kind,
    #[serde(borrow)]
    key: &'a [u8],
    #[serde(borrow)]
    value: &'a [u8],
}

/// A record still in its table's bytes: enough to walk chains and to filter by key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordRef<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) prev: Pos,
    pub(crate) kind: Kind,
}

const CRC: usize = 4;

impl Record {
    pub(crate) fn is_live(&self) -> bool {
        self.kind.is_live()
    }

    pub(crate) fn head(&self) -> Head {
        Head { pos: self.pos, create: self.create, version: self.version, kind: self.kind }
    }

    /// About how much memory a layer spends on this record.
    pub(crate) fn weight(&self) -> usize {
        const OVERHEAD: usize = 160;
        self.key.len() + self.value.len() + OVERHEAD
    }

    /// Whether `older` is the state right before this one (chains may skip compacted records).
    pub(crate) fn follows(&self, older: &Self) -> bool {
        self.version > 1 && older.version + 1 == self.version && older.create == self.create
    }

    /// Checksum (bound to the position) and content.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, StorageError> {
        let stored = Stored {
            create: self.create,
            version: self.version,
            prev: self.prev,
            kind: self.kind,
            key: &self.key,
            value: &self.value,
        };
        let mut out = Vec::with_capacity(CRC + self.key.len() + self.value.len() + 32);
        out.extend_from_slice(&[0; CRC]);
        let mut out = postcard::to_io(&stored, out).map_err(|error| damaged(self.pos, &error))?;
        if let Some((head, content)) = out.split_at_mut_checked(CRC) {
            head.copy_from_slice(&checksum(self.pos, content).to_le_bytes());
        }
        Ok(out)
    }

    pub(crate) fn from_bytes(pos: Pos, bytes: &[u8]) -> Result<Self, StorageError> {
        let stored = parse(pos, bytes)?;
        Ok(Self {
            pos,
            key: Bytes::copy_from_slice(stored.key),
            value: Bytes::copy_from_slice(stored.value),
            create: stored.create,
            version: stored.version,
            prev: stored.prev,
            kind: stored.kind,
        })
    }
}

impl<'a> RecordRef<'a> {
    pub(crate) fn from_bytes(pos: Pos, bytes: &'a [u8]) -> Result<Self, StorageError> {
        let stored = parse(pos, bytes)?;
        Ok(Self { key: stored.key, prev: stored.prev, kind: stored.kind })
    }
}

fn parse(pos: Pos, bytes: &[u8]) -> Result<Stored<'_>, StorageError> {
    let Some((crc, content)) = bytes.split_first_chunk::<CRC>() else {
        return Err(damaged(pos, &"too short"));
    };
    if u32::from_le_bytes(*crc) != checksum(pos, content) {
        return Err(damaged(pos, &"checksum mismatch"));
    }
    postcard::from_bytes(content).map_err(|error| damaged(pos, &error))
}

fn checksum(pos: Pos, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&pos.rev.to_le_bytes());
    hasher.update(&pos.sub.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

fn damaged(pos: Pos, why: &dyn std::fmt::Display) -> StorageError {
    StorageError::Corrupt {
        what: format!("the record of revision {}.{} is damaged: {why}", pos.rev, pos.sub),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            pos: Pos { rev: 7, sub: 1 },
            key: Bytes::from_static(b"/a"),
            value: Bytes::from_static(b"value"),
            create: 3,
            version: 2,
            prev: Pos { rev: 5, sub: 0 },
            kind: Kind::Put,
        }
    }

    #[test]
    fn a_record_survives_its_stored_form() {
        let record = record();
        let bytes = record.to_bytes().unwrap();
        assert_eq!(Record::from_bytes(record.pos, &bytes).unwrap(), record);
    }

    #[test]
    fn kinds_keep_their_stored_form() {
        let table =
            [(Kind::Put, vec![0]), (Kind::Tombstone, vec![1]), (Kind::Leased(LeaseId(-1)), vec![2, 1])];
        for (kind, bytes) in table {
            assert_eq!(postcard::to_allocvec(&kind).unwrap(), bytes, "{kind:?}");
        }
    }

    #[test]
    fn any_flipped_bit_of_a_stored_record_is_noticed() {
        let bytes = record().to_bytes().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::from_bytes(Pos { rev: 7, sub: 1 }, &bytes).is_err(), "bit {bit}");
        }
        assert!(Record::from_bytes(Pos { rev: 8, sub: 1 }, &bytes).is_err(), "another revision's record");
    }

    #[test]
    fn only_the_state_right_before_counts_as_previous() {
        let older = Record { version: 1, ..record() };
        assert!(record().follows(&older));
        assert!(!record().follows(&Record { version: 5, ..record() }), "compacted in between");
        assert!(!record().follows(&Record { create: 1, ..older.clone() }), "another life of the key");
        assert!(!older.follows(&Record { version: 0, ..record() }), "a new key has no previous state");
    }
}
