//! The state machine: layers of records over the tables, the counters, and how transactions and
//! other commands are applied to them.
//!
//! One writer at a time applies (whoever holds the writer's lock of the machine on disk or of the
//! in-memory store); anybody reads, see [`crate::read`]. Applying is deterministic: the log
//! replayed over the tables gives the state that was acknowledged, on every member.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::attached::Attached;
use crate::codec::Codec;
use crate::command::ClusterId;
use crate::evaluate::{self, Answered, Change, Outcome, Step};
use crate::event::{decoded, key_value};
use crate::hub::Hub;
use crate::layer::{Layer, Tombstones};
use crate::level::Level;
use crate::read::Reader;
use crate::record::Record;
use crate::snapshot::{Header, REVISION_LEAP};
use crate::span::Span;
use crate::storage::StorageError;
use crate::tables::TablesRead;
use crate::types::{LeaseId, OpResult, RangeResponse, Revision, Txn, TxnResponse};
use crate::volatile::Known;
use crate::wal::LogId;

/// The counters of the state machine; a checkpoint writes them with the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The last log entry that the state holds.
    pub(crate) applied: LogId,
    /// The newest revision.
    pub(crate) revision: u64,
    /// The newest revision that changed a durable key.
    pub(crate) changed: u64,
    /// Reads and watches before this revision are refused.
    pub(crate) compacted: u64,
    /// Revisions up to here may have been given out without a log entry of their own.
    pub(crate) reserved: u64,
    /// How many durable keys exist.
    pub(crate) keys: u64,
    /// What those who order the commands keep here. The tables store it under a name of its own,
    /// as directories of 0.1.0 have none.
    #[serde(skip)]
    pub(crate) order: Order,
    /// The group's level. Stored under a name of its own, and only once it is not the oldest.
    #[serde(skip)]
    pub(crate) level: Level,
}

/// The part of the position that belongs to those who order the commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The cluster's id.
    pub(crate) cluster: ClusterId,
    /// The entry that the membership came with,
    pub(crate) membership_at: LogId,
    /// and the membership, in the form of those who ordered it.
    pub(crate) membership: Bytes,
    /// The last entry in the newest state that was installed as a whole: the log may end before it.
    pub(crate) installed: LogId,
}

impl Position {
    /// The position after a snapshot took the state's place: far beyond every revision that
    /// anyone may remember, of this store or of the one that the snapshot is of.
    pub(crate) fn restore(&mut self, snapshot: &Header, keys: u64) {
        self.revision = self.revision.max(self.reserved).max(snapshot.revision) + REVISION_LEAP;
        self.changed = snapshot.changed;
        self.compacted = self.revision;
        self.keys = keys;
    }
}

/// A full generation of the overlay, on its way into the tables.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) layer: Layer,
    pub(crate) position: Position,
}

/// Everything that readers see.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) active: Layer,
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) tables: Option<Arc<TablesRead>>,
    /// Keyspaces that never reach log or tables.
    pub(crate) volatile: Layer,
    /// What is known of them.
    pub(crate) known: Known,
    pub(crate) position: Position,
    /// Keys by lease, once somebody asked for them.
    pub(crate) attached: Option<Attached>,
    /// Set once the tables are gone: what is left would look like an answer.
    pub(crate) closed: bool,
}

impl State {
    /// Refuses reads that could not see everything any more.
    pub(crate) fn check_open(&self) -> Result<(), StorageError> {
        if self.closed { Err(StorageError::Unavailable { why: "it was closed".into() }) } else { Ok(()) }
    }
}

/// The state machine with what it needs to answer.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) state: RwLock<State>,
    pub(crate) hub: Hub,
    pub(crate) codec: Arc<Codec>,
    volatile_prefixes: Vec<Bytes>,
    /// [`Known::lacks`], for those who see to it.
    pub(crate) lacks: watch::Sender<Option<u64>>,
}

/// Where a transaction's keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In log and tables.
    Durable,
    /// In memory only.
    Volatile,
}

/// What a transaction gave, its values still in their envelopes.
#[derive(Debug)]
pub struct Answer {
    revision: u64,
    succeeded: bool,
    steps: Vec<Step>,
}

impl Answer {
    pub(crate) fn new(revision: u64, succeeded: bool, steps: Vec<Step>) -> Self {
        Self { revision, succeeded, steps }
    }

    /// The revision after the transaction.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The same answer at another revision: where effects were applied later than evaluated.
    #[must_use]
    pub fn at(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }
}

impl Core {
    pub(crate) fn new(state: State, codec: Arc<Codec>, volatile_prefixes: Vec<Bytes>) -> Self {
        let hub = Hub::new(state.position.revision);
        let lacks = watch::channel(state.known.lacks).0;
        Self { state: RwLock::new(state), hub, codec, volatile_prefixes, lacks }
    }

    /// What is known of the volatile keyspaces where tables as of an entry and a revision are all
    /// that there is.
    pub(crate) fn known_after(&self, entry: u64, revision: u64) -> Known {
        Known::after(if self.volatile_prefixes.is_empty() { 0 } else { entry }, revision)
    }

    /// Whether a key lives in memory only.
    pub(crate) fn is_volatile(&self, key: &[u8]) -> bool {
        self.volatile_prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    pub(crate) fn touches_volatile(&self, span: &Span) -> bool {
        self.volatile_prefixes.iter().any(|prefix| span.touches(prefix))
    }

    /// Where a transaction belongs; one that mixes both homes could not be replayed.
    pub(crate) fn home(&self, txn: &Txn) -> Result<Home, StorageError> {
        let mut home = None;
        for span in crate::txn::spans(txn) {
            let here = if self.volatile_prefixes.iter().any(|prefix| span.lies_within(prefix)) {
                Home::Volatile
            } else if self.touches_volatile(&span) {
                return Err(mixed());
            } else {
                Home::Durable
            };
            if *home.get_or_insert(here) != here {
                return Err(mixed());
            }
        }
        Ok(home.unwrap_or(Home::Durable))
    }

    /// The oldest revision at which a span can be read.
    pub(crate) fn oldest(&self, state: &State, span: &Span) -> u64 {
        if self.touches_volatile(span) {
            state.position.compacted.max(state.known.oldest)
        } else {
            state.position.compacted
        }
    }

    /// The oldest revision from which a span can be watched.
    pub(crate) fn oldest_watch(&self, state: &State, span: &Span) -> u64 {
        let oldest = self.oldest(state, span);
        if self.touches_volatile(span) { oldest.max(state.known.untold + 1) } else { oldest }
    }

    /// Applies a transaction and publishes its changes. Only the one writer calls this.
    pub(crate) fn apply_txn(
        &self,
        reader: &Reader<'_>,
        floor: u64,
        txn: &Txn,
    ) -> Result<Answer, StorageError> {
        let before = self.state.read().position.revision;
        let revision = before.max(floor) + 1;
        let Outcome { succeeded, steps, changes } = evaluate::evaluate(txn, revision, reader, &self.codec)?;
        if changes.is_empty() {
            return Ok(Answer { revision: before, succeeded, steps });
        }
        self.install(revision, &changes);
        self.hub.publish(revision, changes);
        Ok(Answer { revision, succeeded, steps })
    }

    /// Answers a transaction that changes nothing, if it is one, from the present state.
    pub(crate) fn answer_unchanged(
        &self,
        reader: &Reader<'_>,
        txn: &Txn,
    ) -> Result<Option<Answer>, StorageError> {
        let both = crate::txn::writes(&txn.success) && crate::txn::writes(&txn.failure);
        if both {
            return Ok(None);
        }
        let succeeded = evaluate::compares_hold(&txn.compares, reader, &self.codec)?;
        if crate::txn::writes(if succeeded { &txn.success } else { &txn.failure }) {
            return Ok(None);
        }
        let revision = self.state.read().position.revision;
        let Outcome { succeeded, steps, .. } = evaluate::evaluate(txn, revision + 1, reader, &self.codec)?;
        Ok(Some(Answer { revision, succeeded, steps }))
    }

    /// Uses up a revision without any change; returns it.
    pub(crate) fn skip_revision(&self) -> u64 {
        let revision = {
            let mut state = self.state.write();
            state.position.revision += 1;
            state.position.revision
        };
        self.hub.advance(revision);
        revision
    }

    /// A leader begins; returns the revision.
    pub(crate) fn reign(&self, cluster: ClusterId, skip: bool) -> u64 {
        let revision = {
            let mut state = self.state.write();
            let position = &mut state.position;
            if position.order.cluster.is_none() {
                position.order.cluster = cluster;
            }
            position.revision = position.revision.max(position.reserved) + u64::from(skip);
            position.revision
        };
        self.hub.advance(revision);
        revision
    }

    pub(crate) fn install(&self, revision: u64, changes: &[Change]) {
        let mut state = self.state.write();
        state.position.revision = revision;
        for change in changes {
            if let Some(attached) = &mut state.attached {
                attached.follow(change);
            }
            let Change { record, previous } = change;
            if self.is_volatile(&record.key) {
                state.volatile.insert(Arc::clone(record));
                continue;
            }
            let keys = &mut state.position.keys;
            match (previous.is_some(), record.is_live()) {
                (false, true) => *keys += 1,
                (true, false) => *keys = keys.saturating_sub(1),
                (true, true) | (false, false) => {}
            }
            state.position.changed = revision;
            state.active.insert(Arc::clone(record));
        }
    }

    /// Whether history before `revision` can be forgotten: it cannot lie ahead.
    pub(crate) fn check_compaction(&self, revision: u64) -> Result<(), StorageError> {
        let current = self.state.read().position.revision;
        if revision > current {
            return Err(StorageError::Future { requested: Revision(revision), current: Revision(current) });
        }
        Ok(())
    }

    /// Forgets history before `revision`, everywhere but in the tables.
    pub(crate) fn apply_compaction(&self, revision: u64) {
        let mut state = self.state.write();
        let from = state.position.compacted;
        let revision = revision.min(state.position.revision);
        if revision > from {
            let below = if state.tables.is_some() || state.frozen.is_some() {
                Tombstones::Keep
            } else {
                Tombstones::Drop
            };
            state.position.compacted = revision;
            state.active.compact(from, revision, below);
        }
        state.forget_volatile(revision);
    }

    /// The group's level; it never goes down.
    pub(crate) fn raise(&self, level: Level) {
        let mut state = self.state.write();
        state.position.level = state.position.level.max(level);
    }

    pub(crate) fn reserve(&self, upto: u64) {
        let mut state = self.state.write();
        state.position.reserved = state.position.reserved.max(upto);
    }

    /// An answer as callers get it.
    pub(crate) fn response(&self, answer: Answer) -> Result<TxnResponse, StorageError> {
        let Answer { revision, succeeded, steps } = answer;
        Ok(TxnResponse { revision: Revision(revision), succeeded, results: self.results(steps)? })
    }

    fn results(&self, steps: Vec<Step>) -> Result<Vec<OpResult>, StorageError> {
        steps.into_iter().map(|step| self.result(step)).collect()
    }

    fn result(&self, step: Step) -> Result<OpResult, StorageError> {
        let one = |record: Option<_>| -> Result<_, StorageError> {
            record.map(|record: Arc<_>| decoded(&record, &self.codec)).transpose()
        };
        Ok(match step {
            Step::Put(previous) => OpResult::Put { previous: one(previous)? },
            Step::Got(record) => OpResult::Got { kv: one(record)? },
            Step::Deleted(records) => OpResult::Deleted {
                previous: records
                    .iter()
                    .map(|record| decoded(record, &self.codec))
                    .collect::<Result<_, _>>()?,
            },
            Step::Range(answered) => OpResult::Range(self.range_response(&answered)?),
            Step::Txn { succeeded, steps } => OpResult::Txn { succeeded, results: self.results(steps)? },
            Step::Attached(keys) => OpResult::Attached { keys },
            Step::Refused(why) => OpResult::Refused(why),
        })
    }

    /// A range's records as callers get them.
    pub(crate) fn range_response(&self, answered: &Answered) -> Result<RangeResponse, StorageError> {
        let Answered { revision, records, count, keys_only, count_only } = answered;
        let one = |record: &Arc<Record>| match keys_only {
            true => Ok(key_value(record, Bytes::new())),
            false => decoded(record, &self.codec),
        };
        let kvs = records.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        let more = !count_only && *count > kvs.len() as u64;
        Ok(RangeResponse { revision: Revision(*revision), kvs, more, count: *count })
    }

    /// The transaction with its values in their envelopes, as it is logged.
    pub(crate) fn encode(&self, mut txn: Txn) -> Result<Txn, StorageError> {
        crate::txn::change_values(&mut txn, &mut |key, value| {
            *value = self.codec.encode(key, value)?;
            Ok(())
        })?;
        Ok(txn)
    }

    /// The keys that are attached to a lease, in order. Reads the tables when first asked.
    pub(crate) fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, StorageError> {
        loop {
            if let Some(attached) = &self.state.read().attached {
                return Ok(attached.keys(lease));
            }
            let (built, revision) = self.find_attached()?;
            let mut state = self.state.write();
            state.check_open()?;
            // What was applied meanwhile is missing in what was built.
            if state.position.revision == revision {
                state.attached.get_or_insert(built);
            }
        }
    }
}

fn mixed() -> StorageError {
    StorageError::Invalid { why: "it mixes keyspaces that live in memory only with others".into() }
}
