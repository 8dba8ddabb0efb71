//! The store as a bbolt file.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use sampan_store::{KeyValue, LeaseId, RangeRequest, Revision, Storage, StorageError};
use sha2::{Digest, Sha256};

use super::{BUCKETS, CONSISTENT_INDEX, DIGEST, FINISHED_COMPACTION, Lease, SCHEDULED_COMPACTION, position};
use crate::bolt::{Bucket, Item, Part, Plan};
use crate::range;
use crate::scan::Scan;

/// How much is handed over at a time, in bytes.
const PIECE: usize = 64 << 10;

/// What stands under one key of the file.
pub(crate) enum Row {
    /// A key of the store at its last change.
    Key { at: [u8; 17], key: Bytes, len: usize },
    /// Something small.
    Small { key: Vec<u8>, value: Vec<u8> },
}

impl Item for Row {
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Key { at, .. } => at.to_vec(),
            Self::Small { key, .. } => key.clone(),
        }
    }

    fn value_len(&self) -> usize {
        match self {
            Self::Key { len, .. } => *len,
            Self::Small { value, .. } => value.len(),
        }
    }
}

/// A snapshot as of one revision. Reads the store twice: for the lengths of everything, and for
/// everything; it holds the keys, not the values.
pub(crate) struct Export {
    at: Revision,
    plan: Plan<Row>,
}

impl Export {
    /// Lays out a snapshot of the newest state; `index` is how far the log was applied.
    pub(crate) async fn new(storage: &dyn Storage, index: u64) -> Result<Self, StorageError> {
        let at = storage.current_revision().await?;
        let mut keys = Vec::new();
        let mut leases = Vec::new();
        let mut scan = Scan::new(storage, at);
        while let Some(page) = scan.page().await? {
            for kv in page {
                leases.extend(lease(&kv));
                let (revision, key) = (kv.mod_revision.0, kv.key.clone());
                keys.push((revision, key, range::message(kv).encoded_len()));
            }
        }
        // Several keys may have changed at one revision: each has its place there.
        keys.sort();
        let (mut last, mut sub) = (0, 0);
        let keys = keys.into_iter().map(|(revision, key, len)| {
            sub = if revision == last { sub + 1 } else { 0 };
            last = revision;
            Row::Key { at: position(revision, sub), key, len }
        });
        leases.sort_by(|a, b| a.0.cmp(&b.0));
        let leases = leases.into_iter().map(|(key, value)| Row::Small { key, value });
        let mut items: BTreeMap<&str, Vec<Row>> =
            BTreeMap::from([("key", keys.collect()), ("lease", leases.collect()), ("meta", meta(at, index))]);
        let buckets = BUCKETS.map(|name| Bucket { name, items: items.remove(name).unwrap_or_default() });
        Ok(Self { at, plan: Plan::new(buckets.into()) })
    }

    /// The revision that it is of.
    pub(crate) fn revision(&self) -> Revision {
        self.at
    }

    /// Its length in bytes, the digest at its end included.
    pub(crate) fn bytes(&self) -> u64 {
        self.plan.bytes() + DIGEST as u64
    }

    /// Its bytes, in pieces.
    pub(crate) fn pieces<'a>(&'a self, storage: &'a dyn Storage) -> Pieces<'a> {
        Pieces {
            storage,
            at: self.at,
            head: Some(self.plan.head()),
            parts: Box::new(self.plan.parts()),
            hasher: Some(Sha256::new()),
        }
    }
}

/// The bytes of an [`Export`], front to back.
pub(crate) struct Pieces<'a> {
    storage: &'a dyn Storage,
    at: Revision,
    head: Option<Vec<u8>>,
    parts: Box<dyn Iterator<Item = Part<'a, Row>> + Send + 'a>,
    /// Over everything so far; `None` once the digest was handed out.
    hasher: Option<Sha256>,
}

impl Pieces<'_> {
    /// The next piece, of about [`PIECE`] bytes; `None` after the digest.
    ///
    /// # Errors
    /// The store's; [`StorageError::Compacted`] where history was forgotten meanwhile.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let mut piece = self.head.take().unwrap_or_default();
        while piece.len() < PIECE {
            match self.parts.next() {
                Some(Part::Whole(bytes)) => piece.extend(bytes),
                Some(Part::Leaf(leaf)) => {
                    let mut values = Vec::with_capacity(leaf.items().len());
                    for row in leaf.items() {
                        values.push(value(self.storage, self.at, row).await?);
                    }
                    piece.extend(leaf.page(&values).ok_or_else(changed)?);
                }
                None => break,
            }
        }
        if piece.is_empty() {
            let digest = self.hasher.take().map(|hasher| Bytes::copy_from_slice(&hasher.finalize()));
            return Ok(digest);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        Ok(Some(piece.into()))
    }
}

/// What stands in the file under a row's key.
async fn value(storage: &dyn Storage, at: Revision, row: &Row) -> Result<Vec<u8>, StorageError> {
    match row {
        Row::Small { value, .. } => Ok(value.clone()),
        Row::Key { key, .. } => {
            let found = storage.range(RangeRequest::key(key.clone()).at(at)).await?;
            let kv = found.kvs.into_iter().next().ok_or_else(changed)?;
            Ok(range::message(kv).encode_to_vec())
        }
    }
}

/// A revision never changes.
fn changed() -> StorageError {
    StorageError::Corrupt { what: "a key is not what it was at the same revision".to_owned() }
}

/// A lease's key and value in the file, where `kv` says that it exists.
fn lease(kv: &KeyValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let id = LeaseId::of_key(&kv.key)?.0;
    let ttl = std::str::from_utf8(&kv.value).ok()?.parse().ok()?;
    Some((id.to_be_bytes().to_vec(), Lease { id, ttl, remaining_ttl: 0 }.encode_to_vec()))
}

/// What etcd remembers of itself.
fn meta(at: Revision, index: u64) -> Vec<Row> {
    let compacted = position(at.0, 0).to_vec();
    let row = |key: &str, value| Row::Small { key: key.as_bytes().to_vec(), value };
    vec![
        row(CONSISTENT_INDEX, index.to_be_bytes().to_vec()),
        row(FINISHED_COMPACTION, compacted.clone()),
        row(SCHEDULED_COMPACTION, compacted),
    ]
}
