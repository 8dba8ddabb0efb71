//! Giving back the space of compacted history, a bounded number of records at a time.
//!
//! A record goes when a newer one of its key is itself not newer than the compacted revision:
//! so the sweep walks the newer ones, in order, and removes what they point back to. It rides
//! in a checkpoint's transaction where there is one.

use redb::{ReadableTable, Table};

use super::failed;
use crate::record::{Head, Kind, Pos, RecordRef};
use crate::storage::StorageError;

pub(super) type RevTable<'txn> = Table<'txn, (u64, u32), &'static [u8]>;
pub(super) type IdxTable<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// What a sweep did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Everything up to and with this revision was looked at.
    pub(super) upto: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// One record that the sweep looks at.
struct Seen {
    pos: Pos,
    prev: Pos,
    kind: Kind,
    key: Vec<u8>,
}

/// Looks at about `budget` records of the revisions `from..=upto`; `upto` is the compacted
/// revision, or the last in the tables if that is less. `from` is where the last sweep ended: it
/// is looked at again, since a tombstone of a compacted revision itself goes only with the next
/// compaction.
pub(super) fn sweep(
    rev: &mut RevTable<'_>,
    idx: &mut IdxTable<'_>,
    from: u64,
    upto: u64,
    budget: usize,
) -> Result<Swept, StorageError> {
    let (seen, reached) = look(rev, from, upto, budget)?;
    let mut swept = Swept { upto: reached, ..Swept::default() };
    for Seen { pos, prev, kind, key } in seen {
        remove(rev, prev, &mut swept)?;
        // A tombstone of the compacted revision itself is an event that may still be watched.
        if kind == Kind::Tombstone && pos.rev < upto {
            remove(rev, pos, &mut swept)?;
            let newest =
                idx.get(&*key).map_err(failed)?.map(|head| Head::from_bytes(head.value())).transpose()?;
            if newest.is_some_and(|head| head.pos == pos) {
                idx.remove(&*key).map_err(failed)?;
            }
        }
    }
    Ok(swept)
}

fn look(rev: &RevTable<'_>, from: u64, upto: u64, budget: usize) -> Result<(Vec<Seen>, u64), StorageError> {
    let mut seen: Vec<Seen> = Vec::new();
    if from > upto {
        return Ok((seen, from));
    }
    for entry in rev.range((from, 0)..=(upto, u32::MAX)).map_err(failed)? {
        let (pos, record) = entry.map_err(failed)?;
        let (rev, sub) = pos.value();
        let pos = Pos { rev, sub };
        if let Some(last) = seen.last()
            && seen.len() >= budget
            && last.pos.rev < rev
            && last.pos.rev > from
        {
            return Ok((seen, rev - 1));
        }
        let RecordRef { key, prev, kind } = RecordRef::from_bytes(pos, record.value())?;
        // Keys are needed only to take a tombstone's entry away.
        let key = if kind == Kind::Tombstone { key.to_vec() } else { Vec::new() };
        seen.push(Seen { pos, prev, kind, key });
    }
    Ok((seen, upto))
}

fn remove(rev: &mut RevTable<'_>, pos: Pos, swept: &mut Swept) -> Result<(), StorageError> {
    if pos == Pos::NONE {
        return Ok(());
    }
    if let Some(record) = rev.remove((pos.rev, pos.sub)).map_err(failed)? {
        swept.records += 1;
        swept.bytes += record.value().len() as u64;
    }
    Ok(())
}
