//! A range of pod addresses: the lowest free one first, and none again soon after its release.
//!
//! Pure: time comes in as data. An address that was just given back rests for a while, so that
//! a client which still holds it does not reach another pod; when nothing else is left, the one
//! that rested longest is used all the same.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

/// How long a released address rests.
pub const REUSE_DELAY: Duration = Duration::from_secs(30);

/// Hands out the addresses of a network, its first (network) and last (broadcast) left out.
#[derive(Debug)]
pub struct PodRange {
    net: Ipv4Net,
    first: u32,
    last: u32,
    /// Never handed out from here on.
    untouched: u32,
    /// Below `untouched`, free and rested.
    free: BTreeSet<u32>,
    /// Free, but resting; oldest first.
    resting: VecDeque<(Instant, u32)>,
    used: HashSet<u32>,
}

impl PodRange {
    /// A range with every address free.
    pub fn new(net: Ipv4Net) -> Self {
        let network = u32::from(net.network());
        let broadcast = u32::from(net.broadcast());
        // A /31 or /32 has neither network nor broadcast address.
        let (first, last) =
            if net.prefix_len() >= 31 { (network, broadcast) } else { (network + 1, broadcast - 1) };
        Self {
            net,
            first,
            last,
            untouched: first,
            free: BTreeSet::new(),
            resting: VecDeque::new(),
            used: HashSet::new(),
        }
    }

    /// The network whose addresses these are.
    pub fn net(&self) -> Ipv4Net {
        self.net
    }

    /// How many addresses there are, used or not.
    pub fn capacity(&self) -> usize {
        usize::try_from(self.last - self.first).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// How many addresses are in use.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// The lowest address that is free and rested; `None` when all are in use.
    pub fn allocate(&mut self, now: Instant) -> Option<Ipv4Addr> {
        self.wake(now);
        let address = self
            .free
            .pop_first()
            .or_else(|| self.touch())
            .or_else(|| self.resting.pop_front().map(|(_, address)| address))?;
        self.used.insert(address);
        Some(Ipv4Addr::from(address))
    }

    /// Takes this very address, for a pod that had it before. False if it is in use or not of
    /// this range.
    pub fn claim(&mut self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        if address < self.first || address > self.last || self.used.contains(&address) {
            return false;
        }
        if address >= self.untouched {
            self.free.extend(self.untouched..address);
            self.untouched = address + 1;
        } else if !self.free.remove(&address) {
            self.resting.retain(|(_, resting)| *resting != address);
        }
        self.used.insert(address)
    }

    /// Gives an address back. One that is not in use is left alone.
    pub fn release(&mut self, address: Ipv4Addr, now: Instant) {
        let address = u32::from(address);
        if self.used.remove(&address) {
            self.resting.push_back((now, address));
        }
    }

    fn touch(&mut self) -> Option<u32> {
        (self.untouched <= self.last).then(|| {
            let address = self.untouched;
            self.untouched += 1;
            address
        })
    }

    fn wake(&mut self, now: Instant) {
        while let Some((since, address)) = self.resting.front().copied() {
            if now.saturating_duration_since(since) < REUSE_DELAY {
                return;
            }
            self.resting.pop_front();
            self.free.insert(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(net: &str) -> PodRange {
        PodRange::new(net.parse().unwrap())
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_in_order_without_network_and_broadcast() {
        let now = Instant::now();
        let mut range = range("10.42.3.0/30");
        assert_eq!(range.capacity(), 2);
        assert_eq!(range.allocate(now), Some(ip("10.42.3.1")));
        assert_eq!(range.allocate(now), Some(ip("10.42.3.2")));
        assert_eq!(range.allocate(now), None);
    }

    #[test]
    fn a_released_address_rests_before_it_is_used_again() {
        let now = Instant::now();
        let mut range = range("10.42.0.0/24");
        let first = range.allocate(now).unwrap();
        range.release(first, now);
        assert_eq!(range.allocate(now), Some(ip("10.42.0.2")));
        assert_eq!(range.allocate(now + REUSE_DELAY), Some(first));
    }

    #[test]
    fn a_resting_address_is_better_than_none() {
        let now = Instant::now();
        let mut range = range("10.42.3.0/30");
        let first = range.allocate(now).unwrap();
        let second = range.allocate(now).unwrap();
        range.release(second, now);
        range.release(first, now);
        assert_eq!(range.allocate(now), Some(second), "the one that rested longest");
        assert_eq!(range.allocate(now), Some(first));
    }

    #[test]
    fn a_claimed_address_is_not_handed_out_and_those_below_it_are() {
        let now = Instant::now();
        let mut range = range("10.42.0.0/24");
        assert!(range.claim(ip("10.42.0.3")));
        assert!(!range.claim(ip("10.42.0.3")));
        assert!(!range.claim(ip("10.43.0.3")));
        assert!(!range.claim(ip("10.42.0.255")));
        let got: Vec<_> = (0..3).filter_map(|_| range.allocate(now)).collect();
        assert_eq!(got, [ip("10.42.0.1"), ip("10.42.0.2"), ip("10.42.0.4")]);
        range.release(ip("10.42.0.2"), now);
        assert!(range.claim(ip("10.42.0.2")), "a resting address can be claimed");
        assert_eq!(range.used(), 4);
    }

    #[test]
    fn releasing_twice_does_not_hand_an_address_out_twice() {
        let now = Instant::now();
        let mut range = range("10.42.0.0/24");
        let first = range.allocate(now).unwrap();
        range.release(first, now);
        range.release(first, now);
        let later = now + REUSE_DELAY;
        assert_eq!(range.allocate(later), Some(first));
        assert_ne!(range.allocate(later), Some(first));
    }
}
