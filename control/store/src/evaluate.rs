//! What a transaction does: a pure function from the state that it meets to its changes.
//!
//! Applying the same transactions to the same state gives the same changes everywhere: on the
//! first run, when the log is replayed, and later on each member of a cluster.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::Codec;
use crate::record::{Head, Kind, Pos, Record};
use crate::span::Span;
use crate::storage::StorageError;
use crate::types::{Compare, LeaseId, Op, Operand, RangeRequest, Refusal, Revision, Txn};

/// The state that a transaction meets.
pub(crate) trait Lookup {
    /// The newest record of a key, tombstones included.
    fn head(&self, key: &[u8]) -> Result<Option<Head>, StorageError>;
    /// The record at a position that a head or a caller named: it must exist.
    fn record(&self, pos: Pos) -> Result<Arc<Record>, StorageError>;
    /// The keys in a span that exist, in order.
    fn live(&self, span: &Span) -> Result<Vec<Head>, StorageError>;
    /// What an older revision held, see [`Answered`].
    fn past(&self, request: &RangeRequest, revision: Revision) -> Result<Answered, StorageError>;
    /// The keys that are attached to a lease, in order.
    fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, StorageError>;
    /// Whether a key lives in memory only.
    fn is_volatile(&self, key: &[u8]) -> bool;
}

/// One key's change, with the state before it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) record: Arc<Record>,
    pub(crate) previous: Option<Arc<Record>>,
}

/// What a range gave: the first records of it, as many as were asked for, and the count of all.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) revision: u64,
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) count: u64,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
}

/// What one step gave.
#[derive(Debug)]
pub(crate) enum Step {
    Put(Option<Arc<Record>>),
    Deleted(Vec<Arc<Record>>),
    Got(Option<Arc<Record>>),
    Range(Answered),
    Txn {
        succeeded: bool,
        steps: Vec<Step>,
    },
    Attached(Vec<Bytes>),
    /// Stands alone.
    Refused(Refusal),
}

/// What a transaction does.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) steps: Vec<Step>,
    /// Empty where nothing changes; then no revision is used up.
    pub(crate) changes: Vec<Change>,
}

/// Why a transaction stops halfway.
enum Stop {
    Refused(Refusal),
    Failed(StorageError),
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Compacted { requested, oldest } => {
                Self::Refused(Refusal::Compacted { requested, oldest })
            }
            StorageError::Future { requested, current } => {
                Self::Refused(Refusal::Future { requested, current })
            }
            error => Self::Failed(error),
        }
    }
}

/// Runs `txn` as revision `revision` would, changing nothing.
pub(crate) fn evaluate(
    txn: &Txn,
    revision: u64,
    state: &dyn Lookup,
    codec: &Codec,
) -> Result<Outcome, StorageError> {
    let path = Path::find(txn, state, codec)?;
    let mut run = Run { revision, state, written: BTreeMap::new(), changes: Vec::new() };
    let ran = run.check(&path).and_then(|()| run.branch(&path));
    match ran {
        Ok(steps) => Ok(Outcome { succeeded: path.succeeded, steps, changes: run.changes }),
        Err(Stop::Refused(why)) => {
            Ok(Outcome { succeeded: false, steps: vec![Step::Refused(why)], changes: Vec::new() })
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Which branches run: all conditions, inner ones too, are judged on the state before.
struct Path<'a> {
    succeeded: bool,
    ops: &'a [Op],
    /// One for each inner transaction of `ops`, in order.
    inner: Vec<Path<'a>>,
}

impl<'a> Path<'a> {
    fn find(txn: &'a Txn, state: &dyn Lookup, codec: &Codec) -> Result<Self, StorageError> {
        let succeeded = compares_hold(&txn.compares, state, codec)?;
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let inner = ops.iter().filter_map(|op| match op {
            Op::Txn(inner) => Some(Self::find(inner, state, codec)),
            _ => None,
        });
        Ok(Self { succeeded, ops, inner: inner.collect::<Result<_, _>>()? })
    }
}

/// Whether all conditions hold.
pub(crate) fn compares_hold(
    compares: &[Compare],
    state: &dyn Lookup,
    codec: &Codec,
) -> Result<bool, StorageError> {
    for compare in compares {
        if !holds(compare, state, codec)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(compare: &Compare, state: &dyn Lookup, codec: &Codec) -> Result<bool, StorageError> {
    let head = || Ok::<_, StorageError>(state.head(compare.key())?.filter(Head::is_live));
    Ok(match compare {
        Compare::ModRevision { revision, .. } => head()?.map_or(0, |head| head.pos.rev) == revision.0,
        Compare::CreateRevision { revision, .. } => head()?.map_or(0, |head| head.create) == revision.0,
        Compare::Version { version, .. } => head()?.map_or(0, |head| head.version) == *version,
        Compare::Value { key, value } => match head()? {
            Some(head) => {
                let record = state.record(head.pos)?;
                codec.decode(key, &record.value)? == codec.decode(key, value)?
            }
            None => false,
        },
        Compare::Each { key, end: None, relation, operand } => {
            relation_holds(head()?, *relation, &operand.opened(key, codec)?, state, codec)?
        }
        Compare::Each { key, end, relation, operand } => {
            let heads = state.live(&Span::new(key, end.as_ref()))?;
            let operand = operand.opened(key, codec)?;
            if heads.is_empty() {
                return relation_holds(None, *relation, &operand, state, codec);
            }
            for head in heads {
                if !relation_holds(Some(head), *relation, &operand, state, codec)? {
                    return Ok(false);
                }
            }
            true
        }
    })
}

/// Whether a key, or one that was never written, stands so to an operand out of its envelope.
fn relation_holds(
    head: Option<Head>,
    relation: crate::types::Relation,
    operand: &Operand,
    state: &dyn Lookup,
    codec: &Codec,
) -> Result<bool, StorageError> {
    // Numbers of the store never come near the sign.
    let number = |number: Option<u64>, operand: i64| {
        i64::try_from(number.unwrap_or(0)).map_or(Ordering::Greater, |number| number.cmp(&operand))
    };
    let ordering = match operand {
        Operand::Version(operand) => number(head.map(|head| head.version), *operand),
        Operand::CreateRevision(operand) => number(head.map(|head| head.create), *operand),
        Operand::ModRevision(operand) => number(head.map(|head| head.pos.rev), *operand),
        Operand::Lease(operand) => head.map_or(0, |head| head.kind.lease().0).cmp(operand),
        Operand::Value(operand) => {
            let Some(head) = head else { return Ok(false) };
            let record = state.record(head.pos)?;
            codec.decode(&record.key, &record.value)?.cmp(operand)
        }
    };
    Ok(relation.holds(ordering))
}

impl Operand {
    /// The operand with its value out of its envelope.
    fn opened(&self, key: &Bytes, codec: &Codec) -> Result<Self, StorageError> {
        Ok(match self {
            Self::Value(value) => Self::Value(codec.decode(key, value)?),
            other => other.clone(),
        })
    }
}

/// A transaction halfway: the state, and what its own steps changed so far.
struct Run<'a> {
    revision: u64,
    state: &'a dyn Lookup,
    written: BTreeMap<Bytes, Arc<Record>>,
    changes: Vec<Change>,
}

impl Run<'_> {
    /// Refuses what the state does not allow, before anything is done.
    fn check(&self, path: &Path<'_>) -> Result<(), Stop> {
        let mut inner = path.inner.iter();
        for op in path.ops {
            match op {
                Op::Write { key, value, lease } => {
                    let keeps = value.is_none() || lease.is_none();
                    if keeps && self.state.head(key)?.is_none_or(|head| !head.is_live()) {
                        return Err(Stop::Refused(Refusal::KeyNotFound { key: key.clone() }));
                    }
                    let lease = lease.filter(|lease| !lease.is_none());
                    if let Some(lease) = lease
                        && self.state.head(&lease.key())?.is_none_or(|head| !head.is_live())
                    {
                        return Err(Stop::Refused(Refusal::LeaseNotFound { lease }));
                    }
                }
                Op::Txn(_) => inner.next().map_or(Ok(()), |inner| self.check(inner))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn branch(&mut self, path: &Path<'_>) -> Result<Vec<Step>, Stop> {
        let mut inner = path.inner.iter();
        path.ops.iter().map(|op| self.step(op, &mut inner)).collect()
    }

    fn step<'p>(&mut self, op: &Op, inner: &mut impl Iterator<Item = &'p Path<'p>>) -> Result<Step, Stop> {
        Ok(match op {
            Op::Put { key, value } => Step::Put(self.put(key, Some(value), Some(LeaseId::NONE))?),
            Op::Write { key, value, lease } => Step::Put(self.put(key, value.as_ref(), *lease)?),
            Op::Delete { key, end: None } => Step::Deleted(self.delete_key(key)?.into_iter().collect()),
            Op::Delete { key, end } => Step::Deleted(self.delete_span(&Span::new(key, end.as_ref()))?),
            Op::Get { key } => Step::Got(self.get(key)?),
            Op::Range(request) => Step::Range(self.range(request)?),
            Op::Txn(_) => match inner.next() {
                Some(path) => Step::Txn { succeeded: path.succeeded, steps: self.branch(path)? },
                None => Step::Txn { succeeded: false, steps: Vec::new() },
            },
            Op::Revoke { lease } => Step::Deleted(self.revoke(*lease)?),
            Op::Attached { lease } => Step::Attached(self.attached(*lease)?),
        })
    }

    fn get(&self, key: &Bytes) -> Result<Option<Arc<Record>>, StorageError> {
        if let Some(record) = self.written.get(key) {
            return Ok(record.is_live().then(|| Arc::clone(record)));
        }
        match self.state.head(key)? {
            Some(head) if head.is_live() => self.state.record(head.pos).map(Some),
            _ => Ok(None),
        }
    }

    fn put(
        &mut self,
        key: &Bytes,
        value: Option<&Bytes>,
        lease: Option<LeaseId>,
    ) -> Result<Option<Arc<Record>>, StorageError> {
        let written = self.written.get(key);
        let head = match written {
            Some(record) => Some(record.head()),
            None => self.state.head(key)?,
        };
        let live = head.filter(Head::is_live);
        let previous = match (written, live) {
            (Some(record), Some(_)) => Some(Arc::clone(record)),
            (None, Some(head)) => Some(self.state.record(head.pos)?),
            (_, None) => None,
        };
        let kept = || previous.as_ref().map(|previous| previous.value.clone());
        let record = Record {
            pos: self.next_pos(),
            key: key.clone(),
            value: value.cloned().or_else(kept).unwrap_or_default(),
            create: live.map_or(self.revision, |head| head.create),
            version: live.map_or(1, |head| head.version + 1),
            prev: head.map_or(Pos::NONE, |head| head.pos),
            kind: lease.map_or(live.map_or(Kind::Put, |head| head.kind), Kind::live),
        };
        self.change(record, previous.clone());
        Ok(previous)
    }

    fn range(&self, request: &RangeRequest) -> Result<Answered, StorageError> {
        if let Some(revision) = request.revision {
            return self.state.past(request, revision);
        }
        let span = Span::new(&request.start, request.end.as_ref());
        let wanted = if request.limit == 0 { usize::MAX } else { request.limit };
        let own = self.written.iter().any(|(key, _)| span.contains(key));
        let (count, records) = if own {
            let all = self.all(&span)?;
            (all.len(), all.into_iter().take(if request.count_only { 0 } else { wanted }).collect())
        } else {
            let heads = self.state.live(&span)?;
            let wanted = if request.count_only { 0 } else { wanted };
            let load = |head: &Head| self.state.record(head.pos);
            (heads.len(), heads.iter().take(wanted).map(load).collect::<Result<_, _>>()?)
        };
        Ok(Answered {
            revision: if self.changes.is_empty() { self.revision - 1 } else { self.revision },
            records,
            count: count as u64,
            keys_only: request.keys_only,
            count_only: request.count_only,
        })
    }

    /// All records of a span that exist at this step.
    fn all(&self, span: &Span) -> Result<Vec<Arc<Record>>, StorageError> {
        let mut all = BTreeMap::new();
        for head in self.state.live(span)? {
            let record = self.state.record(head.pos)?;
            all.insert(record.key.clone(), record);
        }
        for (key, record) in self.written.iter().filter(|(key, _)| span.contains(key)) {
            all.insert(key.clone(), Arc::clone(record));
        }
        Ok(all.into_values().filter(|record| record.is_live()).collect())
    }

    fn delete_key(&mut self, key: &Bytes) -> Result<Option<Arc<Record>>, StorageError> {
        let Some(previous) = self.get(key)? else { return Ok(None) };
        let record = Record {
            pos: self.next_pos(),
            key: key.clone(),
            value: Bytes::new(),
            create: previous.create,
            version: previous.version + 1,
            prev: previous.pos,
            kind: Kind::Tombstone,
        };
        self.change(record, Some(Arc::clone(&previous)));
        Ok(Some(previous))
    }

    fn delete_span(&mut self, span: &Span) -> Result<Vec<Arc<Record>>, StorageError> {
        let keys: Vec<Bytes> = self.all(span)?.iter().map(|record| record.key.clone()).collect();
        self.delete_all(&keys)
    }

    fn delete_all(&mut self, keys: &[Bytes]) -> Result<Vec<Arc<Record>>, StorageError> {
        let mut deleted = Vec::with_capacity(keys.len());
        for key in keys {
            deleted.extend(self.delete_key(key)?);
        }
        Ok(deleted)
    }

    /// Keys that live in memory only are not this transaction's to delete: the log could not
    /// repeat it.
    fn revoke(&mut self, lease: LeaseId) -> Result<Vec<Arc<Record>>, StorageError> {
        let mut keys = self.attached(lease)?;
        keys.retain(|key| !self.state.is_volatile(key));
        keys.push(lease.key());
        self.delete_all(&keys)
    }

    /// The keys that are attached to a lease at this step, in order.
    fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, StorageError> {
        let mut keys = self.state.attached(lease)?;
        keys.retain(|key| !self.written.contains_key(key));
        let own = self.written.values().filter(|record| record.kind == Kind::Leased(lease));
        keys.extend(own.map(|record| record.key.clone()));
        keys.sort_unstable();
        Ok(keys)
    }

    fn next_pos(&self) -> Pos {
        Pos { rev: self.revision, sub: self.changes.len() as u32 }
    }

    fn change(&mut self, record: Record, previous: Option<Arc<Record>>) {
        let record = Arc::new(record);
        self.written.insert(record.key.clone(), Arc::clone(&record));
        self.changes.push(Change { record, previous });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Layer;
    use crate::types::Revision;

    impl Lookup for Layer {
        fn past(&self, _: &RangeRequest, _: Revision) -> Result<Answered, StorageError> {
            unreachable!("these tests read the newest state")
        }
        fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, StorageError> {
            let attached = |head: &&Head| head.kind.lease() == lease;
            let keys = self.all_heads().filter(|(_, head)| attached(head)).map(|(key, _)| key.clone());
            Ok(keys.collect())
        }
        fn is_volatile(&self, _: &[u8]) -> bool {
            false
        }
        fn head(&self, key: &[u8]) -> Result<Option<Head>, StorageError> {
            Ok(Layer::head(self, key))
        }
        fn record(&self, pos: Pos) -> Result<Arc<Record>, StorageError> {
            Ok(Arc::clone(Layer::record(self, pos).unwrap()))
        }
        fn live(&self, span: &Span) -> Result<Vec<Head>, StorageError> {
            Ok(self.heads(span).map(|(_, head)| *head).filter(Head::is_live).collect())
        }
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn put(key: &'static str, value: &'static str) -> Op {
        Op::Put { key: bytes(key), value: Codec::plain().encode(b"", value.as_bytes()).unwrap() }
    }

    fn run(layer: &mut Layer, revision: u64, txn: &Txn) -> Outcome {
        let outcome = evaluate(txn, revision, layer, &Codec::plain()).unwrap();
        for change in &outcome.changes {
            layer.insert(Arc::clone(&change.record));
        }
        outcome
    }

    fn txn(ops: Vec<Op>) -> Txn {
        Txn { success: ops, ..Txn::default() }
    }

    #[test]
    fn versions_count_from_one_in_each_life_of_a_key() {
        let mut layer = Layer::default();
        run(&mut layer, 1, &txn(vec![put("a", "1")]));
        run(&mut layer, 2, &txn(vec![put("a", "2")]));
        run(&mut layer, 3, &txn(vec![Op::Delete { key: bytes("a"), end: None }]));
        run(&mut layer, 4, &txn(vec![put("a", "3")]));
        let lives: Vec<_> = layer.all_records().map(|r| (r.create, r.version, r.prev.rev, r.kind)).collect();
        assert_eq!(
            lives,
            [(1, 1, 0, Kind::Put), (1, 2, 1, Kind::Put), (1, 3, 2, Kind::Tombstone), (4, 1, 3, Kind::Put)]
        );
    }

    #[test]
    fn conditions_hold_exactly_where_they_say() {
        let mut layer = Layer::default();
        run(&mut layer, 1, &txn(vec![put("a", "x"), put("gone", "x")]));
        run(&mut layer, 2, &txn(vec![put("a", "y"), Op::Delete { key: bytes("gone"), end: None }]));
        let value = |text: &str| Codec::plain().encode(b"", text.as_bytes()).unwrap();
        let table = [
            (Compare::ModRevision { key: bytes("a"), revision: Revision(2) }, true),
            (Compare::ModRevision { key: bytes("a"), revision: Revision(1) }, false),
            (Compare::ModRevision { key: bytes("new"), revision: Revision(0) }, true),
            (Compare::ModRevision { key: bytes("gone"), revision: Revision(0) }, true),
            (Compare::CreateRevision { key: bytes("a"), revision: Revision(1) }, true),
            (Compare::CreateRevision { key: bytes("gone"), revision: Revision(1) }, false),
            (Compare::Version { key: bytes("a"), version: 2 }, true),
            (Compare::Version { key: bytes("gone"), version: 0 }, true),
            (Compare::Value { key: bytes("a"), value: value("y") }, true),
            (Compare::Value { key: bytes("a"), value: value("x") }, false),
            (Compare::Value { key: bytes("gone"), value: value("x") }, false),
        ];
        for (compare, expected) in table {
            let txn = Txn { compares: vec![compare.clone()], ..Txn::default() };
            assert_eq!(run(&mut layer, 3, &txn).succeeded, expected, "{compare:?}");
        }
    }

    #[test]
    fn steps_see_the_steps_before_them() {
        let mut layer = Layer::default();
        run(&mut layer, 1, &txn(vec![put("a", "1"), put("b", "1")]));
        let outcome = run(
            &mut layer,
            2,
            &txn(vec![
                Op::Get { key: bytes("a") },
                Op::Delete { key: bytes("a"), end: Some(bytes("b")) },
                Op::Get { key: bytes("a") },
                Op::Delete { key: bytes(""), end: Some(bytes("")) },
                put("c", "2"),
                Op::Get { key: bytes("c") },
            ]),
        );
        let found: Vec<usize> = outcome
            .steps
            .iter()
            .map(|step| match step {
                Step::Got(record) | Step::Put(record) => usize::from(record.is_some()),
                Step::Deleted(records) => records.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, [1, 1, 0, 1, 0, 1]);
        let positions: Vec<_> =
            outcome.changes.iter().map(|c| (c.record.pos.rev, c.record.pos.sub)).collect();
        assert_eq!(positions, [(2, 0), (2, 1), (2, 2)]);
    }

    #[test]
    fn a_transaction_that_changes_nothing_has_no_changes() {
        let mut layer = Layer::default();
        let outcome = run(&mut layer, 1, &txn(vec![Op::Delete { key: bytes("a"), end: None }]));
        assert!(outcome.changes.is_empty());
    }
}
