//! Reads: single records for transactions, ranges at a revision, and history for watchers.
//!
//! A read takes its cut of the layers in memory and its hold on the tables under one lock, so
//! that a checkpoint in between cannot hide anything; what lies in the tables it then reads
//! without a lock. Whatever may touch the disk is called from blocking threads only.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::attached::Attached;
use crate::evaluate::{Answered, Change, Lookup};
use crate::machine::{Core, Frozen, State};
use crate::record::{Head, Kind, Pos, Record};
use crate::span::Span;
use crate::storage::StorageError;
use crate::tables::TablesRead;
use crate::types::{LeaseId, RangeRequest, RangeResponse, Revision};

/// The newest state, for the one writer: nothing moves under it but a finished checkpoint,
/// whose generation it keeps hold of.
pub(crate) struct Reader<'a> {
    core: &'a Core,
    frozen: Option<Arc<Frozen>>,
    tables: Option<Arc<TablesRead>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        let state = core.state.read();
        Self { core, frozen: state.frozen.clone(), tables: state.tables.clone() }
    }
}

impl Lookup for Reader<'_> {
    fn head(&self, key: &[u8]) -> Result<Option<Head>, StorageError> {
        {
            let state = self.core.state.read();
            if self.core.is_volatile(key) {
                return Ok(state.volatile.head(key));
            }
            if let Some(head) = state.active.head(key) {
                return Ok(Some(head));
            }
        }
        if let Some(head) = self.frozen.as_ref().and_then(|frozen| frozen.layer.head(key)) {
            return Ok(Some(head));
        }
        self.tables.as_ref().map_or(Ok(None), |tables| tables.head(key))
    }

    fn record(&self, pos: Pos) -> Result<Arc<Record>, StorageError> {
        {
            let state = self.core.state.read();
            if let Some(record) = state.active.record(pos).or_else(|| state.volatile.record(pos)) {
                return Ok(Arc::clone(record));
            }
        }
        if let Some(record) = self.frozen.as_ref().and_then(|frozen| frozen.layer.record(pos)) {
            return Ok(Arc::clone(record));
        }
        let record = self.tables.as_ref().map_or(Ok(None), |tables| tables.record(pos))?;
        record.map(Arc::new).ok_or_else(|| missing(pos))
    }

    fn past(&self, request: &RangeRequest, revision: Revision) -> Result<Answered, StorageError> {
        let span = Span::new(&request.start, request.end.as_ref());
        self.core.records(&span, request, Some(revision.0))
    }

    fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, StorageError> {
        self.core.attached(lease)
    }

    fn is_volatile(&self, key: &[u8]) -> bool {
        self.core.is_volatile(key)
    }

    fn live(&self, span: &Span) -> Result<Vec<Head>, StorageError> {
        let cut = Cut::take(self.core, span, None)?;
        let mut live = Vec::new();
        cut.visit(span, |found| {
            live.push(match found {
                Found::Loaded(record) => record.head(),
                Found::Stored(head) => head,
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(live)
    }
}

/// The layers' share of a span at one revision, and a hold on the tables below.
pub(crate) struct Cut {
    pub(crate) revision: u64,
    /// The newest revision that changed a durable key, when the cut was taken.
    pub(crate) changed: u64,
    overlay: BTreeMap<Bytes, Seen>,
    tables: Option<Arc<TablesRead>>,
}

/// What the layers know of a key at a revision.
#[derive(Clone, Debug)]
enum Seen {
    Live(Arc<Record>),
    Absent,
    /// The answer lies in the tables, from here on down.
    Below(Pos),
}

/// A key that exists at the revision asked for.
pub(crate) enum Found {
    Loaded(Arc<Record>),
    /// In the tables; its value is not read yet.
    Stored(Head),
}

impl Cut {
    /// Takes a cut at `at`, or at the newest revision, where what it asks for is known here.
    pub(crate) fn take(core: &Core, span: &Span, at: Option<u64>) -> Result<Self, StorageError> {
        let state = core.state.read();
        core.check_known(&state, span)?;
        Self::take_of(core, &state, span, at)
    }

    /// Takes a cut of a state that the caller holds.
    pub(crate) fn take_of(
        core: &Core,
        state: &State,
        span: &Span,
        at: Option<u64>,
    ) -> Result<Self, StorageError> {
        state.check_open()?;
        let current = state.position.revision;
        let at = at.unwrap_or(current);
        if at > current {
            return Err(StorageError::Future { requested: Revision(at), current: Revision(current) });
        }
        let oldest = core.oldest(state, span);
        if at < oldest {
            return Err(StorageError::Compacted { requested: Revision(at), oldest: Revision(oldest) });
        }
        let mut starts: BTreeMap<Bytes, Pos> = BTreeMap::new();
        let frozen = state.frozen.as_ref().map(|frozen| &frozen.layer);
        for layer in frozen.into_iter().chain([&state.active, &state.volatile]) {
            starts.extend(layer.heads(span).map(|(key, head)| (key.clone(), head.pos)));
        }
        let overlay = starts.into_iter().map(|(key, pos)| (key, seen(state, pos, at))).collect();
        Ok(Self { revision: at, changed: state.position.changed, overlay, tables: state.tables.clone() })
    }

    /// Leaves out the keys for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        self.overlay.retain(|key, _| keep(key));
    }

    /// Visits the keys of the span that exist, in order. Reads the tables.
    pub(crate) fn visit(
        &self,
        span: &Span,
        mut visitor: impl FnMut(Found) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<(), StorageError> {
        if span.is_empty() {
            return Ok(());
        }
        let mut overlay = self.overlay.range::<[u8], _>(span.bounds()).peekable();
        if let Some(tables) = &self.tables {
            for entry in tables.heads(span)? {
                let entry = entry?;
                let key = entry.key();
                while let Some((_, seen)) = overlay.next_if(|(over, _)| ***over < *key) {
                    if self.show(seen, &mut visitor)?.is_break() {
                        return Ok(());
                    }
                }
                let found = match overlay.next_if(|(over, _)| ***over == *key) {
                    Some((_, seen)) => self.resolve(seen)?,
                    None => self.below(entry.head()?)?,
                };
                if let Some(found) = found
                    && visitor(found)?.is_break()
                {
                    return Ok(());
                }
            }
        }
        for (_, seen) in overlay {
            if self.show(seen, &mut visitor)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn show(
        &self,
        seen: &Seen,
        visitor: &mut impl FnMut(Found) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<ControlFlow<()>, StorageError> {
        match self.resolve(seen)? {
            Some(found) => visitor(found),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    fn resolve(&self, seen: &Seen) -> Result<Option<Found>, StorageError> {
        match seen {
            Seen::Live(record) => Ok(Some(Found::Loaded(Arc::clone(record)))),
            Seen::Absent => Ok(None),
            Seen::Below(pos) => self.walk(*pos),
        }
    }

    /// A key of which only the tables know.
    fn below(&self, head: Head) -> Result<Option<Found>, StorageError> {
        if head.pos.rev <= self.revision {
            return Ok(head.is_live().then_some(Found::Stored(head)));
        }
        self.walk(head.pos)
    }

    /// Follows a key's chain down to the revision asked for. Where the chain ends, the key did
    /// not exist: what a permitted revision can see is never compacted away.
    fn walk(&self, mut pos: Pos) -> Result<Option<Found>, StorageError> {
        let Some(tables) = &self.tables else { return Ok(None) };
        while pos != Pos::NONE {
            let Some(record) = tables.record(pos)? else { return Ok(None) };
            if pos.rev <= self.revision {
                return Ok(record.is_live().then(|| Found::Loaded(Arc::new(record))));
            }
            pos = record.prev;
        }
        Ok(None)
    }

    /// The record of a found key.
    pub(crate) fn load(&self, found: Found) -> Result<Arc<Record>, StorageError> {
        match found {
            Found::Loaded(record) => Ok(record),
            Found::Stored(head) => {
                let tables = self.tables.as_ref().ok_or_else(|| missing(head.pos))?;
                tables.record(head.pos)?.map(Arc::new).ok_or_else(|| missing(head.pos))
            }
        }
    }
}

/// Follows a key's chain through the layers in memory.
fn seen(state: &State, mut pos: Pos, at: u64) -> Seen {
    while pos != Pos::NONE {
        let Some(record) = in_memory(state, pos) else { return Seen::Below(pos) };
        if pos.rev <= at {
            return match record.kind {
                Kind::Put | Kind::Leased(_) => Seen::Live(Arc::clone(record)),
                Kind::Tombstone => Seen::Absent,
            };
        }
        pos = record.prev;
    }
    Seen::Absent
}

fn in_memory(state: &State, pos: Pos) -> Option<&Arc<Record>> {
    let frozen = state.frozen.as_ref().and_then(|frozen| frozen.layer.record(pos));
    state.active.record(pos).or(frozen).or_else(|| state.volatile.record(pos))
}

fn missing(pos: Pos) -> StorageError {
    StorageError::Corrupt { what: format!("the record of revision {}.{} is missing", pos.rev, pos.sub) }
}

impl Core {
    /// Answers from memory where that is certain to suffice.
    pub(crate) fn range_in_memory(
        &self,
        request: &RangeRequest,
    ) -> Option<Result<RangeResponse, StorageError>> {
        let span = Span::new(&request.start, request.end.as_ref());
        let sufficient = {
            let state = self.state.read();
            state.tables.is_none() || (request.end.is_none() && self.settled(&state, request))
        };
        sufficient.then(|| self.range_over(&span, request))
    }

    /// Whether the layers alone know the newest state of the one key asked for.
    fn settled(&self, state: &State, request: &RangeRequest) -> bool {
        let key = &request.start;
        let frozen = state.frozen.as_ref().and_then(|frozen| frozen.layer.head(key));
        request.revision.is_none() && (self.is_volatile(key) || state.active.head(key).or(frozen).is_some())
    }

    /// Answers a range; reads the tables.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StorageError> {
        self.range_over(&Span::new(&request.start, request.end.as_ref()), request)
    }

    fn range_over(&self, span: &Span, request: &RangeRequest) -> Result<RangeResponse, StorageError> {
        let at = request.revision.map(|revision| revision.0);
        self.range_response(&self.records(span, request, at)?)
    }

    /// The records that a range finds at a revision, or at the newest.
    fn records(
        &self,
        span: &Span,
        request: &RangeRequest,
        at: Option<u64>,
    ) -> Result<Answered, StorageError> {
        let cut = Cut::take(self, span, at)?;
        let wanted = match (request.count_only, request.limit) {
            (true, _) => 0,
            (false, 0) => usize::MAX,
            (false, limit) => limit,
        };
        let mut records = Vec::new();
        let mut count = 0;
        cut.visit(span, |found| {
            count += 1;
            if records.len() < wanted {
                records.push(cut.load(found)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let RangeRequest { keys_only, count_only, .. } = *request;
        Ok(Answered { revision: cut.revision, records, count, keys_only, count_only })
    }

    /// Which keys are attached to which lease, and at which revision that was.
    pub(crate) fn find_attached(&self) -> Result<(Attached, u64), StorageError> {
        let span = Span::all();
        let cut = Cut::take_of(self, &self.state.read(), &span, None)?;
        let mut attached = Attached::default();
        cut.visit(&span, |found| {
            let lease = match &found {
                Found::Loaded(record) => record.kind.lease(),
                Found::Stored(head) => head.kind.lease(),
            };
            if !lease.is_none() {
                attached.insert(lease, cut.load(found)?.key.clone());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((attached, cut.revision))
    }

    /// The changes of a span in `from..=upto`, whole revisions, about `max` at a time, and the
    /// revision up to which they are complete. Reads the tables.
    pub(crate) fn history(
        &self,
        span: &Span,
        from: u64,
        upto: u64,
        max: usize,
    ) -> Result<(Vec<Change>, u64), StorageError> {
        let mut found: BTreeMap<Pos, (Arc<Record>, Option<Arc<Record>>)> = BTreeMap::new();
        let mut horizon = upto;
        let tables = {
            let state = self.state.read();
            state.check_open()?;
            self.check_known(&state, span)?;
            let oldest = self.oldest(&state, span);
            if from < oldest {
                return Err(StorageError::Compacted { requested: Revision(from), oldest: Revision(oldest) });
            }
            let frozen = state.frozen.as_ref().map(|frozen| &frozen.layer);
            for layer in frozen.into_iter().chain([&state.active, &state.volatile]) {
                let records = layer.records(from, upto);
                horizon =
                    horizon.min(take(records.map(|record| Ok(Arc::clone(record))), upto, max, |record| {
                        if span.contains(&record.key) {
                            let previous = in_memory(&state, record.prev).map(Arc::clone);
                            found.insert(record.pos, (record, previous));
                        }
                    })?);
            }
            state.tables.clone()
        };
        if let Some(tables) = &tables {
            let records = tables.records(from, upto)?.map(|record| record.map(Arc::new));
            horizon = horizon.min(take(records, upto, max, |record| {
                if span.contains(&record.key) {
                    found.entry(record.pos).or_insert((record, None));
                }
            })?);
        }
        let mut changes = Vec::with_capacity(found.len());
        for (record, previous) in found.into_values().take_while(|(record, _)| record.pos.rev <= horizon) {
            let previous = match (previous, &tables) {
                (None, Some(tables)) if record.version > 1 => tables.record(record.prev)?.map(Arc::new),
                (previous, _) => previous,
            };
            let previous = previous.filter(|previous| record.follows(previous));
            changes.push(Change { record, previous });
        }
        Ok((changes, horizon))
    }
}

/// Hands on records until about `max` were seen and a revision is whole; tells the last whole one.
fn take(
    records: impl Iterator<Item = Result<Arc<Record>, StorageError>>,
    upto: u64,
    max: usize,
    mut found: impl FnMut(Arc<Record>),
) -> Result<u64, StorageError> {
    let mut last = 0;
    for (seen, record) in records.enumerate() {
        let record = record?;
        if seen >= max && record.pos.rev > last {
            return Ok(last);
        }
        last = record.pos.rev;
        found(record);
    }
    Ok(upto)
}
