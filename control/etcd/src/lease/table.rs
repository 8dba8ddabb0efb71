//! When leases end: a table without a clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sampan_store::LeaseId;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
struct Entry {
    ttl: Duration,
    deadline: Instant,
}

/// Leases and their ends.
#[derive(Debug, Default)]
pub(super) struct Table {
    leases: BTreeMap<LeaseId, Entry>,
    order: BTreeSet<(Instant, LeaseId)>,
}

impl Table {
    /// A lease is granted, or its time to live is another.
    pub(super) fn grant(&mut self, lease: LeaseId, ttl: Duration, now: Instant) {
        self.remove(lease);
        self.set(lease, Entry { ttl, deadline: now + ttl });
    }

    /// A lease is kept alive: it has its whole time again.
    pub(super) fn renew(&mut self, lease: LeaseId, now: Instant) {
        if let Some(entry) = self.remove(lease) {
            self.set(lease, Entry { deadline: now + entry.ttl, ..entry });
        }
    }

    /// A lease is looked at again later.
    pub(super) fn postpone(&mut self, lease: LeaseId, until: Instant) {
        if let Some(entry) = self.remove(lease) {
            self.set(lease, Entry { deadline: until, ..entry });
        }
    }

    /// Every lease has its whole time again.
    pub(super) fn restart(&mut self, now: Instant) {
        let leases: Vec<LeaseId> = self.leases.keys().copied().collect();
        leases.into_iter().for_each(|lease| self.renew(lease, now));
    }

    /// A lease is gone.
    pub(super) fn end(&mut self, lease: LeaseId) {
        self.remove(lease);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn contains(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// The time that a lease has left.
    pub(super) fn remaining(&self, lease: LeaseId, now: Instant) -> Option<Duration> {
        self.leases.get(&lease).map(|entry| entry.deadline.saturating_duration_since(now))
    }

    /// When the next lease ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// The leases whose time is over.
    pub(super) fn expired(&self, now: Instant) -> Vec<LeaseId> {
        self.order.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, lease)| *lease).collect()
    }

    /// All leases, those that end first first.
    pub(super) fn all(&self) -> Vec<LeaseId> {
        self.order.iter().map(|(_, lease)| *lease).collect()
    }

    fn set(&mut self, lease: LeaseId, entry: Entry) {
        self.order.insert((entry.deadline, lease));
        self.leases.insert(lease, entry);
    }

    fn remove(&mut self, lease: LeaseId) -> Option<Entry> {
        let entry = self.leases.remove(&lease)?;
        self.order.remove(&(entry.deadline, lease));
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_end_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut table = Table::default();
        table.grant(LeaseId(1), Duration::from_secs(10), start);
        table.grant(LeaseId(2), Duration::from_secs(5), start);
        assert_eq!((table.next(), table.all()), (Some(after(5)), vec![LeaseId(2), LeaseId(1)]));
        table.renew(LeaseId(2), after(4));
        assert_eq!(table.remaining(LeaseId(2), after(5)), Some(Duration::from_secs(4)));
        assert_eq!(table.expired(after(8)), vec![]);
        assert_eq!(table.expired(after(9)), vec![LeaseId(2)]);
        assert_eq!(table.expired(after(10)), vec![LeaseId(2), LeaseId(1)]);
        table.postpone(LeaseId(2), after(11));
        assert_eq!(table.expired(after(10)), vec![LeaseId(1)]);
        table.restart(after(10));
        assert_eq!(table.next(), Some(after(15)));
        table.end(LeaseId(2));
        assert_eq!((table.all(), table.next()), (vec![LeaseId(1)], Some(after(20))));
        table.renew(LeaseId(2), after(10));
        assert!(!table.contains(LeaseId(2)), "what is gone stays gone");
    }
}
