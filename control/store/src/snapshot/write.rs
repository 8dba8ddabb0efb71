//! Snapshots of keys that come from elsewhere.

use std::sync::Arc;

use bytes::Bytes;

use super::{FORMAT, FRAME_BYTES, Header, MAGIC, Part, Rows, Writer};
use crate::codec::Codec;
use crate::record::{Kind, Pos, Record};
use crate::storage::StorageError;
use crate::types::{KeyValue, Revision};

/// Writes a snapshot of keys that no store of ours holds: those of another program's backup. What
/// comes out is what [`crate::Storage::restore`] reads; values are compressed, and not sealed: the
/// store that takes them seals what it would seal.
#[derive(Debug)]
pub struct SnapshotWriter {
    revision: Revision,
    codec: Codec,
    writer: Writer,
    rows: Rows,
    begun: bool,
    last: Option<Bytes>,
}

impl SnapshotWriter {
    /// A snapshot that is of `revision`.
    pub fn new(revision: Revision) -> Self {
        Self {
            revision,
            codec: Codec::new(Vec::new(), None),
            writer: Writer::default(),
            rows: Rows::default(),
            begun: false,
            last: None,
        }
    }

    /// Adds the next key, which was the change number `sub` of its revision; gives the snapshot's
    /// next bytes, if it is time for some.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] where keys are not in order, or newer than the snapshot.
    pub fn push(&mut self, kv: &KeyValue, sub: u32) -> Result<Option<Vec<u8>>, StorageError> {
        let in_order = self.last.as_ref().is_none_or(|last| *last < kv.key);
        if !in_order || kv.mod_revision > self.revision {
            return Err(StorageError::Invalid { why: "the keys of a snapshot are not in order".to_owned() });
        }
        self.last = Some(kv.key.clone());
        let record = Record {
            pos: Pos { rev: kv.mod_revision.0, sub },
            key: kv.key.clone(),
            value: self.codec.encode(&kv.key, &kv.value)?,
            create: kv.create_revision.0,
            version: kv.version,
            prev: Pos::NONE,
            kind: Kind::live(kv.lease),
        };
        self.rows.push(&Arc::new(record));
        if self.rows.bytes < FRAME_BYTES {
            return Ok(None);
        }
        let mut out = self.begin()?;
        out.extend(self.writer.frame(&self.rows.take())?);
        Ok(Some(out))
    }

    /// The snapshot's last bytes.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where they cannot be encoded.
    pub fn finish(mut self) -> Result<Vec<u8>, StorageError> {
        let mut out = self.begin()?;
        if !self.rows.rows.is_empty() {
            out.extend(self.writer.frame(&self.rows.take())?);
        }
        out.extend(self.writer.frame(&Part::End { rows: self.rows.total })?);
        Ok(out)
    }

    /// What stands before all rows; nothing, the second time.
    fn begin(&mut self) -> Result<Vec<u8>, StorageError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(Vec::new());
        }
        let Revision(revision) = self.revision;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend(self.writer.frame(&Part::Header(Header { revision, changed: revision }))?);
        Ok(out)
    }
}
