//! Time between machines that may have no clock worth the name: when is a certificate expired, what
//! has been proven about the time, and is this machine's own clock off.
//!
//! The rules, all pure:
//! - NotBefore is never looked at.
//! - A certificate is expired when the *floor* is past its end, or when the owner's own claim and our
//!   clock agree that it is. Our clock alone does not decide: it may be years ahead, and an owner that
//!   means ill claims an early time anyway. What keeps such an owner out is the floor.
//! - The floor is raised to the second-newest of what our clock and the servers that we have talked to
//!   (each counted once, by key) say: no single wrong clock and no single server can push it into the
//!   future. A node's word counts only together with our own clock. It then runs on with the
//!   monotonic clock, is kept on disk ([`crate::FloorFile`]), and never goes back.
//! - Nothing is lost even where all clocks were wrong together: an expired machine renews by proof of
//!   its key, and certificates are issued from [`Clock::best`], which is never before the floor.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::identity::{KeyId, Role};

/// No build of this software ran before this: 2026-11-01, in time since 1970. The floor starts here.
pub const BUILT: Duration = Duration::from_secs(1_793_491_200);

/// How far a clock may differ from the servers' before [`Clock::clock_skew`] says so.
pub const SKEW_TOLERANCE: Duration = Duration::from_secs(60);

/// Servers whose word is remembered. More than a cluster has.
const MAX_WITNESSES: usize = 16;

/// The clock that handshakes are judged by.
pub trait Clock: Send + Sync + 'static {
    /// What the system's clock says, right or wrong.
    fn now(&self) -> SystemTime;

    /// A time that is certainly past. Never goes back.
    fn floor(&self) -> SystemTime;

    /// Takes in what an authenticated peer with a valid certificate said about the time. May write to
    /// disk: not for async threads.
    fn observe(&self, testimony: &Testimony);

    /// How far this machine's clock is off, if what the servers say differs from it by more than
    /// [`SKEW_TOLERANCE`].
    fn clock_skew(&self) -> Option<Skew>;

    /// Writes the floor to disk if that is worth a write. Called now and then; may block.
    fn persist(&self) {}

    /// The best guess at the time: certificates are issued from here on.
    fn best(&self) -> SystemTime {
        self.now().max(self.floor())
    }

    /// The most likely time, where one answer is needed: what is shown to people, and the end of what
    /// people hold. Never before the floor.
    fn likely(&self) -> SystemTime {
        self.best()
    }

    /// Both readings, for [`validity`].
    fn moment(&self) -> Moment {
        Moment { now: self.now(), floor: self.floor() }
    }
}

/// Readings of a [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What the system's clock says.
    pub now: SystemTime,
    /// A time that is certainly past.
    pub floor: SystemTime,
}

/// What a peer said about the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// Who said so.
    pub key: KeyId,
    /// What it is.
    pub role: Role,
    /// What it said.
    pub time: SystemTime,
}

/// How far, and which way, this machine's clock differs from the servers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Our clock is ahead by so much.
    Ahead(Duration),
    /// Our clock is behind by so much.
    Behind(Duration),
}

impl Skew {
    /// The difference, whichever way.
    #[must_use]
    pub fn by(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "min")];
        let seconds = self.by().as_secs();
        let unit = UNITS.into_iter().find(|(length, _)| seconds >= 2 * length);
        let (length, name) = unit.unwrap_or((1, "s"));
        let which = if matches!(self, Self::Ahead(_)) { "ahead of" } else { "behind" };
        write!(f, "{} {name} {which} the servers' clocks", seconds / length)
    }
}

/// What is to be thought of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It may be used.
    Valid,
    /// Its time is over.
    Expired,
}

/// Judges a certificate's end by our clock and by the time that its owner claims. See the module.
#[must_use]
pub fn validity(not_after: SystemTime, ours: Moment, claimed: SystemTime) -> Validity {
    let proven = ours.floor > not_after;
    let agreed = ours.now > not_after && claimed > not_after;
    if proven || agreed { Validity::Expired } else { Validity::Valid }
}

/// What servers said about the time, and when they said it.
#[derive(Debug, Default)]
pub struct Witnesses {
    servers: HashMap<KeyId, Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    time: SystemTime,
    at: Instant,
}

impl Heard {
    /// What this witness's clock says at another moment, if it runs like ours.
    fn time_at(&self, at: Instant) -> Option<SystemTime> {
        self.time.checked_add(at.saturating_duration_since(self.at))
    }
}

impl Witnesses {
    /// Takes a testimony in, and says up to when time is proven now.
    pub fn hear(&mut self, testimony: &Testimony, now: SystemTime, at: Instant) -> SystemTime {
        match testimony.role {
            Role::Node => testimony.time.min(now),
            Role::Server => {
                self.remember(testimony.key, Heard { time: testimony.time, at });
                self.proven(now, at)
            }
        }
    }

    fn remember(&mut self, key: KeyId, heard: Heard) {
        if self.servers.len() >= MAX_WITNESSES && !self.servers.contains_key(&key) {
            let oldest = self.servers.iter().min_by_key(|(_, heard)| heard.at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.servers.remove(&oldest);
            }
        }
        self.servers.insert(key, heard);
    }

    fn times(&self, at: Instant) -> Vec<SystemTime> {
        let mut times: Vec<_> = self.servers.values().filter_map(|heard| heard.time_at(at)).collect();
        times.sort_unstable();
        times
    }

    /// The middle of all clocks, ours among them; of two in the middle the later one. Ours alone is
    /// what it says; of three, one that is off by years is not believed.
    #[must_use]
    pub fn likely(&self, now: SystemTime, at: Instant) -> SystemTime {
        let mut times = self.times(at);
        times.push(now);
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(now)
    }

    /// The second-newest of all clocks, ours among them.
    fn proven(&self, now: SystemTime, at: Instant) -> SystemTime {
        let mut times = self.times(at);
        times.push(now);
        times.sort_unstable();
        times.iter().rev().nth(1).copied().unwrap_or(UNIX_EPOCH)
    }

    /// How far `now` is from the middle of the servers' clocks. Of two in the middle the one nearer to
    /// ours counts.
    #[must_use]
    pub fn skew(&self, now: SystemTime, at: Instant) -> Option<Skew> {
        let times = self.times(at);
        let middle = [times.len().checked_sub(1)? / 2, times.len() / 2];
        let skews = middle.into_iter().filter_map(|i| times.get(i)).map(|time| difference(now, *time));
        skews.min_by_key(|skew| skew.by()).filter(|skew| skew.by() > SKEW_TOLERANCE)
    }
}

fn difference(ours: SystemTime, theirs: SystemTime) -> Skew {
    match ours.duration_since(theirs) {
        Ok(by) => Skew::Ahead(by),
        Err(error) => Skew::Behind(error.duration()),
    }
}

/// The system's clock, with a floor that is not kept: for machines without a directory, and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn floor(&self) -> SystemTime {
        UNIX_EPOCH + BUILT
    }

    fn observe(&self, _: &Testimony) {}

    fn clock_skew(&self) -> Option<Skew> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 86_400;

    /// A time so many years after 1970.
    fn year(n: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(n * YEAR)
    }

    fn key(n: u8) -> KeyId {
        KeyId([n; 32])
    }

    fn server(n: u8, time: SystemTime) -> Testimony {
        Testimony { key: key(n), role: Role::Server, time }
    }

    #[test]
    fn expiry_is_judged_by_floor_and_by_agreement() {
        use Validity::{Expired, Valid};
        // (what, end of the certificate, our clock, our floor, the owner's claim, judgement); years.
        let cases = [
            ("all well", 57, 56, 56, 56, Valid),
            ("both know that it is over", 55, 56, 54, 56, Expired),
            ("ours years behind, the owner's right", 57, 0, 50, 56, Valid),
            ("ours years behind, no floor", 57, 0, 0, 56, Valid),
            ("ours years ahead, the owner's right", 57, 99, 56, 56, Valid),
            ("the owner's years behind", 57, 56, 56, 0, Valid),
            ("the owner's years ahead", 57, 56, 56, 99, Valid),
            ("both years ahead", 57, 99, 56, 99, Expired),
            ("both years behind, the floor knows better", 55, 0, 56, 0, Expired),
            ("a stolen machine long dead lies about the time", 50, 56, 56, 49, Expired),
            ("it lies, and our clock is behind", 50, 0, 56, 49, Expired),
            ("it lies, and our clock is ahead", 50, 99, 56, 49, Expired),
            ("its very end is not past", 56, 56, 56, 56, Valid),
        ];
        for (what, not_after, now, floor, claimed, expected) in cases {
            let ours = Moment { now: year(now), floor: year(floor) };
            assert_eq!(validity(year(not_after), ours, year(claimed)), expected, "{what}");
        }
    }

    #[test]
    fn a_single_clock_never_proves_the_future() {
        // (what, our clock, servers' clocks in the order heard, proven in the end); years.
        let cases: [(&str, u64, &[u64], u64); 7] = [
            ("agreement", 56, &[56], 56),
            ("a server years ahead", 56, &[99], 56),
            ("a server years behind", 56, &[1], 1),
            ("ours years ahead", 99, &[56], 56),
            ("ours years behind, one server", 1, &[56], 1),
            ("ours years behind, two servers", 1, &[56, 56], 56),
            ("one of three servers ahead, ours behind", 1, &[99, 56, 56], 56),
        ];
        for (what, now, servers, expected) in cases {
            let (mut witnesses, at) = (Witnesses::default(), Instant::now());
            let mut proven = UNIX_EPOCH;
            for (i, time) in servers.iter().enumerate() {
                let testimony = server(u8::try_from(i).unwrap(), year(*time));
                proven = witnesses.hear(&testimony, year(now), at);
            }
            assert_eq!(proven, year(expected), "{what}");
        }
    }

    #[test]
    fn one_server_heard_twice_is_one_witness() {
        let (mut witnesses, at) = (Witnesses::default(), Instant::now());
        witnesses.hear(&server(1, year(99)), year(1), at);
        assert_eq!(witnesses.hear(&server(1, year(98)), year(1), at), year(1));
    }

    #[test]
    fn a_node_proves_no_more_than_our_own_clock_says() {
        let (mut witnesses, at) = (Witnesses::default(), Instant::now());
        let node = |time| Testimony { key: key(9), role: Role::Node, time };
        assert_eq!(witnesses.hear(&node(year(99)), year(56), at), year(56));
        assert_eq!(witnesses.hear(&node(year(1)), year(56), at), year(1));
        assert_eq!(witnesses.skew(year(1), at), None, "nodes say nothing about skew");
    }

    #[test]
    fn testimony_runs_on_with_the_monotonic_clock() {
        let (mut witnesses, at) = (Witnesses::default(), Instant::now());
        witnesses.hear(&server(1, year(56)), year(1), at);
        let later = at + Duration::from_secs(3600);
        let proven = witnesses.hear(&server(2, year(57)), year(1), later);
        assert_eq!(proven, year(56) + Duration::from_secs(3600));
    }

    #[test]
    fn witnesses_are_bounded_and_the_oldest_goes_first() {
        let (mut witnesses, at) = (Witnesses::default(), Instant::now());
        for n in 0..40 {
            witnesses.hear(&server(n, year(56)), year(56), at + Duration::from_secs(n.into()));
        }
        assert_eq!(witnesses.servers.len(), MAX_WITNESSES);
        assert!(witnesses.servers.contains_key(&key(39)) && !witnesses.servers.contains_key(&key(0)));
    }

    #[test]
    fn the_likely_time_is_the_middle_of_all_clocks() {
        let at = Instant::now();
        let likely = |now: SystemTime, servers: &[SystemTime]| {
            let mut witnesses = Witnesses::default();
            for (i, time) in servers.iter().enumerate() {
                witnesses.hear(&server(u8::try_from(i).unwrap(), *time), now, at);
            }
            witnesses.likely(now, at)
        };
        assert_eq!(likely(year(56), &[]), year(56));
        assert_eq!(likely(year(56), &[year(60)]), year(60), "the later of two");
        assert_eq!(likely(year(60), &[year(56)]), year(60));
        assert_eq!(likely(year(99), &[year(56), year(56)]), year(56), "ours is years ahead");
        assert_eq!(likely(year(1), &[year(56), year(56)]), year(56), "ours is years behind");
        assert_eq!(likely(year(56), &[year(99), year(56)]), year(56), "another's is");
    }

    #[test]
    fn skew_is_told_against_the_middle_of_the_servers() {
        let at = Instant::now();
        let skew = |now: SystemTime, servers: &[SystemTime]| {
            let mut witnesses = Witnesses::default();
            for (i, time) in servers.iter().enumerate() {
                witnesses.hear(&server(u8::try_from(i).unwrap(), *time), now, at);
            }
            witnesses.skew(now, at)
        };
        assert_eq!(skew(year(56), &[]), None);
        assert_eq!(skew(year(56), &[year(56) + SKEW_TOLERANCE]), None);
        let by = Duration::from_secs(61);
        assert_eq!(skew(year(56), &[year(56) + by]), Some(Skew::Behind(by)));
        assert_eq!(skew(year(56), &[year(56), year(99)]), None, "one of two agrees with us");
        assert_eq!(skew(year(56), &[year(99), year(56), year(1)]), None);
        assert_eq!(
            skew(year(1), &[year(99), year(56), year(56)]),
            Some(Skew::Behind(Duration::from_secs(55 * YEAR)))
        );
        assert_eq!(skew(year(60), &[year(56)]), Some(Skew::Ahead(Duration::from_secs(4 * YEAR))));
    }

    #[test]
    fn skew_reads_as_a_line() {
        let line = |skew: Skew| skew.to_string();
        assert_eq!(line(Skew::Ahead(Duration::from_secs(90))), "90 s ahead of the servers' clocks");
        assert_eq!(line(Skew::Behind(Duration::from_secs(7200))), "2 h behind the servers' clocks");
        assert_eq!(line(Skew::Behind(Duration::from_secs(4 * YEAR))), "1460 d behind the servers' clocks");
    }
}
