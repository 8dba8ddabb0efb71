//! What happened in a run, counted: many runs together show that nothing was left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! happenings {
    ($($name:ident => $words:literal,)*) => {
        /// Something that happens to a cluster.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Happened {
            $($name,)*
        }

        /// What each is called, in the order of their numbers.
        pub(crate) const WORDS: [&str; [$($words),*].len()] = [$($words),*];
    };
}

happenings! {
    Election => "elections",
    Crash => "processes killed",
    PowerLoss => "power losses",
    LostSector => "unsynced sectors lost",
    TornCrash => "power losses that kept a part of what was unsynced",
    MajorityDown => "times that a majority was down",
    Closed => "clean stops",
    Paused => "pauses",
    Split => "splits",
    OneWay => "one-way cuts",
    Isolated => "members isolated",
    Held => "messages held up by a cut",
    LostCall => "calls lost",
    LostPiece => "messages sent again",
    Doubled => "calls doubled",
    Reordered => "calls reordered",
    SlowMessage => "messages that took very long",
    BrokenStream => "streams broken",
    ClockJump => "clock jumps",
    FullDisk => "writes refused by a full disk",
    BrokenDisk => "operations refused by a broken disk",
    SlowSync => "syncs that took long",
    FailedOpen => "starts that the disk made fail",
    Transfer => "leaderships handed over",
    Compaction => "compactions",
    Removed => "members removed",
    Added => "members added",
    Snapshot => "snapshots installed",
    Resumed => "snapshots that went on where they broke off",
    VolatileCopy => "copies of keys in memory",
    VolatileLoss => "times that keys in memory were given up",
    WatchEnded => "watches ended and taken up again",
    WatchRelisted => "watches that had to list anew",
    Backup => "backups compared",
}

/// How often each of [`Happened`] did; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Counts(Arc<[AtomicU64; WORDS.len()]>);

impl Default for Counts {
    fn default() -> Self {
        Self(Arc::new([const { AtomicU64::new(0) }; WORDS.len()]))
    }
}

impl Counts {
    pub(crate) fn note(&self, what: Happened) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: Happened, times: u64) {
        self.0[what as usize].fetch_add(times, Ordering::Relaxed);
    }

    pub(crate) fn values(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}
