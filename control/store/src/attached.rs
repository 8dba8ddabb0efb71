//! Which keys are attached to which lease.
//!
//! Derived from the heads of the keys: built when it is first asked for, kept up by whoever
//! applies transactions, gone when the state is replaced. A store without leases never builds it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::evaluate::Change;
use crate::types::LeaseId;

/// Keys by lease.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    leases: BTreeMap<LeaseId, BTreeSet<Bytes>>,
}

impl Attached {
    /// The keys of a lease, in order.
    pub(crate) fn keys(&self, lease: LeaseId) -> Vec<Bytes> {
        self.leases.get(&lease).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// A key is attached to a lease.
    pub(crate) fn insert(&mut self, lease: LeaseId, key: Bytes) {
        if !lease.is_none() {
            self.leases.entry(lease).or_default().insert(key);
        }
    }

    /// A change was applied.
    pub(crate) fn follow(&mut self, change: &Change) {
        let Change { record, previous } = change;
        let before = previous.as_ref().map_or(LeaseId::NONE, |previous| previous.kind.lease());
        let now = record.kind.lease();
        if before == now {
            return;
        }
        if let Some(keys) = self.leases.get_mut(&before) {
            keys.remove(&record.key);
            if keys.is_empty() {
                self.leases.remove(&before);
            }
        }
        self.insert(now, record.key.clone());
    }
}
