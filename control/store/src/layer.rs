//! A layer of records in memory: the overlay's generations, the volatile keyspaces, and all of
//! the in-memory store.
//!
//! Filled by whoever applies transactions, read under the state's lock. It never touches disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::{Head, Kind, Pos, Record};
use crate::span::Span;

/// Records by position, and the newest of each key.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    heads: BTreeMap<Bytes, Head>,
    records: BTreeMap<Pos, Arc<Record>>,
    bytes: usize,
}

/// What compaction does with tombstones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tombstones {
    /// Keep them: they hide what the tables below still hold.
    Keep,
    /// Drop them: nothing lies below.
    Drop,
}

impl Layer {
    pub(crate) fn insert(&mut self, record: Arc<Record>) {
        self.bytes += record.weight();
        self.heads.insert(record.key.clone(), record.head());
        self.records.insert(record.pos, record);
    }

    pub(crate) fn head(&self, key: &[u8]) -> Option<Head> {
        self.heads.get(key).copied()
    }

    pub(crate) fn record(&self, pos: Pos) -> Option<&Arc<Record>> {
        self.records.get(&pos)
    }

    /// The heads in a span, tombstones included, in key order.
    pub(crate) fn heads(&self, span: &Span) -> impl Iterator<Item = (&Bytes, &Head)> {
        let range = (!span.is_empty()).then(|| self.heads.range::<[u8], _>(span.bounds()));
        range.into_iter().flatten()
    }

    /// The records of the revisions `from..=upto`, in order.
    pub(crate) fn records(&self, from: u64, upto: u64) -> impl Iterator<Item = &Arc<Record>> {
        let range = (from <= upto).then(|| self.records.range(Pos::first(from)..=Pos::last(upto)));
        range.into_iter().flatten().map(|(_, record)| record)
    }

    pub(crate) fn all_heads(&self) -> impl Iterator<Item = (&Bytes, &Head)> {
        self.heads.iter()
    }

    pub(crate) fn all_records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.heads.is_empty()
    }

    /// About how much memory the layer takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys exist as far as this layer knows.
    pub(crate) fn live_keys(&self) -> u64 {
        self.heads.values().filter(|head| head.is_live()).count() as u64
    }

    /// Forgets what no read at `upto` or later can see. `from` is where the last call stopped.
    ///
    /// A record goes when one of revision `upto` or before supersedes it; the successor inherits
    /// its `prev`, so that the chain into the tables below stays whole for their own sweep.
    pub(crate) fn compact(&mut self, from: u64, upto: u64, tombstones: Tombstones) {
        let positions: Vec<Pos> = self.records(from, upto).map(|record| record.pos).collect();
        for pos in positions {
            let Some(prev) = self.records.get(&pos).map(|record| record.prev) else { continue };
            if let Some(superseded) = self.remove(prev)
                && let Some(record) = self.records.get_mut(&pos)
            {
                Arc::make_mut(record).prev = superseded.prev;
            }
            if tombstones == Tombstones::Drop && pos.rev < upto {
                self.drop_tombstone(pos);
            }
        }
    }

    fn drop_tombstone(&mut self, pos: Pos) {
        if self.records.get(&pos).is_none_or(|record| record.kind != Kind::Tombstone) {
            return;
        }
        let Some(record) = self.remove(pos) else { return };
        if self.heads.get(&record.key).is_some_and(|head| head.pos == pos) {
            self.heads.remove(&record.key);
        }
    }

    fn remove(&mut self, pos: Pos) -> Option<Arc<Record>> {
        let record = self.records.remove(&pos)?;
        self.bytes = self.bytes.saturating_sub(record.weight());
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rev: u64, key: &'static str, version: u64, prev: u64, kind: Kind) -> Arc<Record> {
        Arc::new(Record {
            pos: Pos::first(rev),
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::new(),
            create: 1,
            version,
            prev: Pos::first(prev),
            kind,
        })
    }

    fn layer(records: &[Arc<Record>]) -> Layer {
        let mut layer = Layer::default();
        for record in records {
            layer.insert(Arc::clone(record));
        }
        layer
    }

    fn revisions(layer: &Layer) -> Vec<u64> {
        layer.all_records().map(|record| record.pos.rev).collect()
    }

    #[test]
    fn compaction_keeps_what_later_reads_can_see() {
        let records = [
            record(11, "a", 2, 10, Kind::Put),
            record(12, "a", 3, 11, Kind::Put),
            record(13, "b", 1, 0, Kind::Put),
            record(14, "b", 2, 13, Kind::Tombstone),
            record(15, "a", 4, 12, Kind::Put),
        ];
        // compacted at, tombstones, revisions left
        let table = [
            (11, Tombstones::Drop, vec![11, 12, 13, 14, 15]),
            (13, Tombstones::Drop, vec![12, 13, 14, 15]),
            (14, Tombstones::Drop, vec![12, 14, 15]),
            (15, Tombstones::Drop, vec![15]),
            (15, Tombstones::Keep, vec![14, 15]),
        ];
        for (upto, tombstones, left) in table {
            let mut layer = layer(&records);
            layer.compact(0, upto, tombstones);
            assert_eq!(revisions(&layer), left, "compacted at {upto}");
        }
    }

    #[test]
    fn compaction_hands_the_chain_below_to_the_successor() {
        let mut layer = layer(&[record(11, "a", 2, 5, Kind::Put), record(12, "a", 3, 11, Kind::Put)]);
        layer.compact(0, 12, Tombstones::Keep);
        assert_eq!(layer.record(Pos::first(12)).unwrap().prev, Pos::first(5));
        assert_eq!(layer.head(b"a").unwrap().pos, Pos::first(12));
    }

    #[test]
    fn a_layer_counts_its_bytes_down_to_nothing() {
        let mut layer = layer(&[record(1, "a", 1, 0, Kind::Put), record(2, "a", 2, 1, Kind::Tombstone)]);
        assert!(layer.bytes() > 0);
        layer.compact(0, 3, Tombstones::Drop);
        assert_eq!((layer.bytes(), layer.len(), layer.is_empty()), (0, 0, true));
    }
}
