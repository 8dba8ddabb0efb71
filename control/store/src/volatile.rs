//! Keyspaces that are kept in memory only: how what was evaluated on them is applied, and what a
//! member knows of them.
//!
//! Their content goes through the log but not onto the disk. So a member that restarted, or that
//! was sent placeholders as it lagged, lacks some of it up to an entry of the log; it refuses to
//! read or watch these keys until it has taken another member's copy that is as new as that entry,
//! or until the group gives up what nobody is known to have any more ([`crate::Command::Lost`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::command::Effect;
use crate::evaluate::{self, Change, Lookup, Outcome};
use crate::layer::{Layer, Tombstones};
use crate::machine::{Answer, Core, State};
use crate::read::Reader;
use crate::record::{Head, Kind, Pos, Record};
use crate::span::Span;
use crate::storage::StorageError;
use crate::types::{Revision, Txn};

/// What is known here of the volatile keyspaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Reads before this revision are refused.
    pub(crate) oldest: u64,
    /// No watch begins at this revision or before: its changes are not known, or not all of them.
    pub(crate) untold: u64,
    /// The last log entry whose changes are not known here. Until they are, nothing is forgotten,
    /// deletions least of all: what is here decides about what a copy brings.
    pub(crate) lacks: Option<u64>,
    /// The log entry at which the group last gave up what it had,
    pub(crate) lost: u64,
    /// and its revision.
    pub(crate) lost_at: u64,
}

impl Known {
    /// What a store knows that begins as of an entry and a revision: nothing of what came before,
    /// and that this was something where the entry is not 0.
    pub(crate) fn after(entry: u64, revision: u64) -> Self {
        Self { oldest: revision, untold: revision, lacks: (entry > 0).then_some(entry), ..Self::default() }
    }
}

/// What a member's copy of the volatile rows holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOf {
    /// The effects of so many log entries, and of later ones where they came meanwhile.
    pub applied: u64,
    /// The revision that these led to. Members at level 2 and before do not say.
    pub revision: Option<u64>,
}

impl State {
    /// Forgets the history of the volatile keyspaces before a revision.
    pub(crate) fn forget_volatile(&mut self, revision: u64) {
        let revision = revision.min(self.position.revision);
        if self.known.lacks.is_none() && revision > self.known.oldest {
            let from = std::mem::replace(&mut self.known.oldest, revision);
            self.volatile.compact(from, revision, Tombstones::Drop);
        }
    }

    /// The volatile keyspaces are these from here on, without history.
    fn begin_volatile(&mut self, layer: Layer) {
        let revision = self.position.revision;
        self.volatile = layer;
        self.volatile.compact(0, revision, Tombstones::Drop);
        self.known = Known { oldest: revision, untold: revision, lacks: None, ..self.known };
        self.attached = None;
    }
}

impl Core {
    /// Refuses to answer for volatile keys whose state is not known here.
    pub(crate) fn check_known(&self, state: &State, span: &Span) -> Result<(), StorageError> {
        if state.known.lacks.is_some() && self.touches_volatile(span) {
            return Err(unknown());
        }
        Ok(())
    }

    /// What a transaction over volatile keys does, without doing it.
    pub(crate) fn evaluate_volatile(&self, txn: &Txn) -> Result<(Answer, Vec<Effect>), StorageError> {
        let reader = Reader::new(self);
        let revision = {
            let state = self.state.read();
            if state.known.lacks.is_some() {
                return Err(unknown());
            }
            state.position.revision
        };
        let Outcome { succeeded, steps, changes } =
            evaluate::evaluate(txn, revision + 1, &reader, &self.codec)?;
        // What an inner transaction deletes that another one wrote is only deleted.
        let last: BTreeMap<&Bytes, &Change> =
            changes.iter().map(|change| (&change.record.key, change)).collect();
        let effects = last.into_values().map(|change| effect(change, revision)).collect();
        Ok((Answer::new(revision, succeeded, steps), effects))
    }

    /// Applies volatile effects as they are; uses up a revision, which it returns.
    pub(crate) fn apply_effects(&self, effects: &[Effect]) -> Result<u64, StorageError> {
        let reader = Reader::new(self);
        let revision = self.state.read().position.revision + 1;
        let mut changes = Vec::with_capacity(effects.len());
        for effect in effects {
            let (Effect::Put { key, .. } | Effect::Delete { key } | Effect::Attach { key, .. }) = effect;
            let head = reader.head(key)?;
            let live = head.filter(Head::is_live);
            let previous = live.map(|head| reader.record(head.pos)).transpose()?;
            let pos = Pos { rev: revision, sub: changes.len() as u32 };
            let prev = head.map_or(Pos::NONE, |head| head.pos);
            let record = match effect {
                Effect::Put { key, value, create, version }
                | Effect::Attach { key, value, create, version, .. } => Record {
                    pos,
                    key: key.clone(),
                    value: value.clone(),
                    create: if *create == 0 { revision } else { *create },
                    version: *version,
                    prev,
                    kind: match effect {
                        Effect::Attach { lease, .. } => Kind::live(*lease),
                        _ => Kind::Put,
                    },
                },
                // A member that lacks the key uses up the same position as others, and must not
                // take the key from an older copy later.
                Effect::Delete { key } => {
                    let since = live.map_or((revision, 1), |head| (head.create, head.version + 1));
                    tombstone(pos, key, since, prev)
                }
            };
            changes.push(Change { record: Arc::new(record), previous });
        }
        if changes.is_empty() {
            self.skip_revision();
        } else {
            self.install(revision, &changes);
            self.hub.publish(revision, changes);
        }
        Ok(revision)
    }

    /// Applies a log entry of volatile effects whose content is gone, `count` transactions; returns
    /// the last revision. Whoever watches must not take theirs for ones without events.
    pub(crate) fn apply_forgotten(&self, entry: u64, count: u64) -> u64 {
        let revision = {
            let mut state = self.state.write();
            state.position.revision += count;
            if count > 0 {
                state.known.untold = state.position.revision;
                state.known.lacks = Some(entry);
            }
            state.position.revision
        };
        self.end_volatile_watches(revision);
        self.tell_lacks();
        revision
    }

    /// The group gives up what it has of the volatile keyspaces, with a log entry: all members
    /// begin again with nothing. Uses up a revision, which it returns. Where the entry was applied
    /// `again`, after a restart, what came after it is not known for that.
    pub(crate) fn lose_volatile(&self, entry: u64, again: bool) -> u64 {
        let revision = {
            let mut state = self.state.write();
            state.position.revision += 1;
            state.begin_volatile(Layer::default());
            let revision = state.position.revision;
            let lacks = again.then_some(entry);
            state.known = Known { lost: entry, lost_at: revision, lacks, ..state.known };
            revision
        };
        self.end_volatile_watches(revision);
        self.tell_lacks();
        revision
    }

    /// What is here of the volatile keyspaces is taken for all there is: so did leaders do that
    /// could not have the group give them up.
    pub(crate) fn settle_volatile(&self) {
        {
            let mut state = self.state.write();
            if state.known.lacks.is_none() {
                return;
            }
            let layer = std::mem::take(&mut state.volatile);
            state.begin_volatile(layer);
        }
        self.tell_lacks();
    }

    /// What a copy that is begun now holds; `None` where this member lacks something itself.
    pub(crate) fn begin_copy(&self) -> Option<CopyOf> {
        let state = self.state.read();
        let position = &state.position;
        let copy = CopyOf { applied: position.applied.index, revision: Some(position.revision) };
        state.known.lacks.is_none().then_some(copy)
    }

    /// Whether what was handed out since a copy began is one.
    pub(crate) fn is_still(&self, copy: CopyOf) -> bool {
        let state = self.state.read();
        state.known.lacks.is_none() && state.known.lost <= copy.applied
    }

    /// Takes all rows of another member's copy: they are what there was at its revision, and what
    /// was applied here since then is newer. Only the one writer calls this.
    ///
    /// # Errors
    /// [`StorageError::Future`] where the copy has rows of revisions that are still to be applied
    /// here; [`StorageError::Unavailable`] where it is older than what is lacking.
    pub(crate) fn adopt_volatile(&self, rows: Vec<Record>, copy: CopyOf) -> Result<(), StorageError> {
        let revision = {
            let mut state = self.state.write();
            let Some(lacks) = state.known.lacks else { return Ok(()) };
            if copy.applied < lacks {
                let why = "a copy of the keys in memory is older than what is lacking here";
                return Err(StorageError::Unavailable { why: why.into() });
            }
            let current = state.position.revision;
            let newest = rows.iter().map(|row| row.pos.rev).chain(copy.revision).max();
            if let Some(newest) = newest.filter(|newest| *newest > current) {
                return Err(StorageError::Future { requested: Revision(newest), current: Revision(current) });
            }
            let layer = self.merged(&state.volatile, rows, copy.revision.unwrap_or(0));
            state.begin_volatile(layer);
            current
        };
        self.end_volatile_watches(revision);
        self.tell_lacks();
        Ok(())
    }

    /// The rows of a copy and what is here since its revision; of each key the newest.
    fn merged(&self, here: &Layer, rows: Vec<Record>, since: u64) -> Layer {
        let mut newest: BTreeMap<Bytes, Arc<Record>> = BTreeMap::new();
        let here = here.all_records().filter(|record| record.pos.rev > since).map(Arc::clone);
        let rows = rows.into_iter().filter(|row| self.is_volatile(&row.key)).map(Arc::new);
        for record in here.chain(rows) {
            match newest.get(&record.key) {
                Some(known) if known.pos >= record.pos => {}
                _ => drop(newest.insert(record.key.clone(), record)),
            }
        }
        // A layer takes records in the order of their positions.
        let mut newest: Vec<_> = newest.into_values().collect();
        newest.sort_unstable_by_key(|record| record.pos);
        let mut layer = Layer::default();
        newest.into_iter().for_each(|record| layer.insert(record));
        layer
    }

    /// Whoever watches volatile keys has to list them again.
    fn end_volatile_watches(&self, revision: u64) {
        self.hub.replace_within(revision, |span| self.touches_volatile(span));
    }

    /// Tells those who see to it what is lacking.
    pub(crate) fn tell_lacks(&self) {
        let lacks = self.state.read().known.lacks;
        self.lacks.send_if_modified(|told| std::mem::replace(told, lacks) != lacks);
    }
}

fn unknown() -> StorageError {
    StorageError::Unavailable { why: "this member does not have the keys yet that are in memory only".into() }
}

/// What a change that was evaluated after `revision` does to its key, whenever it is applied.
fn effect(change: &Change, revision: u64) -> Effect {
    let Change { record, .. } = change;
    let (key, value) = (record.key.clone(), record.value.clone());
    let create = if record.create > revision { 0 } else { record.create };
    let version = record.version;
    match record.kind {
        Kind::Put => Effect::Put { key, value, create, version },
        Kind::Leased(lease) => Effect::Attach { key, value, create, version, lease },
        Kind::Tombstone => Effect::Delete { key },
    }
}

/// The deletion of a volatile key; `(create, version)` as it is from now on.
fn tombstone(pos: Pos, key: &Bytes, (create, version): (u64, u64), prev: Pos) -> Record {
    Record { pos, key: key.clone(), value: Bytes::new(), create, version, prev, kind: Kind::Tombstone }
}
