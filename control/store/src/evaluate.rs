//! What a transaction does: a pure function from the state that it meets to its changes.
//!
//! Applying the same transactions to the same state gives the same changes everywhere: on the
//! first run, when the log is replayed, and later on each member of a cluster.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::Codec;
use crate::record::{Head, Kind, Pos, Record};
use crate::span::Span;
use crate::storage::StorageError;
use crate::types::{Compare, Op, Txn};

/// The state that a transaction meets.
pub(crate) trait Lookup {
    /// The newest record of a key, tombstones included.
    fn head(&self, key: &[u8]) -> Result<Option<Head>, StorageError>;
    /// The record at a position that a head or a caller named: it must exist.
    fn record(&self, pos: Pos) -> Result<Arc<Record>, StorageError>;
    /// The keys in a span that exist, in order.
    fn live(&self, span: &Span) -> Result<Vec<Head>, StorageError>;
}

/// One key's change, with the state before it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) record: Arc<Record>,
    pub(crate) previous: Option<Arc<Record>>,
}

/// What one step gave.
#[derive(Debug)]
pub(crate) enum Step {
    Put(Option<Arc<Record>>),
    Deleted(Vec<Arc<Record>>),
    Got(Option<Arc<Record>>),
}

/// What a transaction does.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) steps: Vec<Step>,
    /// Empty where nothing changes; then no revision is used up.
    pub(crate) changes: Vec<Change>,
}

/// Runs `txn` as revision `revision` would, changing nothing.
pub(crate) fn evaluate(
    txn: &Txn,
    revision: u64,
    state: &dyn Lookup,
    codec: &Codec,
) -> Result<Outcome, StorageError> {
    let succeeded = compares_hold(&txn.compares, state, codec)?;
    let mut run = Run { revision, state, written: HashMap::new(), changes: Vec::new() };
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let steps = ops.iter().map(|op| run.step(op)).collect::<Result<_, _>>()?;
    Ok(Outcome { succeeded, steps, changes: run.changes })
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
    let head = state.head(compare.key())?.filter(Head::is_live);
    Ok(match compare {
        Compare::ModRevision { revision, .. } => head.map_or(0, |head| head.pos.rev) == revision.0,
        Compare::CreateRevision { revision, .. } => head.map_or(0, |head| head.create) == revision.0,
        Compare::Version { version, .. } => head.map_or(0, |head| head.version) == *version,
        Compare::Value { key, value } => match head {
            Some(head) => {
                let record = state.record(head.pos)?;
                codec.decode(key, &record.value)? == codec.decode(key, value)?
            }
            None => false,
        },
    })
}

/// A transaction halfway: the state, and what its own steps changed so far.
struct Run<'a> {
    revision: u64,
    state: &'a dyn Lookup,
    written: HashMap<Bytes, Arc<Record>>,
    changes: Vec<Change>,
}

impl Run<'_> {
    fn step(&mut self, op: &Op) -> Result<Step, StorageError> {
        match op {
            Op::Put { key, value } => self.put(key, value).map(Step::Put),
            Op::Delete { key, end: None } => self.delete_key(key).map(Step::Deleted),
            Op::Delete { key, end } => self.delete_span(&Span::new(key, end.as_ref())).map(Step::Deleted),
            Op::Get { key } => self.get(key).map(Step::Got),
        }
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

    fn put(&mut self, key: &Bytes, value: &Bytes) -> Result<Option<Arc<Record>>, StorageError> {
        let head = self.state.head(key)?;
        let live = head.filter(Head::is_live);
        let previous = live.map(|head| self.state.record(head.pos)).transpose()?;
        let record = Record {
            pos: self.next_pos(),
            key: key.clone(),
            value: value.clone(),
            create: live.map_or(self.revision, |head| head.create),
            version: live.map_or(1, |head| head.version + 1),
            prev: head.map_or(Pos::NONE, |head| head.pos),
            kind: Kind::Put,
        };
        self.change(record, previous.clone());
        Ok(previous)
    }

    fn delete_key(&mut self, key: &Bytes) -> Result<Vec<Arc<Record>>, StorageError> {
        let head = self.state.head(key)?.filter(Head::is_live);
        self.delete(head.into_iter().collect())
    }

    fn delete_span(&mut self, span: &Span) -> Result<Vec<Arc<Record>>, StorageError> {
        let heads = self.state.live(span)?;
        self.delete(heads)
    }

    fn delete(&mut self, heads: Vec<Head>) -> Result<Vec<Arc<Record>>, StorageError> {
        let mut deleted = Vec::with_capacity(heads.len());
        for head in heads {
            let previous = self.state.record(head.pos)?;
            // A step before this one deleted the key already.
            if self.written.contains_key(&previous.key) {
                continue;
            }
            let record = Record {
                pos: self.next_pos(),
                key: previous.key.clone(),
                value: Bytes::new(),
                create: head.create,
                version: head.version + 1,
                prev: head.pos,
                kind: Kind::Tombstone,
            };
            self.change(record, Some(Arc::clone(&previous)));
            deleted.push(previous);
        }
        Ok(deleted)
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
