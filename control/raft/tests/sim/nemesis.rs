//! What goes wrong, and when: drawn from the seed, applied by the simulation.

use rand::Rng;
use rand::rngs::StdRng;

use crate::net::Weather;

/// Something that happens to the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Weather(Weather),
    /// Everything reaches everything again.
    Heal,
    /// Both directions between the sides of a split; `true` is one side.
    Split(Vec<bool>),
    /// One direction between two members.
    OneWay(usize, usize),
    /// A member, or the leader, hears nobody and is heard by nobody.
    Isolate(Who),
    /// The process is killed; `power` goes with it.
    Kill {
        who: Who,
        power: bool,
    },
    KillAll {
        power: bool,
    },
    Start(usize),
    Pause(Who, u64),
    DiskFull(usize, bool),
    DiskBreaks(usize, u64),
    /// The power goes with the so-manieth operation on the disk from now on, between a write and its sync.
    PowerCut(usize, u64),
    /// Syncs take up to so many milliseconds.
    DiskSlow(usize, u64),
    ClockJump(usize, i64),
    Transfer(Option<usize>),
    Compact(u64),
    /// A backup of the whole store, taken through a member.
    Backup(usize),
    /// A member is removed for good, and its machine comes back as another.
    Replace(usize),
    /// A clean stop.
    Close(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Leader,
    Host(usize),
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: usize,
    pub(crate) clients: usize,
    pub(crate) watchers: usize,
    /// How long things go wrong, in milliseconds.
    pub(crate) trouble: u64,
    /// At most a minority restarts at a time, so that keys in memory survive.
    pub(crate) gentle: bool,
    /// Of 100 operations, how many are on keys in memory.
    pub(crate) volatile: u32,
    /// Milliseconds that a client rests between operations, at most.
    pub(crate) rest: u64,
    pub(crate) sizes: Sizes,
    /// How likely each kind of event is.
    weights: [u32; KINDS],
    /// Mean time between events, in milliseconds.
    pace: u64,
}

const KINDS: usize = 17;

/// How large the store's files are: the smaller, the sooner members that lag need snapshots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Of a segment of the log, in bytes; so much of the log is kept for members that lag.
    pub(crate) segment: usize,
    /// How much is gathered before it goes into the tables, in bytes.
    pub(crate) checkpoint: usize,
}

impl Plan {
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let members = [1, 3, 3, 3, 3, 5][rng.random_range(0..6)];
        // Alone, any restart is one of a majority.
        let gentle = members > 1 && rng.random_range(0..3) == 0;
        let mut weights = [0; KINDS];
        for weight in &mut weights {
            // Some runs are without some troubles altogether, so that rare mixes come up.
            *weight = [0, 0, 1, 3, 6][rng.random_range(0..5)];
        }
        weights[0] = weights[0].max(1);
        weights[1] = weights[1].max(2);
        Self {
            members,
            clients: rng.random_range(2..6),
            watchers: rng.random_range(2..5),
            trouble: rng.random_range(3_000..9_000),
            gentle,
            volatile: [0, 15, 40][rng.random_range(0..3)],
            rest: [5, 30, 120][rng.random_range(0..3)],
            sizes: Sizes {
                segment: [16 << 10, 32 << 10, 128 << 10][rng.random_range(0..3)],
                checkpoint: [16 << 10, 32 << 10][rng.random_range(0..2)],
            },
            weights,
            pace: [60, 200, 500][rng.random_range(0..3)],
        }
    }

    /// The next event and how long after it the one after that comes.
    pub(crate) fn next(&self, rng: &mut StdRng) -> (Event, u64) {
        let total: u32 = self.weights.iter().sum();
        let mut drawn = rng.random_range(0..total);
        let mut kind = 0;
        while drawn >= self.weights[kind] {
            drawn -= self.weights[kind];
            kind += 1;
        }
        (self.event(kind, rng), rng.random_range(1..self.pace * 2))
    }

    fn event(&self, kind: usize, rng: &mut StdRng) -> Event {
        let host = rng.random_range(0..self.members);
        let who = if rng.random_range(0..2) == 0 { Who::Leader } else { Who::Host(host) };
        match kind {
            0 => Event::Heal,
            1 => Event::Start(host),
            2 => Event::Weather(Weather::random(rng)),
            3 => Event::Split((0..self.members).map(|_| rng.random_range(0..2) == 0).collect()),
            4 => Event::OneWay(host, rng.random_range(0..self.members)),
            5 => Event::Isolate(who),
            6 => Event::Kill { who, power: rng.random_range(0..3) > 0 },
            7 if self.gentle => Event::Kill { who, power: true },
            7 => Event::KillAll { power: rng.random_range(0..3) > 0 },
            8 => Event::Pause(who, rng.random_range(20..1_500)),
            9 => Event::DiskFull(host, rng.random_range(0..2) == 0),
            10 => match rng.random_range(1..40) {
                after if after % 2 == 0 => Event::PowerCut(host, after),
                after => Event::DiskBreaks(host, after),
            },
            11 => Event::ClockJump(host, rng.random_range(-400_000_000..400_000_000)),
            12 => Event::Transfer((rng.random_range(0..2) == 0).then_some(host)),
            13 => Event::Compact(rng.random_range(0..60)),
            14 => Event::DiskSlow(host, [0, 10, 50, 300][rng.random_range(0..4)]),
            15 => Event::Backup(host),
            _ if rng.random_range(0..3) == 0 => Event::Replace(host),
            _ => Event::Close(host),
        }
    }
}
