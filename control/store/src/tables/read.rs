//! Reading the tables as of one checkpoint.

use std::ops::Bound;

use redb::{AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable};

use super::{IDX, REV, failed};
use crate::record::{Head, Pos, Record};
use crate::span::Span;
use crate::storage::StorageError;

/// The tables as of one checkpoint, shared by all readers until the next.
pub(crate) struct TablesRead {
    rev: ReadOnlyTable<(u64, u32), &'static [u8]>,
    idx: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl std::fmt::Debug for TablesRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TablesRead").finish_non_exhaustive()
    }
}

/// One key's entry.
pub(crate) struct HeadEntry<'a> {
    key: AccessGuard<'a, &'static [u8]>,
    head: AccessGuard<'a, &'static [u8]>,
}

impl HeadEntry<'_> {
    pub(crate) fn key(&self) -> &[u8] {
        self.key.value()
    }

    pub(crate) fn head(&self) -> Result<Head, StorageError> {
        Head::from_bytes(self.head.value())
    }
}

impl TablesRead {
    pub(super) fn new(txn: &ReadTransaction) -> Result<Self, StorageError> {
        Ok(Self { rev: txn.open_table(REV).map_err(failed)?, idx: txn.open_table(IDX).map_err(failed)? })
    }

    pub(crate) fn head(&self, key: &[u8]) -> Result<Option<Head>, StorageError> {
        let found = ReadableTable::get(&self.idx, key).map_err(failed)?;
        found.map(|head| Head::from_bytes(head.value())).transpose()
    }

    pub(crate) fn record(&self, pos: Pos) -> Result<Option<Record>, StorageError> {
        let found = ReadableTable::get(&self.rev, (pos.rev, pos.sub)).map_err(failed)?;
        found.map(|record| Record::from_bytes(pos, record.value())).transpose()
    }

    /// The heads in a span, tombstones included, in key order.
    pub(crate) fn heads(
        &self,
        span: &Span,
    ) -> Result<impl Iterator<Item = Result<HeadEntry<'_>, StorageError>>, StorageError> {
        let range = if span.is_empty() {
            None
        } else {
            Some(ReadableTable::range::<&[u8]>(&self.idx, span.bounds()).map_err(failed)?)
        };
        let entries = range.into_iter().flatten();
        Ok(entries.map(|entry| entry.map(|(key, head)| HeadEntry { key, head }).map_err(failed)))
    }

    /// The records of the revisions `from..=upto`, in order.
    pub(crate) fn records(
        &self,
        from: u64,
        upto: u64,
    ) -> Result<impl Iterator<Item = Result<Record, StorageError>>, StorageError> {
        let bounds = (Bound::Included((from, 0)), Bound::Included((upto, u32::MAX)));
        let range = if from > upto {
            None
        } else {
            Some(ReadableTable::range::<(u64, u32)>(&self.rev, bounds).map_err(failed)?)
        };
        Ok(range.into_iter().flatten().map(|entry| {
            let (pos, record) = entry.map_err(failed)?;
            let (rev, sub) = pos.value();
            Record::from_bytes(Pos { rev, sub }, record.value())
        }))
    }
}
