//! A change as watchers share it: taken out of its envelope once, whoever asks first.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::codec::Codec;
use crate::evaluate::Change;
use crate::record::{Kind, Record};
use crate::storage::StorageError;
use crate::types::{KeyValue, Revision, WatchEvent};

/// One change of one key on its way to watchers.
#[derive(Debug)]
pub(crate) struct Event {
    change: Change,
    value: OnceLock<Bytes>,
    previous: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(change: Change) -> Self {
        Self { change, value: OnceLock::new(), previous: OnceLock::new() }
    }

    pub(crate) fn key(&self) -> &Bytes {
        &self.change.record.key
    }

    pub(crate) fn revision(&self) -> u64 {
        self.change.record.pos.rev
    }

    /// About how much memory the event holds on to.
    pub(crate) fn weight(&self) -> usize {
        self.change.record.weight() + self.change.previous.as_ref().map_or(0, |previous| previous.weight())
    }

    /// The event as a watcher gets it.
    pub(crate) fn to_watch_event(&self, codec: &Codec) -> Result<WatchEvent, StorageError> {
        let record = &self.change.record;
        let previous = match &self.change.previous {
            Some(previous) => Some(key_value(previous, shared(&self.previous, previous, codec)?)),
            None => None,
        };
        Ok(match record.kind {
            Kind::Put | Kind::Leased(_) => {
                WatchEvent::Put { kv: key_value(record, shared(&self.value, record, codec)?), previous }
            }
            Kind::Tombstone => {
                WatchEvent::Delete { key: record.key.clone(), revision: Revision(record.pos.rev), previous }
            }
        })
    }
}

fn shared(cell: &OnceLock<Bytes>, record: &Arc<Record>, codec: &Codec) -> Result<Bytes, StorageError> {
    if let Some(value) = cell.get() {
        return Ok(value.clone());
    }
    let value = codec.decode(&record.key, &record.value)?;
    Ok(cell.get_or_init(|| value).clone())
}

/// A record as callers get it, with its plain value.
pub(crate) fn key_value(record: &Record, value: Bytes) -> KeyValue {
    KeyValue {
        key: record.key.clone(),
        value,
        create_revision: Revision(record.create),
        mod_revision: Revision(record.pos.rev),
        version: record.version,
        lease: record.kind.lease(),
    }
}

/// A record taken out of its envelope.
pub(crate) fn decoded(record: &Record, codec: &Codec) -> Result<KeyValue, StorageError> {
    Ok(key_value(record, codec.decode(&record.key, &record.value)?))
}
