//! What can be said of a transaction without looking at any data: its size, its rules, and
//! which of its branches write.

use std::collections::HashSet;

use bytes::Bytes;

use crate::span::Span;
use crate::storage::StorageError;
use crate::types::{Compare, Op, Txn};

/// The most bytes that the keys and values of one transaction may have together (etcd's limit).
pub const MAX_TXN_BYTES: usize = 1_572_864;

/// Checks the rules that hold for every store.
pub(crate) fn check(txn: &Txn) -> Result<(), StorageError> {
    let size = size(txn);
    if size > MAX_TXN_BYTES {
        return Err(StorageError::TooLarge { size, limit: MAX_TXN_BYTES });
    }
    if let Some(why) = broken_rule(&txn.success).or_else(|| broken_rule(&txn.failure)) {
        return Err(StorageError::Invalid { why });
    }
    Ok(())
}

fn broken_rule(ops: &[Op]) -> Option<String> {
    let mut puts: HashSet<&Bytes> = HashSet::new();
    for op in ops {
        if let Op::Put { key, .. } = op {
            if key.is_empty() {
                return Some("a key is empty".into());
            }
            if !puts.insert(key) {
                return Some(format!("the key {} is written twice", key.escape_ascii()));
            }
        }
    }
    let deletes = ops.iter().filter_map(|op| match op {
        Op::Delete { key, end } => Some(Span::new(key, end.as_ref())),
        Op::Put { .. } | Op::Get { .. } => None,
    });
    for span in deletes {
        if let Some(key) = puts.iter().find(|key| span.contains(key)) {
            return Some(format!("the key {} is both written and deleted", key.escape_ascii()));
        }
    }
    None
}

/// Bytes of all keys and values.
pub(crate) fn size(txn: &Txn) -> usize {
    let compares: usize = txn
        .compares
        .iter()
        .map(|compare| match compare {
            Compare::Value { key, value } => key.len() + value.len(),
            other => other.key().len(),
        })
        .sum();
    let ops = |ops: &[Op]| -> usize {
        ops.iter()
            .map(|op| match op {
                Op::Put { key, value } => key.len() + value.len(),
                Op::Delete { key, end } => key.len() + end.as_ref().map_or(0, Bytes::len),
                Op::Get { key } => key.len(),
            })
            .sum()
    };
    compares + ops(&txn.success) + ops(&txn.failure)
}

/// At most what a transaction takes in the log.
pub(crate) fn logged_size(txn: &Txn) -> usize {
    const PER_ITEM: usize = 24;
    let items = txn.compares.len() + txn.success.len() + txn.failure.len();
    size(txn) + items * PER_ITEM + crate::wal::Wal::RECORD_OVERHEAD + 32
}

/// Whether any of the steps may change something.
pub(crate) fn writes(ops: &[Op]) -> bool {
    ops.iter().any(|op| !matches!(op, Op::Get { .. }))
}

impl Compare {
    /// The key that the condition is on.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::ModRevision { key, .. }
            | Self::CreateRevision { key, .. }
            | Self::Version { key, .. }
            | Self::Value { key, .. } => key,
        }
    }
}

impl Op {
    /// The keys that the step reads or writes.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Put { key, .. } | Self::Get { key } => Span::new(key, None),
            Self::Delete { key, end } => Span::new(key, end.as_ref()),
        }
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
