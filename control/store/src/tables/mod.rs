//! The tables on disk: redb, written by checkpoints only.
//!
//! `rev` holds every record by position, `idx` the newest head of each key, `meta` the counters.
//! One transaction writes a whole generation with the position it brings the tables to, so the
//! file is at all times exactly at some applied log entry. The checkpoint thread owns
//! [`Tables`]; readers share a [`TablesRead`]. Every commit records what redb needs to open
//! quickly after a crash.

mod backend;
mod read;
mod sweep;

use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::disk::{Create, Disk, is_no_space};
use crate::layer::Layer;
use crate::level::Level;
use crate::machine::{Frozen, Position};
use crate::record::Record;
use crate::storage::StorageError;
use backend::{Backend, Handle};
pub(crate) use read::TablesRead;

const REV: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("rev");
const IDX: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("idx");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STATE: &str = "state";
/// What those who order the commands keep; directories of 0.1.0 have none.
const ORDER: &str = "order";
/// The group's level; none is the oldest.
const LEVEL: &str = "level";

/// Files up to this size are verified whole when they are opened (about 30 ms at most).
const VERIFY_BYTES: u64 = 64 << 20;
/// A file is compacted at opening from this size on,
const COMPACT_BYTES: u64 = 16 << 20;
/// where less than this part of it is in use.
const COMPACT_PART: u64 = 4;

/// What the tables say of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The state machine's counters at the last checkpoint.
    pub(crate) position: Position,
    /// Compacted history up to this revision is gone from the tables.
    pub(crate) swept: u64,
    /// How many records there are,
    pub(crate) records: u64,
    /// and how many bytes.
    pub(crate) bytes: u64,
    /// How long the file was after it was last compacted.
    pub(crate) compacted_len: u64,
}

/// Why tables could not be opened.
#[derive(Debug)]
pub(crate) enum TablesError {
    Corrupt(String),
    Io(io::Error),
}

/// The tables of one file, open for writing.
#[derive(Debug)]
pub(crate) struct Tables {
    db: Database,
    backend: Arc<Backend>,
    meta: Meta,
}

impl Tables {
    /// Makes empty tables in a new file.
    pub(crate) fn create(path: &Path, disk: &Disk, cache: usize) -> Result<Self, TablesError> {
        let file = disk.open(path, Create::Anew).map_err(TablesError::Io)?;
        let backend = Arc::new(Backend::new(file));
        let db = builder(cache).create_with_backend(Handle(Arc::clone(&backend))).map_err(open_failed)?;
        let mut tables = Self { db, backend, meta: Meta::default() };
        tables.write_meta().map_err(|error| TablesError::Io(io::Error::other(error)))?;
        tables.settle().map_err(TablesError::Io)?;
        Ok(tables)
    }

    /// Opens existing tables; damage is found before anything is written.
    pub(crate) fn open(path: &Path, disk: &Disk, cache: usize) -> Result<Self, TablesError> {
        let file = disk.open_left(path).map_err(TablesError::Io)?;
        let len = file.len().map_err(TablesError::Io)?;
        if len == 0 {
            return Err(TablesError::Corrupt("the file is empty".into()));
        }
        if len <= VERIFY_BYTES {
            catch_unwind(AssertUnwindSafe(|| verify(path, disk, cache)))
                .unwrap_or_else(|_| Err(TablesError::Corrupt("the file's structure is damaged".into())))?;
        }
        let backend = Arc::new(Backend::new(file));
        let mut db = builder(cache).create_with_backend(Handle(Arc::clone(&backend))).map_err(open_failed)?;
        let mut meta = read_meta(&db)?;
        let compacted = compact_if_sparse(&mut db, &backend, &mut meta);
        let mut tables = Self { db, backend, meta };
        if compacted {
            tables.write_meta().map_err(|error| TablesError::Io(io::Error::other(error)))?;
        }
        tables.settle().map_err(TablesError::Io)?;
        Ok(tables)
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Renames the file, in the place of what has that name.
    pub(crate) fn rename(&self, to: &Path) -> io::Result<()> {
        self.backend.rename(to)
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.backend.file_len().unwrap_or(0)
    }

    /// The tables as of now.
    pub(crate) fn read(&self) -> Result<TablesRead, StorageError> {
        TablesRead::new(&self.db.begin_read().map_err(failed)?)
    }

    /// Writes a generation and the position it leads to, and sweeps history while at it. On a
    /// full device this succeeds all the same; the result counts once [`Tables::settle`] does.
    pub(crate) fn checkpoint(&mut self, frozen: &Frozen, sweep_budget: usize) -> Result<(), StorageError> {
        let mut meta = self.meta.clone();
        if frozen.position.applied < meta.position.applied {
            // Never write an older state over a newer one, whoever asks.
            return Err(StorageError::Corrupt { what: "a checkpoint would go back".into() });
        }
        meta.position = frozen.position.clone();
        self.backend.stage().map_err(io_failed)?;
        let txn = self.begin()?;
        {
            let mut rev = txn.open_table(REV).map_err(failed)?;
            let mut idx = txn.open_table(IDX).map_err(failed)?;
            append(&mut rev, &frozen.layer, &mut meta)?;
            for (key, head) in frozen.layer.all_heads() {
                idx.insert(&**key, &*head.to_bytes()?).map_err(failed)?;
            }
            let compacted = meta.position.compacted;
            sweep_some(&mut rev, &mut idx, &mut meta, compacted, sweep_budget)?;
        }
        self.commit(txn, meta)
    }

    /// How many revisions of compacted history wait to be swept.
    pub(crate) fn unswept(&self, compacted: u64) -> u64 {
        compacted.min(self.meta.position.revision).saturating_sub(self.meta.swept)
    }

    /// Sweeps history in a transaction of its own. `compacted` may be ahead of the tables: the
    /// log has it.
    pub(crate) fn sweep(&mut self, compacted: u64, budget: usize) -> Result<(), StorageError> {
        let mut meta = self.meta.clone();
        self.backend.stage().map_err(io_failed)?;
        let txn = self.begin()?;
        {
            let mut rev = txn.open_table(REV).map_err(failed)?;
            let mut idx = txn.open_table(IDX).map_err(failed)?;
            sweep_some(&mut rev, &mut idx, &mut meta, compacted, budget)?;
        }
        self.commit(txn, meta)
    }

    /// Brings to the device whatever is still in memory only; on a full device an error.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.backend.settle()
    }

    /// Fills new tables with a snapshot's records, as of `position`.
    pub(crate) fn load(
        &mut self,
        position: Position,
        records: impl Iterator<Item = Result<Record, StorageError>>,
    ) -> Result<(), StorageError> {
        let mut meta = Meta { swept: position.compacted, position, ..self.meta.clone() };
        let txn = self.begin()?;
        {
            let mut rev = txn.open_table(REV).map_err(failed)?;
            let mut idx = txn.open_table(IDX).map_err(failed)?;
            for record in records {
                let record = record?;
                insert(&mut rev, &record, &mut meta)?;
                idx.insert(&*record.key, &*record.head().to_bytes()?).map_err(failed)?;
                meta.position.keys += 1;
            }
        }
        self.commit(txn, meta)?;
        self.settle().map_err(io_failed)
    }

    /// Adds records of new keys to tables that are being filled.
    pub(crate) fn add(&mut self, records: &[Record]) -> Result<(), StorageError> {
        let mut meta = self.meta.clone();
        let txn = self.begin()?;
        {
            let mut rev = txn.open_table(REV).map_err(failed)?;
            let mut idx = txn.open_table(IDX).map_err(failed)?;
            for record in records {
                insert(&mut rev, record, &mut meta)?;
                idx.insert(&*record.key, &*record.head().to_bytes()?).map_err(failed)?;
                meta.position.keys += 1;
            }
        }
        self.commit(txn, meta)
    }

    /// Moves the tables to `position` without any change of records.
    pub(crate) fn reposition(&mut self, position: Position) -> Result<(), StorageError> {
        self.meta.swept = position.compacted;
        self.meta.position = position;
        self.write_meta()?;
        self.settle().map_err(io_failed)
    }

    fn write_meta(&mut self) -> Result<(), StorageError> {
        let txn = self.begin()?;
        txn.open_table(REV).map_err(failed)?;
        txn.open_table(IDX).map_err(failed)?;
        self.commit(txn, self.meta.clone())
    }

    fn begin(&self) -> Result<WriteTransaction, StorageError> {
        let mut txn = self.db.begin_write().map_err(failed)?;
        txn.set_quick_repair(true);
        Ok(txn)
    }

    fn commit(&mut self, txn: WriteTransaction, meta: Meta) -> Result<(), StorageError> {
        let bytes = postcard::to_allocvec(&meta).map_err(|error| StorageError::Corrupt {
            what: format!("the counters do not encode: {error}"),
        })?;
        let order = postcard::to_allocvec(&meta.position.order).map_err(|error| StorageError::Corrupt {
            what: format!("the membership does not encode: {error}"),
        })?;
        {
            let mut table = txn.open_table(META).map_err(failed)?;
            table.insert(STATE, &*bytes).map_err(failed)?;
            table.insert(ORDER, &*order).map_err(failed)?;
            if meta.position.level > Level::OLDEST {
                let number = meta.position.level.number().to_le_bytes();
                table.insert(LEVEL, number.as_slice()).map_err(failed)?;
            }
        }
        txn.commit().map_err(failed)?;
        self.meta = meta;
        Ok(())
    }
}

/// Adds a generation's records behind all others: in order, so that pages are filled once each.
fn append(rev: &mut sweep::RevTable<'_>, layer: &Layer, meta: &mut Meta) -> Result<(), StorageError> {
    let mut cursor = rev.upper_bound_mut(Bound::<(u64, u32)>::Unbounded).map_err(failed)?;
    for record in layer.all_records() {
        let bytes = record.to_bytes()?;
        cursor.insert_before((record.pos.rev, record.pos.sub), &*bytes).map_err(failed)?;
        meta.records += 1;
        meta.bytes += bytes.len() as u64;
    }
    cursor.close().map_err(failed)
}

fn insert(rev: &mut sweep::RevTable<'_>, record: &Record, meta: &mut Meta) -> Result<(), StorageError> {
    let bytes = record.to_bytes()?;
    rev.insert((record.pos.rev, record.pos.sub), &*bytes).map_err(failed)?;
    meta.records += 1;
    meta.bytes += bytes.len() as u64;
    Ok(())
}

fn sweep_some(
    rev: &mut sweep::RevTable<'_>,
    idx: &mut sweep::IdxTable<'_>,
    meta: &mut Meta,
    compacted: u64,
    budget: usize,
) -> Result<(), StorageError> {
    let upto = compacted.min(meta.position.revision);
    let swept = sweep::sweep(rev, idx, meta.swept, upto, budget)?;
    meta.swept = swept.upto.max(meta.swept);
    meta.records = meta.records.saturating_sub(swept.records);
    meta.bytes = meta.bytes.saturating_sub(swept.bytes);
    Ok(())
}

fn builder(cache: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache);
    builder
}

/// Opens the file without writing to it, and checks every page of it.
fn verify(path: &Path, disk: &Disk, cache: usize) -> Result<(), TablesError> {
    let file = disk.open(path, Create::No).map_err(TablesError::Io)?;
    let backend = Arc::new(Backend::isolated(file).map_err(TablesError::Io)?);
    let mut db = builder(cache).create_with_backend(Handle(backend)).map_err(open_failed)?;
    if !db.check_integrity().map_err(open_failed)? {
        return Err(TablesError::Corrupt("pages do not match their checksums".into()));
    }
    read_meta(&db).map(drop)
}

fn read_meta(db: &Database) -> Result<Meta, TablesError> {
    let read = || -> Result<Meta, redb::Error> {
        let txn = db.begin_read()?;
        txn.open_table(REV)?;
        txn.open_table(IDX)?;
        let table = txn.open_table(META)?;
        let bytes = ReadableTable::get(&table, STATE)?;
        let bytes = bytes.ok_or_else(|| redb::Error::Corrupted("it has no counters".into()))?;
        let corrupted = |error: postcard::Error| redb::Error::Corrupted(error.to_string());
        let mut meta: Meta = postcard::from_bytes(bytes.value()).map_err(corrupted)?;
        if let Some(order) = ReadableTable::get(&table, ORDER)? {
            meta.position.order = postcard::from_bytes(order.value()).map_err(corrupted)?;
        }
        if let Some(level) = ReadableTable::get(&table, LEVEL)? {
            let number = level.value().try_into().map(u16::from_le_bytes);
            let number = number.map_err(|_| redb::Error::Corrupted("its level is no number".into()))?;
            meta.position.level = Level::of_number(number);
        }
        Ok(meta)
    };
    read().map_err(open_failed)
}

/// Shrinks a file of which little is in use. A failure is no reason not to start.
fn compact_if_sparse(db: &mut Database, backend: &Backend, meta: &mut Meta) -> bool {
    let len = backend.file_len().unwrap_or(0);
    let sparse = len >= COMPACT_BYTES
        && meta.bytes.saturating_mul(COMPACT_PART) < len
        && len > meta.compacted_len.saturating_mul(2);
    if !sparse {
        return false;
    }
    match db.compact() {
        Ok(_) => {
            meta.compacted_len = backend.file_len().unwrap_or(len);
            tracing::info!(from = len, to = meta.compacted_len, "the store's tables were compacted");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the store's tables could not be compacted");
            false
        }
    }
}

fn open_failed(error: impl Into<redb::Error>) -> TablesError {
    match error.into() {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            TablesError::Corrupt("the file is not a database".into())
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            TablesError::Corrupt("the file is shorter than it says".into())
        }
        redb::Error::Io(error) => TablesError::Io(error),
        error => TablesError::Corrupt(error.to_string()),
    }
}

fn io_failed(error: io::Error) -> StorageError {
    if is_no_space(&error) { StorageError::NoSpace } else { StorageError::Io(error) }
}

fn failed(error: impl Into<redb::Error>) -> StorageError {
    match error.into() {
        redb::Error::Io(error) => io_failed(error),
        redb::Error::Corrupted(what) => {
            StorageError::Corrupt { what: format!("the tables are damaged: {what}") }
        }
        error => StorageError::Unavailable { why: format!("the tables failed: {error}") },
    }
}

#[cfg(test)]
mod tests;
