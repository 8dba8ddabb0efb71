//! Transactions that do not touch each other's keys: each can be evaluated without the others,
//! and they can be applied in any order.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::span::Span;
use crate::types::{Op, Txn};

/// Gathers transactions as long as they touch different keys.
#[derive(Debug, Default)]
pub struct Disjoint {
    /// What those gathered touch, start and end, without overlaps; no end is that of the key space.
    taken: BTreeMap<Bytes, Option<Bytes>>,
    /// Nothing else fits.
    closed: bool,
}

impl Disjoint {
    /// Takes a transaction in, unless it touches a key that one before it touches.
    pub fn add(&mut self, txn: &Txn) -> bool {
        if self.closed {
            return false;
        }
        let everything = reads_all(&txn.success) || reads_all(&txn.failure);
        let spans: Vec<Span> = match everything {
            true => vec![Span::all()],
            false => crate::txn::spans(txn).into_iter().filter(|span| !span.is_empty()).collect(),
        };
        if spans.iter().any(|span| self.meets(span).is_some()) {
            return false;
        }
        self.closed = everything;
        spans.into_iter().for_each(|span| self.insert(&span));
        true
    }

    /// The start of one that overlaps with a span.
    fn meets(&self, span: &Span) -> Option<Bytes> {
        let before = self.taken.range::<Bytes, _>(..=span.start()).next_back();
        let before = before.filter(|(_, end)| end.as_ref().is_none_or(|end| end > span.start()));
        let met = before.or_else(|| self.taken.range::<[u8], _>(span.bounds()).next());
        met.map(|(start, _)| start.clone())
    }

    /// Adds a span, which may overlap with others of its own transaction.
    fn insert(&mut self, span: &Span) {
        let (mut start, mut end) = (span.start().clone(), span.end().cloned());
        while let Some(met) = self.meets(span) {
            let Some(other) = self.taken.remove(&met) else { break };
            start = start.min(met);
            end = end.zip(other).map(|(end, other)| end.max(other));
        }
        self.taken.insert(start, end);
    }
}

/// Whether steps see or change keys that they do not name: those that are attached to a lease.
fn reads_all(ops: &[Op]) -> bool {
    ops.iter().any(|op| match op {
        Op::Revoke { .. } | Op::Attached { .. } => true,
        Op::Txn(inner) => reads_all(&inner.success) || reads_all(&inner.failure),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Compare, LeaseId, Revision};

    fn put(key: &'static str) -> Op {
        Op::Put { key: key.into(), value: Bytes::new() }
    }

    fn delete(from: &'static str, to: &'static str) -> Op {
        Op::Delete { key: from.into(), end: Some(to.into()) }
    }

    fn of(ops: Vec<Op>) -> Txn {
        Txn { success: ops, ..Txn::default() }
    }

    #[test]
    fn transactions_fit_together_while_they_touch_different_keys() {
        let unseen = Compare::ModRevision { key: "b".into(), revision: Revision(0) };
        let table = [
            (of(vec![put("b")]), of(vec![put("c")]), true),
            (of(vec![put("b")]), of(vec![put("b")]), false),
            (of(vec![put("a"), put("d")]), of(vec![put("b")]), true),
            (of(vec![put("a"), put("d")]), of(vec![delete("b", "d")]), true),
            (of(vec![put("a"), put("d")]), of(vec![delete("b", "e")]), false),
            (of(vec![delete("b", "d"), put("c"), put("x")]), of(vec![put("c")]), false),
            (of(vec![delete("b", "d"), put("c"), put("x")]), of(vec![put("d")]), true),
            (of(vec![delete("c", "d"), delete("b", "")]), of(vec![put("z")]), false),
            (of(vec![delete("c", "d"), delete("b", "")]), of(vec![put("a")]), true),
            (
                Txn { compares: vec![unseen], success: vec![put("a")], failure: vec![] },
                of(vec![put("b")]),
                false,
            ),
            (of(vec![put("b")]), of(vec![Op::Revoke { lease: LeaseId(1) }]), false),
            (of(vec![Op::Attached { lease: LeaseId(1) }]), of(vec![put("b")]), false),
            (of(vec![delete("d", "b")]), of(vec![put("c")]), true),
        ];
        for (first, second, fit) in table {
            let mut gathered = Disjoint::default();
            assert!(gathered.add(&first));
            assert_eq!(gathered.add(&second), fit, "{first:?} and {second:?}");
        }
    }

    #[test]
    fn one_that_did_not_fit_leaves_room_for_others() {
        let mut gathered = Disjoint::default();
        assert!(gathered.add(&of(vec![put("b")])));
        assert!(!gathered.add(&of(vec![put("c"), put("b")])));
        assert!(gathered.add(&of(vec![put("c")])));
    }
}
