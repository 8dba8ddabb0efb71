//! What waits for the log together: one batch is one write and one sync.

use std::collections::HashSet;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::machine::{Answer, Home};
use crate::span::Span;
use crate::storage::StorageError;
use crate::types::{Op, Txn};
use crate::wal::Wal;

/// Where an outcome goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// A transaction on its way into the log, its values in their envelopes.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) txn: Txn,
    pub(super) home: Home,
    pub(super) reply: Reply<Answer>,
}

/// What may be logged together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) proposals: Vec<Proposal>,
    pub(super) compactions: Vec<(u64, Option<Reply<()>>)>,
    bytes: usize,
}

impl Batch {
    /// Whether a transaction of so many bytes still fits.
    pub(super) fn takes(&self, bytes: usize, limit: usize) -> bool {
        self.bytes + bytes <= limit
    }

    pub(super) fn push(&mut self, proposal: Proposal, bytes: usize) {
        self.bytes += bytes;
        self.proposals.push(proposal);
    }

    pub(super) fn compact(&mut self, revision: u64, reply: Option<Reply<()>>) {
        self.bytes += Wal::RECORD_OVERHEAD + 16;
        self.compactions.push((revision, reply));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.proposals.is_empty() && self.compactions.is_empty()
    }
}

/// At most what a transaction takes in the log.
pub(super) fn logged_size(txn: &Txn) -> usize {
    const PER_ITEM: usize = 24;
    let items = txn.compares.len() + txn.success.len() + txn.failure.len();
    crate::txn::size(txn) + items * PER_ITEM + Wal::RECORD_OVERHEAD + 32
}

/// The keys that earlier transactions of a batch may write: a later one that looks at any of
/// them cannot be answered before those are applied.
#[derive(Debug, Default)]
pub(super) struct Touched {
    keys: HashSet<Bytes>,
    spans: Vec<Span>,
}

impl Touched {
    pub(super) fn add(&mut self, txn: &Txn) {
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Put { key, .. } | Op::Delete { key, end: None } => {
                    self.keys.insert(key.clone());
                }
                _ => self.spans.extend(crate::txn::spans(txn)),
            }
        }
    }

    pub(super) fn concerns(&self, txn: &Txn) -> bool {
        !self.keys.is_empty() || !self.spans.is_empty() || txn.compares.is_empty()
    }
}
