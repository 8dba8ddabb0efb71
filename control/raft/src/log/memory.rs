//! The log's entries in memory.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use sampan_store::Command;
use sampan_store::wal::{LogId, LogState};

use super::codec;
use crate::types::{Entry, Member, MemberId, Proposal, RaftLogId, Vote, from_wal, to_wal};

/// The entries after the last purged one, without a gap, and what the log says beside them.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: VecDeque<Entry>,
    /// Bytes of the entries, about.
    pub(super) bytes: usize,
    pub(super) purged: Option<RaftLogId>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<RaftLogId>,
}

impl Memory {
    pub(super) fn new(state: &LogState, entries: Vec<(LogId, Bytes)>) -> io::Result<Self> {
        let mut memory = Self {
            purged: from_wal(state.purged),
            vote: state.vote.map(super::vote_from),
            committed: super::committed_of(state),
            ..Self::default()
        };
        for (id, payload) in entries {
            let entry = codec::entry(id, &payload)?;
            memory.append(&[entry]);
        }
        Ok(memory)
    }

    pub(super) fn last(&self) -> Option<RaftLogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.bytes += codec::weight(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// The entries of a range, one at least where there are any, until they come to `limit` bytes.
    pub(super) fn read(&self, range: &impl RangeBounds<u64>, limit: usize) -> Vec<Entry> {
        let Some(first) = self.first_index() else { return Vec::new() };
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skip) {
            if !range.contains(&entry.log_id.index) {
                break;
            }
            bytes += codec::weight(entry);
            if bytes > limit && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        found
    }

    pub(super) fn truncate_after(&mut self, last: Option<RaftLogId>) {
        let keep = last.map_or(0, |last| last.index + 1);
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= keep) {
            self.forget(VecDeque::pop_back);
        }
    }

    pub(super) fn purge(&mut self, upto: RaftLogId) {
        while self.first_index().is_some_and(|first| first <= upto.index) {
            self.forget(VecDeque::pop_front);
        }
        self.purged = self.purged.max(Some(upto));
    }

    fn forget(&mut self, pop: impl Fn(&mut VecDeque<Entry>) -> Option<Entry>) {
        if let Some(entry) = pop(&mut self.entries) {
            self.bytes = self.bytes.saturating_sub(codec::weight(&entry));
        }
    }

    /// The content of entries that a full device did not take goes: they change nothing.
    pub(super) fn take_back(&mut self, id: RaftLogId) {
        let Some(at) = self.first_index().and_then(|first| id.index.checked_sub(first)) else { return };
        let Ok(at) = usize::try_from(at) else { return };
        if let Some(entry) = self.entries.get_mut(at) {
            let before = codec::weight(entry);
            entry.payload = EntryPayload::Normal(Proposal::new(Command::Blank));
            self.bytes = (self.bytes + codec::weight(entry)).saturating_sub(before);
        }
    }

    pub(super) fn membership(&self) -> Option<(RaftLogId, Membership<MemberId, Member>)> {
        self.entries.iter().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(membership) => Some((entry.log_id, membership.clone())),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        })
    }

    pub(super) fn purgeable(&self, checkpointed: LogId, tail: usize) -> Option<u64> {
        let mut left = self.bytes;
        let mut upto = None;
        for entry in &self.entries {
            left = left.saturating_sub(codec::weight(entry));
            if left < tail || to_wal(Some(entry.log_id)).index > checkpointed.index {
                break;
            }
            upto = Some(entry.log_id.index);
        }
        upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Entry {
        codec::entry(LogId { term: 1, index }, &Command::Blank.to_bytes().unwrap()).unwrap()
    }

    fn memory(upto: u64) -> Memory {
        let mut memory = Memory::default();
        memory.append(&(1..=upto).map(entry).collect::<Vec<_>>());
        memory
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn reads_stop_at_the_limit_but_never_before_the_first() {
        let mut memory = memory(6);
        memory.purge(entry(2).log_id);
        let each = codec::weight(&entry(1));
        // range, limit, found; openraft counts from 0
        let table = [
            (0..100, usize::MAX, vec![2, 3, 4, 5]),
            (3..5, usize::MAX, vec![3, 4]),
            (3..100, 2 * each, vec![3, 4]),
            (3..100, 1, vec![3]),
            (6..100, usize::MAX, vec![]),
        ];
        for (range, limit, found) in table {
            assert_eq!(indexes(&memory.read(&range, limit)), found, "{range:?} {limit}");
        }
    }

    #[test]
    fn nothing_is_committed_that_is_not_there() {
        let id = |index| LogId { term: 1, index };
        let entries: Vec<_> = (2..=3).map(|at| (id(at), Command::Blank.to_bytes().unwrap())).collect();
        // committed, as it is taken
        for (committed, taken) in [(0, 1), (2, 2), (3, 3), (5, 3)] {
            let state = LogState { last: id(3), purged: id(1), committed: id(committed), vote: None };
            let memory = Memory::new(&state, entries.clone()).unwrap();
            assert_eq!(memory.committed, from_wal(id(taken)), "{committed}");
        }
    }

    #[test]
    fn what_is_in_the_tables_is_let_go_but_for_a_tail() {
        let memory = memory(6);
        let each = codec::weight(&entry(1));
        let at = |index| LogId { term: 1, index };
        // checkpointed, tail, purgeable
        let table = [
            (0, 0, None),
            (4, 0, Some(3)),
            (6, 0, Some(5)),
            (6, 2 * each, Some(3)),
            (6, 100 * each, None),
            (2, 2 * each, Some(1)),
        ];
        for (checkpointed, tail, upto) in table {
            assert_eq!(memory.purgeable(at(checkpointed), tail), upto, "{checkpointed} {tail}");
        }
    }

    #[test]
    fn bytes_come_and_go_with_the_entries() {
        let mut memory = memory(6);
        memory.take_back(entry(3).log_id);
        memory.truncate_after(Some(entry(4).log_id));
        assert_eq!(memory.last(), Some(entry(4).log_id));
        memory.purge(entry(9).log_id);
        assert_eq!((memory.bytes, memory.last()), (0, Some(entry(9).log_id)));
    }
}
