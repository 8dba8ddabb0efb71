//! What can be said of a transaction without looking at any data: its size, its rules, and
//! which of its branches write.

use std::collections::HashSet;

use bytes::Bytes;

use crate::span::Span;
use crate::storage::StorageError;
use crate::types::{Compare, Op, Operand, Txn};

/// The most bytes that the keys and values of one transaction may have together (etcd's limit).
pub const MAX_TXN_BYTES: usize = 1_572_864;

/// How deep transactions may stand within each other.
const MAX_DEPTH: usize = 32;

/// Checks the rules that hold for every store.
pub(crate) fn check(txn: &Txn) -> Result<(), StorageError> {
    let size = size(txn);
    if size > MAX_TXN_BYTES {
        return Err(StorageError::TooLarge { size, limit: MAX_TXN_BYTES });
    }
    for branch in [&txn.success, &txn.failure] {
        Writes::of(branch, MAX_DEPTH).map_err(|why| StorageError::Invalid { why })?;
    }
    Ok(())
}

/// What a branch writes, the transactions within it included.
#[derive(Default)]
struct Writes {
    puts: HashSet<Bytes>,
    deletes: Vec<Span>,
}

impl Writes {
    /// Finds out, or tells which rule the branch breaks. A put may not meet a deletion of its
    /// own branch or of a transaction that stands before it; a deletion after a put is sound.
    fn of(ops: &[Op], depth: usize) -> Result<Self, String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("transactions within transactions go deeper than {MAX_DEPTH}"));
        };
        let mut all = Self { deletes: ops.iter().filter_map(deleted).collect(), ..Self::default() };
        for op in ops {
            let Op::Txn(inner) = op else { continue };
            let success = Self::of(&inner.success, depth)?;
            let failure = Self::of(&inner.failure, depth)?;
            all.check(&success.puts)?;
            all.check(&failure.puts)?;
            all.puts.extend(success.puts);
            all.puts.extend(failure.puts);
            all.deletes.extend(success.deletes);
            all.deletes.extend(failure.deletes);
        }
        for key in ops.iter().filter_map(put) {
            if key.is_empty() {
                return Err("a key is empty".into());
            }
            all.check([key])?;
            all.puts.insert(key.clone());
        }
        Ok(all)
    }

    fn check<'a>(&self, puts: impl IntoIterator<Item = &'a Bytes>) -> Result<(), String> {
        for key in puts {
            if self.puts.contains(key) {
                return Err(format!("the key {} is written twice", key.escape_ascii()));
            }
            if self.deletes.iter().any(|span| span.contains(key)) {
                return Err(format!("the key {} is both written and deleted", key.escape_ascii()));
            }
        }
        Ok(())
    }
}

fn put(op: &Op) -> Option<&Bytes> {
    match op {
        Op::Put { key, .. } | Op::Write { key, .. } => Some(key),
        _ => None,
    }
}

fn deleted(op: &Op) -> Option<Span> {
    match op {
        Op::Delete { key, end } => Some(Span::new(key, end.as_ref())),
        Op::Revoke { lease } => Some(Span::new(&lease.key(), None)),
        _ => None,
    }
}

/// Bytes of all keys and values.
pub(crate) fn size(txn: &Txn) -> usize {
    let compares: usize = txn
        .compares
        .iter()
        .map(|compare| {
            let value = match compare {
                Compare::Value { value, .. } | Compare::Each { operand: Operand::Value(value), .. } => {
                    value.len()
                }
                _ => 0,
            };
            compare.key().len() + compare.end().map_or(0, Bytes::len) + value
        })
        .sum();
    let ops = |ops: &[Op]| -> usize {
        ops.iter()
            .map(|op| match op {
                Op::Put { key, value } => key.len() + value.len(),
                Op::Write { key, value, .. } => key.len() + value.as_ref().map_or(0, Bytes::len),
                Op::Delete { key, end } => key.len() + end.as_ref().map_or(0, Bytes::len),
                Op::Range(request) => request.start.len() + request.end.as_ref().map_or(0, Bytes::len),
                Op::Get { key } => key.len(),
                Op::Txn(inner) => size(inner),
                Op::Revoke { .. } | Op::Attached { .. } => 0,
            })
            .sum()
    };
    compares + ops(&txn.success) + ops(&txn.failure)
}

/// At most what a transaction takes in the log.
pub(crate) fn logged_size(txn: &Txn) -> usize {
    // Discriminants, lengths and numbers; at most a range with its revision and limit.
    const PER_ITEM: usize = 40;
    size(txn) + items(txn) * PER_ITEM + crate::wal::Wal::RECORD_OVERHEAD + 32
}

/// Compares and steps, those of inner transactions included.
fn items(txn: &Txn) -> usize {
    let inner = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Txn(inner) => items(inner),
        _ => 0,
    });
    txn.compares.len() + txn.success.len() + txn.failure.len() + inner.sum::<usize>()
}

/// Whether any of the steps may change something.
pub(crate) fn writes(ops: &[Op]) -> bool {
    ops.iter().any(|op| match op {
        Op::Put { .. } | Op::Write { .. } | Op::Delete { .. } | Op::Revoke { .. } => true,
        Op::Txn(inner) => writes(&inner.success) || writes(&inner.failure),
        Op::Get { .. } | Op::Range(_) | Op::Attached { .. } => false,
    })
}

/// The keys that a transaction touches, those of inner transactions included.
pub(crate) fn spans(txn: &Txn) -> Vec<Span> {
    let mut spans: Vec<Span> = txn.compares.iter().map(Compare::span).collect();
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put { key, .. } | Op::Write { key, .. } | Op::Get { key } => {
                spans.push(Span::new(key, None));
            }
            Op::Delete { key, end } => spans.push(Span::new(key, end.as_ref())),
            Op::Range(request) => spans.push(Span::new(&request.start, request.end.as_ref())),
            Op::Txn(inner) => spans.extend(self::spans(inner)),
            Op::Revoke { lease } => spans.push(Span::new(&lease.key(), None)),
            // Answered for all keyspaces.
            Op::Attached { .. } => {}
        }
    }
    spans
}

/// Calls `change` with each key and value of a transaction, those of inner transactions included.
pub(crate) fn change_values(
    txn: &mut Txn,
    change: &mut impl FnMut(&Bytes, &mut Bytes) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    for compare in &mut txn.compares {
        if let Compare::Value { key, value } | Compare::Each { key, operand: Operand::Value(value), .. } =
            compare
        {
            change(key, value)?;
        }
    }
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match op {
            Op::Put { key, value } | Op::Write { key, value: Some(value), .. } => change(key, value)?,
            Op::Txn(inner) => change_values(inner, change)?,
            _ => {}
        }
    }
    Ok(())
}

impl Compare {
    /// The key that the condition is on, or the first of its range.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::ModRevision { key, .. }
            | Self::CreateRevision { key, .. }
            | Self::Version { key, .. }
            | Self::Value { key, .. }
            | Self::Each { key, .. } => key,
        }
    }

    /// The end of the range that the condition is on, if it is on one.
    pub fn end(&self) -> Option<&Bytes> {
        match self {
            Self::Each { end, .. } => end.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn span(&self) -> Span {
        Span::new(self.key(), self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> Op {
        Op::Put { key: Bytes::from_static(key.as_bytes()), value: Bytes::new() }
    }

    fn delete(key: &'static str, end: Option<&'static str>) -> Op {
        let end = end.map(|end| Bytes::from_static(end.as_bytes()));
        Op::Delete { key: Bytes::from_static(key.as_bytes()), end }
    }

    #[test]
    fn a_branch_may_write_each_key_once() {
        // steps, allowed
        let table = [
            (vec![put("a"), put("b")], true),
            (vec![put("a"), put("a")], false),
            (vec![put("a"), delete("a", None)], false),
            (vec![delete("a", Some("c")), put("b")], false),
            (vec![delete("a", Some("c")), put("c")], true),
            (vec![delete("a", None), delete("", Some(""))], true),
            (vec![put("")], false),
        ];
        for (ops, allowed) in table {
            let txn = Txn { success: ops.clone(), ..Txn::default() };
            assert_eq!(check(&txn).is_ok(), allowed, "{ops:?}");
            let txn = Txn { failure: ops.clone(), ..Txn::default() };
            assert_eq!(check(&txn).is_ok(), allowed, "failure branch {ops:?}");
        }
        let both = Txn { success: vec![put("a")], failure: vec![put("a")], ..Txn::default() };
        assert!(check(&both).is_ok(), "only one branch runs");
    }

    fn inner(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Box::new(Txn { success, failure, ..Txn::default() }))
    }

    #[test]
    fn inner_transactions_write_for_the_branch_that_they_stand_in() {
        // steps, allowed
        let table = [
            (vec![inner(vec![put("a")], vec![put("a")])], true),
            (vec![inner(vec![put("a")], vec![]), put("a")], false),
            (vec![inner(vec![], vec![put("a")]), put("a")], false),
            (vec![inner(vec![put("a")], vec![]), inner(vec![put("a")], vec![])], false),
            (vec![inner(vec![put("a")], vec![]), delete("a", None)], false),
            (vec![inner(vec![delete("a", None)], vec![]), put("a")], false),
            (vec![inner(vec![put("a")], vec![]), inner(vec![delete("a", None)], vec![])], true),
            (vec![inner(vec![delete("a", None)], vec![]), inner(vec![put("a")], vec![])], false),
            (vec![inner(vec![put("")], vec![])], false),
        ];
        for (ops, allowed) in table {
            let txn = Txn { success: ops.clone(), ..Txn::default() };
            assert_eq!(check(&txn).is_ok(), allowed, "{ops:?}");
        }
        let deep = (0..=MAX_DEPTH).fold(put("a"), |op, _| inner(vec![op], vec![]));
        assert!(check(&Txn { success: vec![deep], ..Txn::default() }).is_err(), "too deep");
    }

    #[test]
    fn size_counts_all_keys_and_values() {
        let value = Bytes::from(vec![0; MAX_TXN_BYTES]);
        let txn = |key: &'static str| Txn {
            success: vec![Op::Put { key: Bytes::from_static(key.as_bytes()), value: value.slice(2..) }],
            ..Txn::default()
        };
        assert!(check(&txn("ab")).is_ok());
        assert!(matches!(check(&txn("abc")), Err(StorageError::TooLarge { .. })));
    }
}
